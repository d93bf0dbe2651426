// LiveKit room of the watched session: joins hidden and subscribes to the avatar's two tracks only.

import {
  type RemoteParticipant,
  type RemoteTrack,
  type RemoteTrackPublication,
  Room,
  RoomEvent,
  setLogLevel,
} from "livekit-client";
import type { RoomAccess } from "./emulator.ts";
import type { Connection } from "./text.ts";

/** Names of the avatar's tracks, as LiveAvatar publishes them. */
const VIDEO = "avatar";
const AUDIO = "avatar-audio";

setLogLevel("warn");

export class Call {
  connection: Connection = "none";
  private room: Room | null = null;

  /**
   * @param video element for the avatar's video
   * @param audio element for the avatar's audio
   * @param onVoice called with the audio track, and with null when the track ends
   * @param onChange called after every visible change
   */
  constructor(
    private readonly video: HTMLVideoElement,
    private readonly audio: HTMLAudioElement,
    private readonly onVoice: (voice: MediaStreamTrack | null) => void,
    private readonly onChange: () => void,
  ) {}

  /** True if the browser allows playback; most pages need a click first. */
  get audible(): boolean {
    return this.room?.canPlaybackAudio ?? true;
  }

  /** Leave the current room and join the one that `getAccess` returns; rejects if joining fails. */
  async join(getAccess: () => Promise<RoomAccess>): Promise<void> {
    await this.leave();
    // A hidden tab keeps its subscriptions, because its output may be recorded or listened to.
    const room = new Room({ adaptiveStream: false, dynacast: false });
    this.room = room;
    const mine = (handle: () => void) => () => {
      if (this.room === room) {
        handle();
      }
    };
    room
      .on(RoomEvent.TrackPublished, take)
      .on(RoomEvent.ParticipantConnected, takeAll)
      .on(RoomEvent.TrackSubscribed, (track, publication) => this.show(room, track, publication))
      .on(RoomEvent.TrackUnsubscribed, (track) => this.hide(room, track))
      .on(RoomEvent.AudioPlaybackStatusChanged, mine(this.onChange))
      .on(RoomEvent.Reconnecting, mine(() => this.become("reconnecting")))
      .on(RoomEvent.Reconnected, mine(() => this.become("joined")))
      .on(RoomEvent.Disconnected, mine(() => this.become("left")));
    this.become("joining");
    try {
      const access = await getAccess();
      await room.connect(access.url, access.token, { autoSubscribe: false });
    } catch (error) {
      mine(() => this.become("left"))();
      throw error;
    }
    if (this.room !== room) {
      await room.disconnect(); // left before joining was complete
      return;
    }
    room.remoteParticipants.forEach(takeAll);
    this.become("joined");
  }

  /** Leave the room and stop video and audio. */
  async leave(): Promise<void> {
    const room = this.room;
    this.room = null;
    this.video.srcObject = null;
    this.audio.srcObject = null;
    this.onVoice(null);
    this.become("none");
    await room?.disconnect();
  }

  /** Start audio playback; to be called from a click. */
  async turnOnSound(): Promise<void> {
    await this.room?.startAudio();
  }

  private show(room: Room, track: RemoteTrack, publication: RemoteTrackPublication): void {
    if (this.room !== room) {
      return;
    }
    if (publication.trackName === VIDEO) {
      track.attach(this.video);
    } else {
      track.attach(this.audio);
      this.onVoice(track.mediaStreamTrack);
    }
    this.onChange();
  }

  private hide(room: Room, track: RemoteTrack): void {
    track.detach();
    if (this.room === room) {
      if (track.kind === "audio") {
        this.onVoice(null);
      }
      this.onChange();
    }
  }

  private become(connection: Connection): void {
    this.connection = connection;
    this.onChange();
  }
}

function take(publication: RemoteTrackPublication): void {
  if (publication.trackName === VIDEO || publication.trackName === AUDIO) {
    publication.setSubscribed(true);
  }
}

function takeAll(participant: RemoteParticipant): void {
  participant.trackPublications.forEach(take);
}
