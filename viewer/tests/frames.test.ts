import assert from "node:assert/strict";
import { test } from "node:test";
import { FrameRate } from "../src/frames.ts";

/** Read a counter that grows by `fps`, every 400 ms. */
function watch(rate: FrameRate, fps: number, fromMs: number, toMs: number, frames = 0): number | null {
  let seen: number | null = null;
  for (let atMs = fromMs; atMs <= toMs; atMs += 400) {
    seen = rate.read(frames + (fps * (atMs - fromMs)) / 1000, atMs);
  }
  return seen;
}

test("nothing is claimed before a second was watched", () => {
  assert.equal(watch(new FrameRate(), 25, 0, 800), null);
});

test("a steady stream has its rate", () => {
  assert.equal(watch(new FrameRate(), 25, 0, 8000), 25);
});

test("waiting for a stream is no part of its rate", () => {
  const rate = new FrameRate();
  assert.equal(watch(rate, 0, 0, 8000), null);
  assert.equal(watch(rate, 25, 8000, 9200), 25);
});

test("a stream that stops is at 0 within the span", () => {
  const rate = new FrameRate();
  watch(rate, 25, 0, 8000);
  assert.equal(watch(rate, 0, 8400, 10800, 200), 0);
});

test("a counter that began again does not make a negative rate", () => {
  const rate = new FrameRate();
  watch(rate, 25, 0, 8000);
  assert.equal(rate.read(3, 8400), null);
  assert.equal(watch(rate, 10, 8800, 12000, 7), 10);
});

test("after a reset nothing is remembered", () => {
  const rate = new FrameRate();
  watch(rate, 25, 0, 8000);
  rate.reset();
  assert.equal(rate.read(300, 8400), null);
});
