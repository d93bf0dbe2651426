import assert from "node:assert/strict";
import { test } from "node:test";
import { EventParser, type ServerEvent } from "../src/voice/sse.ts";

const STREAM = 'event: hello\ndata: {"a":1}\n\n: a comment\n\nevent: entry\r\ndata: one\r\ndata: two\r\n\r\ndata:plain\n\n';
const EVENTS: ServerEvent[] = [
  { event: "hello", data: '{"a":1}' },
  { event: "entry", data: "one\ntwo" },
  { event: "message", data: "plain" },
];

test("events are the same however the stream is cut", () => {
  for (let size = 1; size <= STREAM.length; size += 1) {
    const parser = new EventParser();
    const found: ServerEvent[] = [];
    for (let start = 0; start < STREAM.length; start += size) {
      found.push(...parser.take(STREAM.slice(start, start + size)));
    }
    assert.deepEqual(found, EVENTS, `cut into pieces of ${size}`);
  }
});

test("an event that is not complete waits", () => {
  const parser = new EventParser();
  assert.deepEqual(parser.take("event: entry\ndata: x\n"), []);
  assert.deepEqual(parser.take("\n"), [{ event: "entry", data: "x" }]);
});
