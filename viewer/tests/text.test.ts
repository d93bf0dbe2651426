import assert from "node:assert/strict";
import { test } from "node:test";
import type { SessionView } from "../src/emulator.ts";
import { activity, clock, endText, pictureText } from "../src/text.ts";

const view = (phase: string, pose: string): SessionView => ({
  id: "838e0d05-f1cb-4317-a885-02ddc092c3e7",
  phase,
  pose,
  duration_s: 0,
  end_reason: null,
  livekit_room: null,
});

test("what the avatar does is its pose, once it is ready", () => {
  assert.equal(activity(view("waiting", "idle")), "Getting ready");
  assert.equal(activity(view("ready", "talking")), "Talking");
  assert.equal(activity(view("ready", "listening")), "Listening");
  assert.equal(activity(view("muted", "idle")), "Muted");
});

test("an end is explained and keeps the service's own word", () => {
  assert.match(endText("ZOMBIE_SESSION_REAP"), /caller went away.*ZOMBIE_SESSION_REAP/);
  assert.match(endText("USER_CLOSED"), /USER_CLOSED/);
  assert.match(endText(null), /no such session/);
});

test("durations are minutes and seconds", () => {
  assert.equal(clock(0), "0:00");
  assert.equal(clock(59.99), "0:59");
  assert.equal(clock(3601), "60:01");
  assert.equal(clock(-1), "0:00");
});

test("a picture is told with what is known of it", () => {
  assert.equal(pictureText(0, 0, 25), "–");
  assert.equal(pictureText(1280, 720, null), "1280 × 720");
  assert.equal(pictureText(1280, 720, 24.6), "1280 × 720, 25 fps");
});
