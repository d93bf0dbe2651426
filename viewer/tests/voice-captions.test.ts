import assert from "node:assert/strict";
import { test } from "node:test";
import { Captions, STAY_MS } from "../src/voice/captions.ts";

test("words appear as they come, and stay a while", () => {
  const captions = new Captions();
  assert.equal(captions.shown(0), null);
  captions.open("s1", "segment", "avatar");
  assert.equal(captions.shown(0), null);
  captions.append("s1", "Hello, ");
  captions.append("s1", "world ");
  assert.deepEqual(captions.shown(0), { who: "avatar", text: "Hello, world" });
  captions.close("s1", 1000);
  assert.deepEqual(captions.shown(1000 + STAY_MS - 1), { who: "avatar", text: "Hello, world" });
  assert.equal(captions.shown(1000 + STAY_MS), null);
});

test("a later stream of the same segment replaces its words", () => {
  const captions = new Captions();
  captions.open("s1", "segment", "you");
  captions.append("s1", "I scream");
  captions.open("s2", "segment", "you");
  captions.append("s1", " and more");
  captions.append("s2", "ice cream");
  assert.deepEqual(captions.shown(0), { who: "you", text: "ice cream" });
});

test("the newest words are shown", () => {
  const captions = new Captions();
  captions.open("s1", "a", "avatar");
  captions.append("s1", "first");
  captions.open("s2", "b", "you");
  assert.equal(captions.shown(0)?.text, "first");
  captions.append("s2", "second");
  assert.deepEqual(captions.shown(0), { who: "you", text: "second" });
});

test("segments are bounded", () => {
  const captions = new Captions();
  for (let number = 0; number < 100; number += 1) {
    captions.open(`s${number}`, `segment ${number}`, "avatar");
  }
  captions.append("s0", "long gone");
  assert.equal(captions.shown(0), null);
});
