// Entries of the conversation's record, as the demo sends them, and their lines in the log.

/** Entry of the record. Durations are in milliseconds. */
export type Entry = { number: number; at_ms: number } & (
  | { kind: "session"; state: string; reason?: string }
  | { kind: "pose"; pose: string }
  | { kind: "user_began" }
  | { kind: "user_ended"; duration_ms: number }
  | { kind: "avatar_began"; utterance: string; latency_ms: number | null }
  | { kind: "avatar_ended"; utterance: string; outcome: string; played_ms: number }
  | { kind: "interrupted"; by: string }
  | { kind: "paused"; utterance: string; played_ms: number }
  | { kind: "continued"; utterance: string; cause: string; repeated_ms: number }
  | { kind: "underrun"; utterance: string }
);

const OUTCOMES: Record<string, string> = {
  played: "The avatar has spoken",
  interrupted: "The avatar was interrupted",
  failed: "The avatar's speech failed",
};

const STATES: Record<string, string> = {
  connecting: "The avatar is getting ready",
  ready: "The avatar is ready",
  reconnecting: "The gateway has lost the avatar and is reconnecting",
  ended: "The session has ended; the next one is being opened",
};

/** Return a duration in seconds, with one digit. */
export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

/** Return the line of an entry in the log, or null if it has none. */
export function line(entry: Entry): string | null {
  switch (entry.kind) {
    case "session":
      return STATES[entry.state] ?? null;
    case "pose":
    case "user_began":
      return null;
    case "user_ended":
      return `You spoke for ${seconds(entry.duration_ms)}`;
    case "avatar_began":
      return entry.latency_ms === null
        ? "The avatar speaks"
        : `The avatar answers, ${seconds(entry.latency_ms)} after you`;
    case "avatar_ended":
      return `${OUTCOMES[entry.outcome] ?? "The avatar's speech ended"}, ${seconds(entry.played_ms)} were heard`;
    case "interrupted":
      return entry.by === "voice" ? "You interrupt by speaking" : "You interrupt";
    case "paused":
      return "The avatar pauses";
    case "continued":
      return entry.cause === "interrupt" ? null : "The avatar continues";
    case "underrun":
      return "The avatar waits for audio";
  }
}
