// Selection of the watched session. Pure: the emulator's status and the time come in, the next state comes out.

import type { Status } from "./emulator.ts";

/** Choice of the picker: the newest session, or the session of this id. */
export type Choice = { kind: "newest" } | { kind: "one"; id: string };

/** Currently watched session. `over` stays on screen until the next session starts. */
export type Watched =
  | { kind: "nothing" }
  | { kind: "session"; id: string }
  | { kind: "over"; id: string; reason: string | null; sinceMs: number };

export interface Selection {
  choice: Choice;
  watched: Watched;
}

/** Time for which the end of a session is shown before the next session. */
export const READ_MS = 2500;

/** Select the session in the page's address, or the newest. */
export function begin(search: string): Selection {
  const id = new URLSearchParams(search).get("session");
  return id ? { choice: { kind: "one", id }, watched: { kind: "session", id } } : newest();
}

/** Select the newest session from now on. */
export function newest(): Selection {
  return { choice: { kind: "newest" }, watched: { kind: "nothing" } };
}

/** Select one session until it ends. */
export function one(id: string): Selection {
  return { choice: { kind: "one", id }, watched: { kind: "session", id } };
}

/** Return the session whose status is requested. */
export function requested(selection: Selection): string | null {
  return selection.watched.kind === "nothing" ? null : selection.watched.id;
}

/** Return the selection after a status of the session that `requested` returned. */
export function next(selection: Selection, status: Status, nowMs: number): Selection {
  const { choice, watched } = selection;
  const latest = status.running.at(-1)?.id ?? null;
  switch (watched.kind) {
    case "nothing":
      return latest === null ? selection : { choice, watched: { kind: "session", id: latest } };
    case "session": {
      const session = status.session?.id === watched.id ? status.session : null;
      if (session === null || session.end_reason !== null) {
        const reason = session?.end_reason ?? null;
        return { choice, watched: { kind: "over", id: watched.id, reason, sinceMs: nowMs } };
      }
      return choice.kind === "newest" && latest !== null && latest !== watched.id
        ? { choice, watched: { kind: "session", id: latest } }
        : selection;
    }
    case "over":
      // The chosen session is over, so the newest session is chosen again.
      return latest !== null && nowMs - watched.sinceMs >= READ_MS
        ? { choice: { kind: "newest" }, watched: { kind: "session", id: latest } }
        : selection;
  }
}
