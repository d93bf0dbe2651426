// Loudness of audio on the scale of a level meter.

/** Lowest level of the meter, in dB of full scale. */
export const FLOOR_DB = -60;
/** Time in which the meter falls by its whole scale. The meter rises at once. */
export const FALL_MS = 600;

/** Return the loudness of samples between -1 and 1, in dB of full scale; -Infinity for silence. */
export function loudnessDb(samples: Float32Array): number {
  if (samples.length === 0) {
    return -Infinity;
  }
  let power = 0;
  for (const sample of samples) {
    power += sample * sample;
  }
  return 10 * Math.log10(power / samples.length);
}

/** Return the position of a level on the meter, from 0 to 1. */
export function position(db: number): number {
  return Math.min(1, Math.max(0, 1 - db / FLOOR_DB));
}

/** Return the meter's next position: up at once, down at a fixed rate. */
export function fallen(before: number, now: number, elapsedMs: number): number {
  return Math.max(now, before - Math.max(0, elapsedMs) / FALL_MS, 0);
}
