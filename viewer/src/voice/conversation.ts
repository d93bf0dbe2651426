// State of the conversation, from its entries. Pure: an entry comes in, the next state comes out.

import type { Entry } from "./entries.ts";

/** Speech of one side; `toMs` is null while it lasts. */
export interface Speech {
  side: "you" | "avatar";
  fromMs: number;
  toMs: number | null;
  /** played, interrupted or failed; empty while it lasts, and for the user. */
  outcome: string;
}

/** Pause of the avatar; `toMs` is null while it lasts. */
export interface Pause {
  fromMs: number;
  toMs: number | null;
}

/** Time between the user's last sound and the answer's first. */
export interface Latency {
  fromMs: number;
  toMs: number;
}

/** Interrupt, by "voice" or "button". */
export interface Interrupt {
  atMs: number;
  by: string;
}

export interface Conversation {
  /** State of the session; empty before the first entry. */
  session: string;
  speeches: readonly Speech[];
  pauses: readonly Pause[];
  latencies: readonly Latency[];
  interrupts: readonly Interrupt[];
}

/** Time for which things are kept; far above the longest timeline. */
export const KEPT_MS = 120_000;

export const EMPTY: Conversation = { session: "", speeches: [], pauses: [], latencies: [], interrupts: [] };

/** Return the state after an entry. */
export function next(before: Conversation, entry: Entry): Conversation {
  const at = entry.at_ms;
  const now = forget(before, at);
  switch (entry.kind) {
    case "session": {
      if (entry.state !== "ended") {
        return { ...now, session: entry.state };
      }
      // Nothing of a session outlasts it.
      const speeches = now.speeches.map((one) => (one.toMs === null ? { ...one, toMs: at } : one));
      return { ...now, session: "ended", speeches, pauses: endAll(now.pauses, at) };
    }
    case "user_began":
      return { ...now, speeches: [...now.speeches, { side: "you", fromMs: at, toMs: null, outcome: "" }] };
    case "user_ended":
      return { ...now, speeches: endSpeech(now.speeches, "you", at, "") };
    case "avatar_began": {
      const speeches = [...now.speeches, { side: "avatar", fromMs: at, toMs: null, outcome: "" } as const];
      const latencies =
        entry.latency_ms === null
          ? now.latencies
          : [...now.latencies, { fromMs: at - entry.latency_ms, toMs: at }];
      return { ...now, speeches, latencies };
    }
    case "avatar_ended":
      // The end of an utterance that never began ends nothing.
      return { ...now, speeches: endSpeech(now.speeches, "avatar", at, entry.outcome) };
    case "interrupted":
      return { ...now, interrupts: [...now.interrupts, { atMs: at, by: entry.by }] };
    case "paused":
      return paused(now) ? now : { ...now, pauses: [...now.pauses, { fromMs: at, toMs: null }] };
    case "continued":
      return { ...now, pauses: endAll(now.pauses, at) };
    case "pose":
    case "underrun":
      return now;
  }
}

/** Return whether a side speaks. */
export function speaks(conversation: Conversation, side: Speech["side"]): boolean {
  return conversation.speeches.some((speech) => speech.side === side && speech.toMs === null);
}

/** Return whether the avatar is paused. */
export function paused(conversation: Conversation): boolean {
  return conversation.pauses.some((pause) => pause.toMs === null);
}

function endSpeech(speeches: readonly Speech[], side: Speech["side"], toMs: number, outcome: string): Speech[] {
  const oldest = speeches.find((speech) => speech.side === side && speech.toMs === null);
  return speeches.map((speech) => (speech === oldest ? { ...speech, toMs, outcome } : speech));
}

function endAll(pauses: readonly Pause[], toMs: number): Pause[] {
  return pauses.map((pause) => (pause.toMs === null ? { ...pause, toMs } : pause));
}

function forget(conversation: Conversation, nowMs: number): Conversation {
  const since = nowMs - KEPT_MS;
  return {
    ...conversation,
    speeches: conversation.speeches.filter((one) => one.toMs === null || one.toMs > since),
    pauses: conversation.pauses.filter((one) => one.toMs === null || one.toMs > since),
    latencies: conversation.latencies.filter((one) => one.toMs > since),
    interrupts: conversation.interrupts.filter((one) => one.atMs > since),
  };
}
