// Layout of the timeline: the conversation and the time come in, shapes come out.

import type { Conversation } from "./conversation.ts";
import { seconds } from "./entries.ts";

/** Rectangle, line or label. Positions are in pixels of the drawing. */
export type Shape =
  | { kind: "bar"; className: string; x: number; y: number; width: number; height: number; text: string }
  | { kind: "rule"; className: string; x: number; y: number; height: number }
  | { kind: "span"; className: string; x: number; y: number; width: number }
  | { kind: "label"; className: string; x: number; y: number; text: string };

export const HEIGHT = 132;
const LANE = { you: 18, avatar: 78 };
const BAR_HEIGHT = 30;
const LATENCY_Y = 63;
const TICKS_Y = 126;
const TICK_MS = 5000;
/** Shorter bars are widened, so that they are seen. */
const MIN_WIDTH = 2;
/** A label needs so much room. */
const LABEL_WIDTH = 40;
/** Width of ten seconds, below which less time is shown. */
const MIN_PX_PER_10_S = 240;

/** Return how much time a timeline of this width shows, in milliseconds. */
export function span(width: number): number {
  return Math.min(60_000, Math.max(20_000, Math.floor(width / MIN_PX_PER_10_S) * 10_000));
}

/** Return the shapes of the last seconds; the right edge is the present. */
export function layout(conversation: Conversation, nowMs: number, width: number): Shape[] {
  const shownMs = span(width);
  const fromMs = nowMs - shownMs;
  const x = (atMs: number): number => ((Math.min(Math.max(atMs, fromMs), nowMs) - fromMs) / shownMs) * width;
  const seen = (toMs: number | null): boolean => toMs === null || toMs > fromMs;
  const shapes: Shape[] = [];

  const bar = (className: string, y: number, beganMs: number, endedMs: number | null, text: string): void => {
    const left = x(beganMs);
    const barWidth = Math.max(MIN_WIDTH, x(endedMs ?? nowMs) - left);
    shapes.push({ kind: "bar", className, x: left, y, width: barWidth, height: BAR_HEIGHT, text });
  };

  for (let atMs = Math.ceil(fromMs / TICK_MS) * TICK_MS; atMs <= nowMs; atMs += TICK_MS) {
    shapes.push({ kind: "rule", className: "tick", x: x(atMs), y: 4, height: HEIGHT - 24 });
  }
  for (let agoMs = 10_000; agoMs < shownMs; agoMs += 10_000) {
    const text = `${agoMs / 1000} s ago`;
    shapes.push({ kind: "label", className: "tick", x: x(nowMs - agoMs), y: TICKS_Y, text });
  }
  for (const speech of conversation.speeches.filter((one) => seen(one.toMs))) {
    const length = seconds((speech.toMs ?? nowMs) - speech.fromMs);
    const className = [speech.side, speech.outcome].filter(Boolean).join(" ");
    bar(className, LANE[speech.side], speech.fromMs, speech.toMs, length);
  }
  for (const pause of conversation.pauses.filter((one) => seen(one.toMs))) {
    bar("pause", LANE.avatar, pause.fromMs, pause.toMs, "pause");
  }
  for (const latency of conversation.latencies.filter((one) => seen(one.toMs))) {
    const [left, right] = [x(latency.fromMs), x(latency.toMs)];
    shapes.push({ kind: "span", className: "latency", x: left, y: LATENCY_Y, width: right - left });
    const text = seconds(latency.toMs - latency.fromMs);
    shapes.push({ kind: "label", className: "latency", x: Math.min(right + 4, width - LABEL_WIDTH), y: LATENCY_Y + 4, text });
  }
  for (const interrupt of conversation.interrupts.filter((one) => one.atMs > fromMs)) {
    shapes.push({ kind: "rule", className: "interrupt", x: x(interrupt.atMs), y: 8, height: HEIGHT - 32 });
  }
  return shapes;
}

/** Return the text of a bar if the bar is wide enough for it. */
export function fitting(shape: Shape): string {
  return shape.kind === "bar" && shape.width >= LABEL_WIDTH ? shape.text : "";
}
