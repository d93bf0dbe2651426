// Drive LiveAvatar's own unmodified web SDK as a user's page would; the test calls `call.*` and reads `call.seen`.
import { AgentEventsEnum, LiveAvatarSession, SessionEvent } from "@heygen/liveavatar-web-sdk";

const seen = [];
let session;

globalThis.call = {
  seen,
  async start(token, apiUrl) {
    session = new LiveAvatarSession(token, { apiUrl, voiceChat: false });
    for (const name of [SessionEvent.SESSION_STREAM_READY, SessionEvent.SESSION_DISCONNECTED]) {
      session.on(name, (detail) => seen.push({ name, detail }));
    }
    for (const name of [AgentEventsEnum.AVATAR_SPEAK_STARTED, AgentEventsEnum.AVATAR_SPEAK_ENDED]) {
      session.on(name, () => seen.push({ name }));
    }
    await session.start();
    session.attach(document.querySelector("video"));
    return session.sessionId;
  },
  speak: (audio) => session.repeatAudio(audio),
  interrupt: () => session.interrupt(),
  keepAlive: () => session.keepAlive(),
  stop: () => session.stop(),
};
