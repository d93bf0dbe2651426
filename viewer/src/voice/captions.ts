// Captions from LiveKit's text streams of the topic "lk.transcription". Pure.
//
// A segment is a stretch of speech. A stream appends to its segment; a later stream of the same segment replaces it,
// as speech-to-text does with its guesses.

export const TOPIC = "lk.transcription";
export const SEGMENT = "lk.segment_id";

/** Time for which finished words stay. */
export const STAY_MS = 5000;
/** Segments kept, the newest. */
const KEPT = 8;

export interface Caption {
  who: "you" | "avatar";
  text: string;
}

interface Segment extends Caption {
  id: string;
  stream: string;
  /** null while words may come. */
  endedMs: number | null;
}

export class Captions {
  private segments: Segment[] = [];

  /** Begin a stream of a segment. */
  open(stream: string, segment: string, who: Caption["who"]): void {
    const others = this.segments.filter((one) => one.id !== segment);
    this.segments = [...others, { id: segment, stream, who, text: "", endedMs: null }].slice(-KEPT);
  }

  /** Append words of a stream; words of a stream that was replaced are dropped. */
  append(stream: string, text: string): void {
    const found = this.segments.find((one) => one.stream === stream);
    if (found !== undefined) {
      found.text += text;
    }
  }

  /** End a stream: finished, interrupted or lost. */
  close(stream: string, nowMs: number): void {
    const found = this.segments.find((one) => one.stream === stream);
    if (found !== undefined) {
      found.endedMs = nowMs;
    }
  }

  /** Return the words to show, or null: those of the newest segment that has any and is not old. */
  shown(nowMs: number): Caption | null {
    const fresh = this.segments.filter((one) => one.endedMs === null || nowMs - one.endedMs < STAY_MS);
    const found = fresh.findLast((one) => one.text.trim() !== "");
    return found === undefined ? null : { who: found.who, text: found.text.trim() };
  }
}
