// Frame rate, computed from irregular readings of a frame counter.

interface Reading {
  frames: number;
  atMs: number;
}

/** Time over which the rate is averaged. */
const SPAN_MS = 2000;

export class FrameRate {
  private readings: Reading[] = [];

  /** Add a reading and return frames per second over the last two seconds, or null while unknown. */
  read(frames: number, atMs: number): number | null {
    const last = this.readings.at(-1);
    if (last !== undefined && frames < last.frames) {
      this.readings = []; // a new stream starts its counter anew
    }
    if (this.readings.length === 1 && frames === this.readings[0]?.frames) {
      this.readings = []; // the stream has no frames yet
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
