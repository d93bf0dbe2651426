// The room: joins as a viewer, takes the avatar's two tracks and nothing else.

import {
  type RemoteParticipant,
  type RemoteTrack,
  type RemoteTrackPublication,
  Room,
  RoomEvent,
  setLogLevel,
} from "livekit-client";
import type { Seat } from "./emulator.ts";
import type { Connection } from "./words.ts";

/** Names of the avatar's tracks, as LiveAvatar publishes them. */
const VIDEO = "avatar";
const AUDIO = "avatar-audio";

setLogLevel("warn");

export class Call {
  connection: Connection = "none";
  private room: Room | null = null;

  /**
   * @param video shows the picture
   * @param audio plays the voice
   * @param onVoice the voice's track has come, or has gone (null)
   * @param onChange something that is shown has changed
   */
  constructor(
    private readonly video: HTMLVideoElement,
    private readonly audio: HTMLAudioElement,
    private readonly onVoice: (voice: MediaStreamTrack | null) => void,
    private readonly onChange: () => void,
  ) {}

  /** Whether the browser lets the voice be heard; it wants a click first, on most pages. */
  get audible(): boolean {
    return this.room?.canPlaybackAudio ?? true;
  }

  /** Join where `ask` says; rejects when that fails. A call that was there before is left. */
  async join(ask: () => Promise<Seat>): Promise<void> {
    await this.leave();
    // A hidden tab goes on: what is watched may be recorded or listened to.
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
      const seat = await ask();
      await room.connect(seat.url, seat.token, { autoSubscribe: false });
    } catch (error) {
      mine(() => this.become("left"))();
      throw error;
    }
    if (this.room !== room) {
      await room.disconnect(); // left while it was joining
      return;
    }
    room.remoteParticipants.forEach(takeAll);
    this.become("joined");
  }

  /** Leave; nothing is shown or heard any more. */
  async leave(): Promise<void> {
    const room = this.room;
    this.room = null;
    this.video.srcObject = null;
    this.audio.srcObject = null;
    this.onVoice(null);
    this.become("none");
    await room?.disconnect();
  }

  /** Play the voice; to be called from a click. */
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
