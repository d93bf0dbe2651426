import assert from "node:assert/strict";
import { test } from "node:test";
import { FALL_MS, FLOOR_DB, fallen, loudnessDb, position } from "../src/level.ts";

const sine = (amplitude: number) => Float32Array.from({ length: 4800 }, (_, n) => amplitude * Math.sin((n * Math.PI) / 24));

test("silence has no loudness, and a sine has 3 dB less than its peak", () => {
  assert.equal(loudnessDb(new Float32Array(2048)), -Infinity);
  assert.equal(loudnessDb(new Float32Array(0)), -Infinity);
  assert.ok(Math.abs(loudnessDb(sine(1)) + 3.01) < 0.01);
  assert.ok(Math.abs(loudnessDb(sine(0.1)) + 23.01) < 0.01);
});

test("the meter shows the range from its floor to full scale, and nothing beyond", () => {
  assert.equal(position(-Infinity), 0);
  assert.equal(position(FLOOR_DB), 0);
  assert.equal(position(FLOOR_DB / 2), 0.5);
  assert.equal(position(0), 1);
  assert.equal(position(6), 1);
});

test("the meter rises at once and falls at its own pace", () => {
  assert.equal(fallen(0.2, 0.9, 16), 0.9);
  assert.equal(fallen(1, 0, FALL_MS / 4), 0.75);
  assert.equal(fallen(1, 0.8, FALL_MS / 4), 0.8);
  assert.equal(fallen(0.1, 0, 10 * FALL_MS), 0);
});

test("a clock that goes back lifts no meter", () => {
  assert.equal(fallen(0.5, 0, -1000), 0.5);
});
