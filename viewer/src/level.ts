// How loud it is, as a meter shows it.

/** The quietest that the meter shows, in dB of full scale. */
export const FLOOR_DB = -60;
/** How fast the meter falls: the whole scale in this time. It rises at once. */
export const FALL_MS = 600;

/** Loudness of samples between -1 and 1, in dB of full scale; -Infinity for silence. */
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

/** Where on the meter that is, from 0 to 1. */
export function position(db: number): number {
  return Math.min(1, Math.max(0, 1 - db / FLOOR_DB));
}

/** The meter's next position: up with the sound, down at its own pace. */
export function fallen(before: number, now: number, elapsedMs: number): number {
  return Math.max(now, before - Math.max(0, elapsedMs) / FALL_MS, 0);
}
