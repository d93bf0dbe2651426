// Parser of server-sent events. Source: HTML Standard, 9.2.6 "Interpreting an event stream".

export interface ServerEvent {
  event: string;
  data: string;
}

export class EventParser {
  private rest = "";
  private event = "message";
  private data: string[] = [];

  /** Take the next piece of the stream, cut anywhere, and return the events that are complete. */
  take(piece: string): ServerEvent[] {
    const lines = (this.rest + piece).split("\n");
    this.rest = lines.pop() ?? "";
    const events: ServerEvent[] = [];
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
      if (line === "") {
        if (this.data.length > 0) {
          events.push({ event: this.event, data: this.data.join("\n") });
        }
        this.event = "message";
        this.data = [];
        continue;
      }
      const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
      if (name === "event") {
        this.event = value ?? "";
      } else if (name === "data") {
        this.data.push(value ?? "");
      }
    }
    return events;
  }
}
