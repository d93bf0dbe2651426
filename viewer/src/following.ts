// Which session is watched. Pure: what the emulator says and the time come in, the next state comes out.

import type { Status } from "./emulator.ts";

/** What the picker says: the newest session, whichever that is, or one of this id. */
export type Choice = { kind: "newest" } | { kind: "one"; id: string };

/** What is watched now. `over` stays on screen until the next session is there. */
export type Watched =
  | { kind: "nothing" }
  | { kind: "session"; id: string }
  | { kind: "over"; id: string; reason: string | null; sinceMs: number };

export interface Following {
  choice: Choice;
  watched: Watched;
}

/** How long a session's end can be read before the next one is shown. */
export const READ_MS = 2500;

/** Start with the session that the page's address names, or with the newest. */
export function begin(search: string): Following {
  const id = new URLSearchParams(search).get("session");
  return id ? { choice: { kind: "one", id }, watched: { kind: "session", id } } : newest();
}

/** Follow the newest from now on. */
export function newest(): Following {
  return { choice: { kind: "newest" }, watched: { kind: "nothing" } };
}

/** Watch this one, until it ends. */
export function one(id: string): Following {
  return { choice: { kind: "one", id }, watched: { kind: "session", id } };
}

/** Which session to ask the emulator about. */
export function asked(following: Following): string | null {
  return following.watched.kind === "nothing" ? null : following.watched.id;
}

/** Take in what the emulator said about the session `asked` for. */
export function next(following: Following, status: Status, nowMs: number): Following {
  const { choice, watched } = following;
  const latest = status.running.at(-1)?.id ?? null;
  switch (watched.kind) {
    case "nothing":
      return latest === null ? following : { choice, watched: { kind: "session", id: latest } };
    case "session": {
      const session = status.session?.id === watched.id ? status.session : null;
      if (session === null || session.end_reason !== null) {
        const reason = session?.end_reason ?? null;
        return { choice, watched: { kind: "over", id: watched.id, reason, sinceMs: nowMs } };
      }
      return choice.kind === "newest" && latest !== null && latest !== watched.id
        ? { choice, watched: { kind: "session", id: latest } }
        : following;
    }
    case "over":
      // What was picked is over, so there is no more to hold on to.
      return latest !== null && nowMs - watched.sinceMs >= READ_MS
        ? { choice: { kind: "newest" }, watched: { kind: "session", id: latest } }
        : following;
  }
}
