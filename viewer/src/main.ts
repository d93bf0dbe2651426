// The page: polls the emulator's status, joins the room of the watched session, and shows both.

import { Call } from "./call.ts";
import * as emulator from "./emulator.ts";
import { FrameRate } from "./frames.ts";
import { Meter } from "./meter.ts";
import * as select from "./selection.ts";
import { activity, clock, connectionText, endText, pictureText, shortId } from "./text.ts";

/** Period of the status requests. */
const POLL_MS = 400;
/** Delay before a room is joined again after a failure. */
const REJOIN_MS = 2000;

const video = part("video", HTMLVideoElement);
const audio = part("audio", HTMLAudioElement);
const picker = part("picker", HTMLSelectElement);
const sound = part("sound", HTMLButtonElement);
const mute = part("mute", HTMLButtonElement);
const fullScreen = part("full-screen", HTMLButtonElement);
const notice = part("notice", HTMLElement);
const state = part("state", HTMLElement);
const level = part("level", HTMLElement);
const bar = part("bar", HTMLElement);

const frameRate = new FrameRate();
const meter = new Meter(show);
const call = new Call(video, audio, (voice) => meter.listen(voice), show);

let selection = select.begin(location.search);
let status: emulator.Status | null = null;
let trouble: string | null = null;
/** Session whose room is joined or being joined. */
let joined: string | null = null;
let rejoinAtMs = 0;
let refusal: string | null = null;
let fps: number | null = null;

picker.onchange = () => {
  selection = picker.value === "" ? select.newest() : select.one(picker.value);
  void tick();
};
sound.onclick = async () => {
  await Promise.all([meter.turnOn(), call.turnOnSound()]);
  show();
};
mute.onclick = () => {
  audio.muted = !audio.muted;
  show();
};
fullScreen.onclick = () => void (document.fullscreenElement ? document.exitFullscreen() : video.requestFullscreen());
if (!document.fullscreenEnabled) {
  fullScreen.hidden = true;
}

async function poll(): Promise<void> {
  await tick();
  setTimeout(() => void poll(), POLL_MS);
}

async function tick(): Promise<void> {
  const id = select.requested(selection);
  try {
    const response = await emulator.status(id);
    if (id !== select.requested(selection)) {
      return; // the user has chosen another session, which has its own request
    }
    status = response;
    trouble = null;
    selection = select.next(selection, status, performance.now());
  } catch (error) {
    trouble = message(error);
  }
  fps = frameRate.read(video.getVideoPlaybackQuality().totalVideoFrames, performance.now());
  void join();
  show();
}

async function join(): Promise<void> {
  const wanted = status?.livekit && selection.watched.kind === "session" ? selection.watched.id : null;
  const again = wanted !== null && call.connection === "left" && performance.now() >= rejoinAtMs;
  if (wanted === joined && !again) {
    return;
  }
  joined = wanted;
  refusal = null;
  frameRate.reset();
  fps = null;
  if (wanted === null) {
    await call.leave();
    return;
  }
  try {
    await call.join(() => emulator.roomAccess(wanted));
  } catch (error) {
    if (joined === wanted) {
      rejoinAtMs = performance.now() + REJOIN_MS;
      refusal = message(error);
      show();
    }
  }
}

function show(): void {
  const { watched } = selection;
  const session = watched.kind === "session" && status?.session?.id === watched.id ? status.session : null;
  const silenced = call.connection === "joined" && !(call.audible && meter.measuring);
  showNotice(session);
  showPicker();
  write(state, session === null ? (watched.kind === "over" ? "Ended" : "No session") : activity(session));
  state.dataset["pose"] = session === null ? "none" : activity(session).toLowerCase();
  write("connection", connectionText(call.connection));
  write("picture", pictureText(video.videoWidth, video.videoHeight, fps));
  write("session", watched.kind === "nothing" ? "–" : shortId(watched.id));
  write("running", session === null ? "–" : clock(session.duration_s));
  sound.hidden = !silenced;
  mute.textContent = audio.muted ? "Unmute" : "Mute";
  mute.disabled = silenced || call.connection !== "joined";
  fullScreen.disabled = video.videoWidth === 0;
  level.setAttribute("aria-valuenow", (100 * Number(bar.dataset["level"] ?? 0)).toFixed(0));
}

/** Show a notice in place of a missing video. */
function showNotice(session: emulator.SessionView | null): void {
  const { watched } = selection;
  let title = "";
  let text = "";
  if (trouble !== null) {
    [title, text] = ["The emulator cannot be reached", `${trouble} This page keeps trying.`];
  } else if (status === null) {
    [title, text] = ["One moment", "Asking the emulator for its sessions."];
  } else if (!status.livekit) {
    title = "No LiveKit server";
  } else if (watched.kind === "over") {
    title = `Session ${shortId(watched.id)} is over`;
    text = `${endText(watched.reason)} The next session is shown as soon as it starts.`;
  } else if (watched.kind === "nothing") {
    [title, text] = ["No session is running", "Start one with any client; it is shown here at once."];
  } else if (refusal !== null) {
    [title, text] = ["The room cannot be joined", `${refusal} This page keeps trying.`];
  } else if (video.videoWidth === 0) {
    title = session?.phase === "waiting" ? "The avatar is getting ready" : "Waiting for the picture";
    text = "It is shown as soon as the avatar has joined the room.";
  }
  write("notice-title", title);
  write("notice-text", text);
  notice.hidden = title === "";
  part("set-up", HTMLElement).hidden = trouble !== null || status === null || status.livekit;
}

/** List the running sessions, newest first, and the watched session. */
function showPicker(): void {
  const { choice, watched } = selection;
  const ids = (status?.running ?? []).map((session) => session.id).reverse();
  if (choice.kind === "one" && !ids.includes(choice.id)) {
    ids.unshift(choice.id);
  }
  const wanted = ["", ...ids];
  if ([...picker.options].map((option) => option.value).join() !== wanted.join()) {
    picker.replaceChildren(...wanted.map((id) => new Option(id === "" ? "Newest session" : shortId(id), id)));
  }
  picker.value = choice.kind === "one" ? choice.id : "";
  document.title = watched.kind === "nothing" ? "LiveAvatar emulator" : `${shortId(watched.id)} – LiveAvatar emulator`;
}

function moveBar(nowMs: number): void {
  const now = meter.read(nowMs);
  bar.dataset["level"] = now.toFixed(3);
  bar.style.setProperty("--level", now.toFixed(3));
  requestAnimationFrame(moveBar);
}

/** Write only changed text, because a screen reader reads each change aloud. */
function write(where: HTMLElement | string, text: string): void {
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
requestAnimationFrame(moveBar);
void poll();
