// Keyboard shortcuts. Single keys, so the user can turn them off (WCAG 2.1.4).

export type Action = "mute" | "pause" | "continue" | "interrupt";

const KEYS: Record<string, Action> = { m: "mute", p: "pause", c: "continue", i: "interrupt" };

/** Elements in which keys have another meaning. */
const TYPING = new Set(["INPUT", "SELECT", "TEXTAREA"]);

/** Key that was pressed, as far as shortcuts depend on it. */
export interface Press {
  key: string;
  modified: boolean;
  repeated: boolean;
  /** Name of the focused element. */
  focus: string;
}

/** Return the action of a key, or null. */
export function action(press: Press, enabled: boolean): Action | null {
  if (!enabled || press.modified || press.repeated || TYPING.has(press.focus.toUpperCase())) {
    return null;
  }
  return KEYS[press.key.toLowerCase()] ?? null;
}
