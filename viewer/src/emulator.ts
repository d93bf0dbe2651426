// What the emulator's control API tells this page.

/** One session, as `GET /_emulator/viewer` describes it. */
export interface SessionView {
  id: string;
  /** waiting, ready, muted or ended. */
  phase: string;
  /** idle, listening or talking. */
  pose: string;
  /** Seconds since its start; of an ended one, how long it was. */
  duration_s: number;
  /** null while it runs. */
  end_reason: string | null;
  /** Name of the caller's own room; null for a room of the emulator's. */
  own_room: string | null;
}

/** The answer of `GET /_emulator/viewer?session=...`. */
export interface Status {
  /** Whether the emulator has a LiveKit server. */
  livekit: boolean;
  /** Sessions that run, in the order of their start. */
  running: SessionView[];
  /** The session asked for, running or not; null when there is none of this id. */
  session: SessionView | null;
}

/** Where and how to join a session's room, as a viewer. */
export interface Seat {
  url: string;
  room: string;
  token: string;
}

/** The emulator refused, or does not answer; the message is for people. */
export class Refused extends Error {}

/** Ask how things are; `sessionId` is the one being watched. */
export async function status(sessionId: string | null): Promise<Status> {
  const query = sessionId === null ? "" : `?session=${encodeURIComponent(sessionId)}`;
  return (await ask(`/_emulator/viewer${query}`)) as Status;
}

/** Get a seat in a session's room. */
export async function seat(sessionId: string): Promise<Seat> {
  return (await ask(`/_emulator/sessions/${encodeURIComponent(sessionId)}/viewer`)) as Seat;
}

async function ask(path: string): Promise<unknown> {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(5000) }).catch(() => {
    throw new Refused("The emulator does not answer.");
  });
  const body: unknown = await answer.json().catch(() => null);
  if (!answer.ok) {
    const detail = body !== null && typeof body === "object" && "detail" in body ? body.detail : null;
    throw new Refused(typeof detail === "string" ? detail : `The emulator answered ${answer.status}.`);
  }
  return body;
}
