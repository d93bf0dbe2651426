// Client of the emulator's control API.

/** Session in the response of `GET /_emulator/viewer`. */
export interface SessionView {
  id: string;
  /** waiting, ready, muted or ended. */
  phase: string;
  /** idle, listening or talking. */
  pose: string;
  /** Seconds since its start; total duration of an ended session. */
  duration_s: number;
  /** null while the session runs. */
  end_reason: string | null;
  /** Name of the caller's own room; null for a room of the emulator. */
  livekit_room: string | null;
}

/** Response of `GET /_emulator/viewer?session=...`. */
export interface Status {
  /** True if the emulator has a LiveKit server. */
  livekit: boolean;
  /** Running sessions in the order of their start. */
  running: SessionView[];
  /** The requested session, running or ended; null for an unknown id. */
  session: SessionView | null;
}

/** Server, room and token for joining a session's room as a hidden observer. */
export interface RoomAccess {
  url: string;
  room: string;
  token: string;
}

/** The emulator refused or does not respond; the message is shown to the user. */
export class Refused extends Error {}

/** Return the running sessions and the state of the watched session. */
export async function status(sessionId: string | null): Promise<Status> {
  const query = sessionId === null ? "" : `?session=${encodeURIComponent(sessionId)}`;
  return (await get(`/_emulator/viewer${query}`)) as Status;
}

/** Return access to a session's room. */
export async function roomAccess(sessionId: string): Promise<RoomAccess> {
  return (await get(`/_emulator/sessions/${encodeURIComponent(sessionId)}/viewer`)) as RoomAccess;
}

/** Return the headers with the control token that the page's address ends with, as in `/viewer#token=...`. */
export function credentials(hash: string): Record<string, string> {
  const token = new URLSearchParams(hash.replace(/^#/, "")).get("token");
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

async function get(path: string): Promise<unknown> {
  const headers = credentials(location.hash);
  const response = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(5000) }).catch(() => {
    throw new Refused("The emulator does not respond.");
  });
  const body: unknown = await response.json().catch(() => null);
  if (!response.ok) {
    const detail = text(body, "detail") ?? text(body, "message");
    throw new Refused(detail ?? `The emulator responded with ${response.status}.`);
  }
  return body;
}

function text(body: unknown, name: string): string | null {
  const value: unknown = body !== null && typeof body === "object" ? (body as Record<string, unknown>)[name] : null;
  return typeof value === "string" ? value : null;
}
