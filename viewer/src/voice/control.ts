// Client of the demo's server: access to the room, commands, and the entries of the conversation.

import type { Entry } from "./entries.ts";
import { EventParser } from "./sse.ts";

/** Access of this page to the room. */
export interface Access {
  url: string;
  token: string;
  /** Id of the session at the gateway. */
  session: string;
}

export type Command = "start" | "interrupt" | "pause" | "continue";

/** The demo refused; the message is shown to the user. */
export class Refused extends Error {}

/** The demo does not know this page's token; trying again is of no use. */
export class NoToken extends Refused {}

/** Receiver of the stream of entries. */
export interface Reader {
  /** The stream is there; `nowMs` is the demo's clock, `session` the state of its session. */
  onHello(nowMs: number, session: string): void;
  onEntry(entry: Entry): void;
  /** The stream is lost and is opened again, unless the token is wrong. */
  onLost(error: Error): void;
}

const CALL_TIMEOUT_MS = 20_000;
/** The demo sends a beat every 5 s. */
const SILENCE_MS = 12_000;
const RETRY_MS = 1000;

/** Return access with a fresh token. */
export async function access(): Promise<Access> {
  return (await call("/api/access", "GET")) as Access;
}

/** Carry out a command. */
export async function command(name: Command): Promise<void> {
  await call(`/api/commands/${name}`, "POST");
}

/** Read entries forever; a lost stream continues after the last entry. */
export async function follow(reader: Reader): Promise<void> {
  let after = 0;
  for (;;) {
    try {
      await read(after, (entry) => {
        after = entry.number;
        reader.onEntry(entry);
      }, reader);
      reader.onLost(new Refused("The demo has closed the stream."));
    } catch (error) {
      reader.onLost(error instanceof Error ? error : new Error(String(error)));
      if (error instanceof NoToken) {
        return;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

async function read(after: number, onEntry: (entry: Entry) => void, reader: Reader): Promise<void> {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  try {
    const response = await request(`/api/events?after=${after}`, "GET", silence.signal);
    const parser = new EventParser();
    const pieces = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const piece = await pieces?.read();
      if (piece === undefined || piece.done) {
        return;
      }
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      for (const { event, data } of parser.take(piece.value)) {
        if (event === "hello") {
          const hello = JSON.parse(data) as { now_ms: number; session: string };
          reader.onHello(hello.now_ms, hello.session);
        } else if (event === "entry") {
          onEntry(JSON.parse(data) as Entry);
        }
      }
    }
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}

async function call(path: string, method: string): Promise<unknown> {
  const response = await request(path, method, AbortSignal.timeout(CALL_TIMEOUT_MS));
  return response.json();
}

async function request(path: string, method: string, signal: AbortSignal): Promise<Response> {
  const token = new URLSearchParams(location.hash.replace(/^#/, "")).get("token") ?? "";
  const headers = { Authorization: `Bearer ${token}` };
  const response = await fetch(path, { method, headers, cache: "no-store", signal }).catch(() => {
    throw new Refused("The demo does not respond.");
  });
  if (!response.ok) {
    const body = (await response.json().catch(() => null)) as { message?: string } | null;
    const message = body?.message ?? `The demo responded with ${response.status}.`;
    throw response.status === 401 ? new NoToken(message) : new Refused(message);
  }
  return response;
}
