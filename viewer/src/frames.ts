// Frames per second, from a counter of frames that is read now and then.

interface Reading {
  frames: number;
  atMs: number;
}

/** Over how long it is averaged. */
const SPAN_MS = 2000;

export class FrameRate {
  private readings: Reading[] = [];

  /** Take a reading; returns frames per second over the last two seconds, or null while that is not known. */
  read(frames: number, atMs: number): number | null {
    const last = this.readings.at(-1);
    if (last !== undefined && frames < last.frames) {
      this.readings = []; // another stream: its counter began again
    }
    if (this.readings.length === 1 && frames === this.readings[0]?.frames) {
      this.readings = []; // it has not begun yet
    }
    this.readings.push({ frames, atMs });
    while (this.readings.length > 2 && atMs - (this.readings[1]?.atMs ?? atMs) >= SPAN_MS) {
      this.readings.shift();
    }
    const first = this.readings[0];
    if (first === undefined || atMs - first.atMs < SPAN_MS / 2) {
      return null;
    }
    return ((frames - first.frames) * 1000) / (atMs - first.atMs);
  }

  /** Forget all readings. */
  reset(): void {
    this.readings = [];
  }
}
