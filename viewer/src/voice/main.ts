// The page of the voice demo: joins the room with a microphone, shows the conversation, and passes commands on.

import { Meter } from "../meter.ts";
import { Call } from "./call.ts";
import { Captions } from "./captions.ts";
import * as control from "./control.ts";
import { EMPTY, next, paused, speaks } from "./conversation.ts";
import { line } from "./entries.ts";
import { action, type Action } from "./shortcuts.ts";
import { ELSEWHERE, GONE, microphoneTrouble, NO_TOKEN, roomTrouble } from "./text.ts";
import { layout } from "./timeline.ts";
import { draw } from "./timeline-view.ts";

const REJOIN_MS = 2000;
const DRAW_MS = 100;
/** Period of drawing for users who want less motion. */
const CALM_DRAW_MS = 1000;
/** Lines of the log that are kept. */
const LINES = 200;
/** Entries of the past are not read aloud: after this time without an entry, the present has begun. */
const PRESENT_MS = 1500;

/** State of the microphone. */
type Microphone = "off" | "asking" | "on" | "trouble";

const video = part("video", HTMLVideoElement);
const audio = part("audio", HTMLAudioElement);
const start = part("start", HTMLButtonElement);
const retry = part("retry", HTMLButtonElement);
const buttons: Record<Action, HTMLButtonElement> = {
  mute: part("mute", HTMLButtonElement),
  pause: part("pause", HTMLButtonElement),
  continue: part("continue", HTMLButtonElement),
  interrupt: part("interrupt", HTMLButtonElement),
};
const keys = part("keys", HTMLInputElement);
const log = part("log", HTMLElement);
const state = part("state", HTMLElement);
const timeline = document.querySelector<SVGSVGElement>("#timeline");

const yours = new Meter(show);
const theirs = new Meter(show);
const captions = new Captions();
const words = {
  open: captions.open.bind(captions),
  append: captions.append.bind(captions),
  close(stream: string): void {
    captions.close(stream, performance.now());
    const caption = captions.shown(performance.now());
    if (caption !== null) {
      write(Date.now() + clockOffsetMs, `${caption.who === "you" ? "You" : "The avatar"}: “${caption.text}”`);
    }
  },
};
const call = new Call(video, audio, words, {
  onVoice: (voice) => theirs.listen(voice),
  onMicrophone: (track) => yours.listen(track),
  onUnplugged: () => fail(microphoneTrouble("Ended")),
  onChange: show,
});
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let conversation = EMPTY;
let microphone: Microphone = "off";
/** Advice about the microphone; empty without trouble. */
let advice = "";
/** Trouble with the last command; empty without. */
let refusal = "";
let roomRefusal: string | null = null;
let linkTrouble: string | null = null;
let hopeless = false;
let clockOffsetMs = 0;
let readAloudTimer = 0;
let drawnAtMs = 0;

start.onclick = () => void begin();
retry.onclick = () => void begin();
for (const name of Object.keys(buttons) as Action[]) {
  buttons[name].onclick = () => void act(name);
}
document.addEventListener("keydown", (event) => {
  const press = {
    key: event.key,
    modified: event.ctrlKey || event.metaKey || event.altKey,
    repeated: event.repeat,
    focus: event.target instanceof HTMLElement && event.target !== keys ? event.target.tagName : "",
  };
  const wanted = action(press, keys.checked);
  if (wanted !== null) {
    event.preventDefault();
    void act(wanted);
  }
});

/** Turn sound and microphone on; the avatar greets, also a user without a microphone. */
async function begin(): Promise<void> {
  if (microphone === "asking") {
    return;
  }
  microphone = "asking";
  advice = "";
  show();
  await Promise.all([yours.turnOn(), theirs.turnOn(), call.turnOnSound()]);
  try {
    if (!window.isSecureContext) {
      throw new DOMException("", "Insecure");
    }
    await call.talk(true);
    microphone = "on";
  } catch (error) {
    fail(microphoneTrouble(error instanceof Error ? error.name : String(error)));
  }
  show();
  if (document.activeElement === document.body) {
    buttons.mute.focus();
  }
  await send("start");
}

async function act(name: Action): Promise<void> {
  if (!possible(name)) {
    return;
  }
  if (name === "mute") {
    await call.talk(!call.talking).catch((error: unknown) => fail(microphoneTrouble((error as Error).name)));
    write(Date.now() + clockOffsetMs, call.talking ? "Your microphone is on" : "Your microphone is muted");
    return;
  }
  await send(name);
}

async function send(name: control.Command): Promise<void> {
  try {
    await control.command(name);
    refusal = "";
  } catch (error) {
    refusal = message(error);
  }
  show();
}

/** Return whether a button has an effect now. */
function possible(name: Action): boolean {
  switch (name) {
    case "mute":
      return microphone === "on" && call.connection === "joined";
    case "pause":
      return conversation.session === "ready" && !paused(conversation);
    case "continue":
      return paused(conversation);
    case "interrupt":
      return speaks(conversation, "avatar");
  }
}

async function join(): Promise<void> {
  for (;;) {
    if (hopeless) {
      return;
    }
    if (call.connection === "left" && call.replaced) {
      hopeless = true;
      show();
      return;
    }
    if (call.connection === "none" || call.connection === "left") {
      try {
        await call.join(control.access);
        roomRefusal = null;
        if (microphone === "on") {
          await call.talk(true);
        }
      } catch (error) {
        roomRefusal = error instanceof control.Refused ? message(error) : roomTrouble(message(error));
      }
      show();
    }
    await new Promise((resolve) => setTimeout(resolve, REJOIN_MS));
  }
}

function show(): void {
  showNotice();
  const [name, text] = activity();
  put(state, text);
  state.dataset["state"] = name;
  start.hidden = call.connection !== "joined" || microphone === "on" || microphone === "trouble" || hopeless;
  start.textContent = microphone === "asking" ? "Waiting for the microphone…" : "Start talking";
  retry.hidden = microphone !== "trouble" || hopeless;
  put("trouble-text", advice || refusal);
  part("trouble", HTMLElement).hidden = advice === "" && refusal === "";
  put("mute-text", microphone === "on" && !call.talking ? "Unmute" : "Mute");
  for (const action of Object.keys(buttons) as Action[]) {
    // A disabled button would lose the focus of somebody who has just pressed it.
    buttons[action].setAttribute("aria-disabled", String(!possible(action)));
  }
  showCaption();
}

function activity(): [string, string] {
  if (call.connection !== "joined" || linkTrouble !== null) {
    return ["none", "Not connected"];
  }
  if (conversation.session !== "ready") {
    return ["none", "The avatar is getting ready"];
  }
  if (paused(conversation)) {
    return ["paused", "Paused"];
  }
  if (speaks(conversation, "you")) {
    return ["you", "You speak"];
  }
  if (speaks(conversation, "avatar")) {
    return ["avatar", "The avatar speaks"];
  }
  if (microphone !== "on") {
    return ["none", "Ready"];
  }
  return ["none", call.talking ? "Say something" : "You are muted"];
}

/** Show a notice in place of a missing video. */
function showNotice(): void {
  let title = "";
  let text = "";
  if (call.replaced) {
    [title, text] = ["Opened elsewhere", ELSEWHERE];
  } else if (linkTrouble !== null) {
    [title, text] = ["The demo cannot be reached", linkTrouble];
  } else if (roomRefusal !== null) {
    [title, text] = ["The room cannot be joined", roomRefusal];
  } else if (video.videoWidth === 0 || video.srcObject === null) {
    [title, text] = ["The avatar is getting ready", "It is shown as soon as it has joined the room."];
  }
  put("notice-title", title);
  put("notice-text", text);
  part("notice", HTMLElement).hidden = title === "";
}

function showCaption(): void {
  const caption = captions.shown(performance.now());
  part("caption", HTMLElement).hidden = caption === null;
  put("caption", caption === null ? "" : caption.text);
}

function fail(text: string): void {
  microphone = "trouble";
  advice = text;
  show();
}

/** Append a line to the log, which a screen reader reads aloud. */
function write(atMs: number, text: string): void {
  const time = document.createElement("time");
  time.textContent = new Date(atMs - clockOffsetMs).toLocaleTimeString([], { hour12: false });
  const item = document.createElement("li");
  item.append(time, ` ${text}`);
  const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 24;
  log.append(item);
  while (log.childElementCount > LINES) {
    log.firstElementChild?.remove();
  }
  if (atEnd) {
    log.scrollTop = log.scrollHeight;
  }
}

/** Let the log be read aloud once its past is complete. */
function readAloudSoon(): void {
  if (log.getAttribute("aria-live") !== "polite") {
    clearTimeout(readAloudTimer);
    readAloudTimer = window.setTimeout(() => log.setAttribute("aria-live", "polite"), PRESENT_MS);
  }
}

function frame(nowMs: number): void {
  const levels = { you: yours.read(nowMs), avatar: theirs.read(nowMs) };
  part("you-bar", HTMLElement).style.setProperty("--level", levels.you.toFixed(3));
  part("avatar-bar", HTMLElement).style.setProperty("--level", levels.avatar.toFixed(3));
  if (timeline !== null && nowMs - drawnAtMs >= (calm.matches ? CALM_DRAW_MS : DRAW_MS)) {
    drawnAtMs = nowMs;
    const width = timeline.clientWidth;
    draw(timeline, layout(conversation, Date.now() + clockOffsetMs, width), width);
    showCaption();
    part("you-level", HTMLElement).setAttribute("aria-valuenow", (100 * levels.you).toFixed(0));
    part("avatar-level", HTMLElement).setAttribute("aria-valuenow", (100 * levels.avatar).toFixed(0));
  }
  requestAnimationFrame(frame);
}

/** Write only changed text, because a screen reader reads each change aloud. */
function put(where: HTMLElement | string, text: string): void {
  const element = typeof where === "string" ? part(where, HTMLElement) : where;
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

function part<Kind extends HTMLElement>(id: string, kind: new () => Kind): Kind {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) {
    throw new Error(`index.html has no ${kind.name} of id ${id}`);
  }
  return found;
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

video.onresize = show;
requestAnimationFrame(frame);
void join();
void control.follow({
  onHello: (nowMs, session) => {
    clockOffsetMs = nowMs - Date.now();
    conversation = { ...conversation, session };
    linkTrouble = null;
    readAloudSoon();
    show();
  },
  onEntry: (entry) => {
    conversation = next(conversation, entry);
    const text = line(entry);
    if (text !== null) {
      write(entry.at_ms, text);
    }
    if (entry.kind === "avatar_began" || entry.kind === "paused" || entry.kind === "continued") {
      refusal = "";
    }
    readAloudSoon();
    show();
  },
  onLost: (error) => {
    hopeless ||= error instanceof control.NoToken;
    linkTrouble = error instanceof control.NoToken ? NO_TOKEN : GONE;
    show();
  },
});
