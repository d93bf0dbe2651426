// Level meter of the received audio, with the browser's audio graph.

import { fallen, loudnessDb, position } from "./level.ts";

/** 43 ms at 48 kHz: shorter than a syllable, longer than a period of the lowest voice. */
const WINDOW_SAMPLES = 2048;

export class Meter {
  private readonly context = new AudioContext();
  private readonly analyser = new AnalyserNode(this.context, { fftSize: WINDOW_SAMPLES });
  private readonly samples = new Float32Array(WINDOW_SAMPLES);
  private source: MediaStreamAudioSourceNode | null = null;
  private level = 0;
  private readAtMs = 0;

  /** @param onChange called when `measuring` has changed */
  constructor(onChange: () => void) {
    this.context.onstatechange = onChange;
  }

  /** True if the browser allows measuring; most pages need a click first. */
  get measuring(): boolean {
    return this.context.state === "running";
  }

  /** Measure this track; null stops measuring. */
  listen(voice: MediaStreamTrack | null): void {
    this.source?.disconnect();
    this.source = null;
    if (voice !== null) {
      this.source = new MediaStreamAudioSourceNode(this.context, { mediaStream: new MediaStream([voice]) });
      this.source.connect(this.analyser);
    }
  }

  /** Start measuring; to be called from a click. */
  async turnOn(): Promise<void> {
    await this.context.resume();
  }

  /** Return the meter's position, from 0 to 1. */
  read(nowMs: number): number {
    let heard = 0;
    if (this.source !== null && this.measuring) {
      this.analyser.getFloatTimeDomainData(this.samples);
      heard = position(loudnessDb(this.samples));
    }
    this.level = fallen(this.level, heard, nowMs - this.readAtMs);
    this.readAtMs = nowMs;
    return this.level;
  }
}
