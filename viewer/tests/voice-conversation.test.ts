import assert from "node:assert/strict";
import { test } from "node:test";
import { type Conversation, EMPTY, KEPT_MS, next, paused, speaks } from "../src/voice/conversation.ts";
import { type Entry, line } from "../src/voice/entries.ts";

let count = 0;

type Rest<Kind extends Entry["kind"]> = Omit<Extract<Entry, { kind: Kind }>, "number" | "at_ms" | "kind">;

function entry<Kind extends Entry["kind"]>(at_ms: number, kind: Kind, rest: Rest<Kind>): Entry {
  count += 1;
  return { number: count, at_ms, kind, ...rest } as unknown as Entry;
}

const after = (...entries: Entry[]): Conversation => entries.reduce(next, EMPTY);

const READY = entry(0, "session", { state: "ready" });
const YOU_BEGIN = entry(1000, "user_began", {});
const YOU_END = entry(2000, "user_ended", { duration_ms: 1000 });
const ANSWER = entry(2900, "avatar_began", { utterance: "u1", latency_ms: 900 });

test("speech of both sides has a beginning and an end", () => {
  const talking = after(READY, YOU_BEGIN, YOU_END, ANSWER);
  assert.equal(speaks(talking, "you"), false);
  assert.equal(speaks(talking, "avatar"), true);
  const over = next(talking, entry(5000, "avatar_ended", { utterance: "u1", outcome: "played", played_ms: 2000 }));
  assert.deepEqual(over.speeches, [
    { side: "you", fromMs: 1000, toMs: 2000, outcome: "" },
    { side: "avatar", fromMs: 2900, toMs: 5000, outcome: "played" },
  ]);
});

test("an answer's latency reaches from the user's last sound to its first", () => {
  assert.deepEqual(after(YOU_BEGIN, YOU_END, ANSWER).latencies, [{ fromMs: 2000, toMs: 2900 }]);
  const greeting = entry(2900, "avatar_began", { utterance: "u1", latency_ms: null });
  assert.deepEqual(after(greeting).latencies, []);
});

test("a pause lasts until the speech continues, and a second one changes nothing", () => {
  const pause = entry(3000, "paused", { utterance: "u1", played_ms: 100 });
  const resting = after(ANSWER, pause, entry(3500, "paused", { utterance: "u1", played_ms: 100 }));
  assert.equal(paused(resting), true);
  assert.equal(resting.pauses.length, 1);
  const going = next(resting, entry(4000, "continued", { utterance: "u1", cause: "command", repeated_ms: 0 }));
  assert.equal(paused(going), false);
  assert.deepEqual(going.pauses, [{ fromMs: 3000, toMs: 4000 }]);
});

test("an utterance that ended before it was heard ends no other", () => {
  const never = entry(3000, "avatar_ended", { utterance: "u0", outcome: "interrupted", played_ms: 0 });
  assert.deepEqual(after(never).speeches, []);
});

test("nothing outlasts its session", () => {
  const pause = entry(3000, "paused", { utterance: "u1", played_ms: 100 });
  const over = after(READY, ANSWER, pause, entry(4000, "session", { state: "ended", reason: "idle" }));
  assert.equal(over.session, "ended");
  assert.equal(speaks(over, "avatar"), false);
  assert.equal(paused(over), false);
});

test("the old is forgotten and the unfinished is kept", () => {
  const long = after(YOU_BEGIN, YOU_END, ANSWER);
  const later = next(long, entry(2900 + KEPT_MS + 1, "interrupted", { by: "button" }));
  assert.deepEqual(later.latencies, []);
  assert.deepEqual(later.speeches.map((one) => one.side), ["avatar"]);
  assert.equal(later.interrupts.length, 1);
});

test("the log has the same in words", () => {
  assert.equal(line(YOU_END), "You spoke for 1.0 s");
  assert.equal(line(ANSWER), "The avatar answers, 0.9 s after you");
  assert.equal(line(YOU_BEGIN), null);
  assert.equal(
    line(entry(0, "avatar_ended", { utterance: "u1", outcome: "interrupted", played_ms: 1234 })),
    "The avatar was interrupted, 1.2 s were heard",
  );
  assert.equal(line(entry(0, "interrupted", { by: "voice" })), "You interrupt by speaking");
  assert.equal(line(entry(0, "paused", { utterance: "", played_ms: 0 })), "The avatar pauses");
  assert.equal(line(entry(0, "session", { state: "ended", reason: "idle" })), "The session has ended; the next one is being opened");
  assert.equal(line(entry(0, "session", { state: "of a newer gateway" })), null);
});
