// Texts of the page.

import type { SessionView } from "./emulator.ts";

/** The connection to the room. */
export type Connection = "none" | "joining" | "joined" | "reconnecting" | "left";

const CONNECTIONS: Record<Connection, string> = {
  none: "Not connected",
  joining: "Connecting",
  joined: "Connected",
  reconnecting: "Reconnecting",
  left: "Disconnected",
};

const ENDS: Record<string, string> = {
  IDLE_TIMEOUT: "nothing was asked of it for too long",
  MAX_DURATION_REACHED: "it reached its longest duration",
  SERVER_ERROR: "the avatar could not stay in its room",
  NO_CREDITS: "the account ran out of credits",
  ZOMBIE_SESSION_REAP: "its caller went away without stopping it",
};

export function connectionText(connection: Connection): string {
  return CONNECTIONS[connection];
}

/** Return the avatar's activity, for label and colour. */
export function activity(session: SessionView): string {
  if (session.phase === "waiting") {
    return "Getting ready";
  }
  if (session.phase === "muted") {
    return "Muted";
  }
  return session.pose.charAt(0).toUpperCase() + session.pose.slice(1);
}

/** Return the reason of a session's end as a sentence that contains the service's own term. */
export function endText(reason: string | null): string {
  if (reason === null) {
    return "The emulator knows no such session (any more).";
  }
  const why = ENDS[reason];
  return why === undefined ? `It ended with ${reason}.` : `It ended because ${why} (${reason}).`;
}

/** Return the short form of an id. */
export function shortId(id: string): string {
  return id.slice(0, 8);
}

/** Return a duration as minutes and seconds. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const minutes = Math.floor(whole / 60);
  return `${minutes}:${String(whole % 60).padStart(2, "0")}`;
}

/** Return the video's size and rate; a dash if unknown. */
export function pictureText(width: number, height: number, fps: number | null): string {
  if (width === 0 || height === 0) {
    return "–";
  }
  const size = `${width} × ${height}`;
  return fps === null ? size : `${size}, ${Math.round(fps)} fps`;
}
