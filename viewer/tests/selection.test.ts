import assert from "node:assert/strict";
import { test } from "node:test";
import type { SessionView, Status } from "../src/emulator.ts";
import * as follow from "../src/selection.ts";

function session(id: string, end_reason: string | null = null): SessionView {
  return { id, phase: end_reason === null ? "ready" : "ended", pose: "idle", duration_s: 1, end_reason, livekit_room: null };
}

/** What the emulator answers when these run and `about` was requested for. */
function status(running: string[], about: SessionView | null = null): Status {
  return { livekit: true, running: running.map((id) => session(id)), session: about };
}

const watching = (choice: follow.Choice, id: string): follow.Selection => ({ choice, watched: { kind: "session", id } });
const NEWEST: follow.Choice = { kind: "newest" };

test("without a session in its address the page waits for one and takes the newest", () => {
  const begun = follow.begin("");
  assert.equal(follow.requested(begun), null);
  assert.equal(follow.next(begun, status([]), 0), begun);
  assert.deepEqual(follow.next(begun, status(["a", "b"]), 0), watching(NEWEST, "b"));
});

test("a session in the address is watched although a newer one runs", () => {
  const begun = follow.begin("?session=a");
  assert.equal(follow.requested(begun), "a");
  assert.equal(follow.next(begun, status(["a", "b"], session("a")), 0), begun);
});

test("who follows the newest goes over to it while the older one still runs", () => {
  const before = watching(NEWEST, "a");
  assert.deepEqual(follow.next(before, status(["a", "b"], session("a")), 0), watching(NEWEST, "b"));
});

test("an ended session's reason stays to be read, although the next one runs already", () => {
  const over = follow.next(watching(NEWEST, "a"), status(["b"], session("a", "USER_CLOSED")), 1000);
  assert.deepEqual(over.watched, { kind: "over", id: "a", reason: "USER_CLOSED", sinceMs: 1000 });
  assert.equal(follow.next(over, status(["b"], session("a", "USER_CLOSED")), 999 + follow.READ_MS), over);
  const after = follow.next(over, status(["b"], session("a", "USER_CLOSED")), 1000 + follow.READ_MS);
  assert.deepEqual(after, watching(NEWEST, "b"));
});

test("without a next session the end stays on screen", () => {
  const over = follow.next(follow.one("a"), status([], session("a", "IDLE_TIMEOUT")), 0);
  assert.equal(follow.next(over, status([], session("a", "IDLE_TIMEOUT")), 1e9), over);
});

test("after the end of the one that was picked, the newest is followed", () => {
  const over = follow.next(follow.one("a"), status(["b"], session("a", "IDLE_TIMEOUT")), 0);
  assert.deepEqual(follow.next(over, status(["b", "c"]), follow.READ_MS), watching(NEWEST, "c"));
});

test("a session that the emulator has forgotten, or never had, is over without a reason", () => {
  const over = follow.next(follow.one("a"), status(["b"]), 5);
  assert.deepEqual(over.watched, { kind: "over", id: "a", reason: null, sinceMs: 5 });
});
