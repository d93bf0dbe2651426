import assert from "node:assert/strict";
import { test } from "node:test";
import { type Conversation, EMPTY } from "../src/voice/conversation.ts";
import { fitting, HEIGHT, layout, type Shape, span } from "../src/voice/timeline.ts";

const NOW = 1_000_000;
const WIDTH = 1440; // a minute
const PX_PER_S = WIDTH / 60;

const of = (parts: Partial<Conversation>): Shape[] => layout({ ...EMPTY, ...parts }, NOW, WIDTH);
const bars = (shapes: Shape[]) => shapes.filter((shape) => shape.kind === "bar");
const near = (found: number, wanted: number) => assert.ok(Math.abs(found - wanted) < 0.01, `${found} is not ${wanted}`);

test("a wide timeline shows a minute and a phone's shows less", () => {
  assert.equal(span(WIDTH), 60_000);
  assert.equal(span(2000), 60_000);
  assert.equal(span(730), 30_000);
  assert.equal(span(330), 20_000);
  assert.equal(span(10), 20_000);
});

test("speech is a bar from its beginning to its end, in the lane of its side", () => {
  const [you, avatar] = bars(
    of({
      speeches: [
        { side: "you", fromMs: NOW - 30_000, toMs: NOW - 25_000, outcome: "" },
        { side: "avatar", fromMs: NOW - 24_000, toMs: NOW - 20_000, outcome: "interrupted" },
      ],
    }),
  );
  assert.ok(you !== undefined && avatar !== undefined);
  near(you.x, 30 * PX_PER_S);
  near(you.width, 5 * PX_PER_S);
  assert.equal(you.className, "you");
  assert.equal(avatar.className, "avatar interrupted");
  assert.ok(avatar.y >= you.y + you.height);
});

test("what lasts ends at the present, and what began before ends at the left edge", () => {
  const [bar] = bars(of({ speeches: [{ side: "you", fromMs: NOW - 90_000, toMs: null, outcome: "" }] }));
  assert.ok(bar !== undefined);
  near(bar.x, 0);
  near(bar.width, WIDTH);
});

test("what is over and out of sight is not drawn", () => {
  const shapes = of({
    speeches: [{ side: "you", fromMs: NOW - 90_000, toMs: NOW - 61_000, outcome: "" }],
    pauses: [{ fromMs: NOW - 90_000, toMs: NOW - 61_000 }],
    latencies: [{ fromMs: NOW - 90_000, toMs: NOW - 61_000 }],
    interrupts: [{ atMs: NOW - 61_000, by: "voice" }],
  });
  assert.deepEqual(shapes, of({}));
});

test("a latency is a line with its seconds", () => {
  const shapes = of({ latencies: [{ fromMs: NOW - 10_000, toMs: NOW - 8_800 }] });
  const line = shapes.find((shape) => shape.kind === "span");
  assert.ok(line?.kind === "span");
  near(line.width, 1.2 * PX_PER_S);
  assert.ok(shapes.some((shape) => shape.kind === "label" && shape.text === "1.2 s"));
});

test("short speech is seen but has no label", () => {
  const [short] = bars(of({ speeches: [{ side: "you", fromMs: NOW - 10_000, toMs: NOW - 9_990, outcome: "" }] }));
  assert.ok(short !== undefined && short.width >= 2);
  assert.equal(fitting(short), "");
});

test("everything is inside the drawing", () => {
  const shapes = of({
    speeches: [{ side: "avatar", fromMs: NOW - 90_000, toMs: null, outcome: "" }],
    pauses: [{ fromMs: NOW - 5000, toMs: null }],
    interrupts: [{ atMs: NOW - 1000, by: "button" }],
    latencies: [{ fromMs: NOW - 70_000, toMs: NOW - 50_000 }],
  });
  for (const shape of shapes) {
    const bottom = "height" in shape ? shape.y + shape.height : shape.y;
    assert.ok(shape.x >= 0 && shape.x <= WIDTH && shape.y >= 0 && bottom <= HEIGHT, JSON.stringify(shape));
  }
});
