// The page in the room: it sees one face, hears one voice, publishes the microphone, and reads captions.

import {
  DisconnectReason,
  type LocalTrackPublication,
  type RemoteParticipant,
  type RemoteTrack,
  type RemoteTrackPublication,
  Room,
  RoomEvent,
  setLogLevel,
  Track,
} from "livekit-client";
import type { Connection } from "../text.ts";
import { type Caption, SEGMENT, TOPIC } from "./captions.ts";
import type { Access } from "./control.ts";
import { choose, type Choice, ON_BEHALF } from "./voices.ts";

setLogLevel("warn");

/** Receiver of the words of the room's transcriptions. */
export interface Words {
  open(stream: string, segment: string, who: Caption["who"]): void;
  append(stream: string, text: string): void;
  close(stream: string): void;
}

export interface Handlers {
  /** Called with the voice that is heard, and with null when there is none. */
  onVoice(voice: MediaStreamTrack | null): void;
  /** Called with the microphone's track, and with null when there is none. */
  onMicrophone(microphone: MediaStreamTrack | null): void;
  /** Called when the microphone ends by itself. */
  onUnplugged(): void;
  /** Called after every visible change. */
  onChange(): void;
}

export class Call {
  connection: Connection = "none";
  /** True when another page with the same identity has joined. */
  replaced = false;
  private room: Room | null = null;
  private choice: Choice = { face: null, voice: null };
  private subscribed = new Set<RemoteTrackPublication>();
  private heard: RemoteTrack | null = null;

  constructor(
    private readonly video: HTMLVideoElement,
    private readonly audio: HTMLAudioElement,
    private readonly words: Words,
    private readonly handlers: Handlers,
  ) {}

  /** True if the browser allows playback; most pages need a click first. */
  get audible(): boolean {
    return this.room?.canPlaybackAudio ?? true;
  }

  /** True while the microphone is published and not muted. */
  get talking(): boolean {
    return this.room?.localParticipant.isMicrophoneEnabled ?? false;
  }

  /** Join the room that `getAccess` returns; rejects if joining fails. */
  async join(getAccess: () => Promise<Access>): Promise<void> {
    await this.leave();
    const room = new Room({ adaptiveStream: false, dynacast: false });
    this.room = room;
    const mine = (handle: () => void) => () => {
      if (this.room === room) {
        handle();
      }
    };
    const look = mine(() => this.look(room));
    room.registerTextStreamHandler(TOPIC, async (reader, { identity }) => {
      const who = identity === room.localParticipant.identity ? "you" : "avatar";
      const { id, attributes } = reader.info;
      this.words.open(id, attributes?.[SEGMENT] ?? id, who);
      try {
        for await (const text of reader) {
          this.words.append(id, text);
        }
      } catch {
        // The speaker has left in the middle; the words so far stay.
      } finally {
        this.words.close(id);
      }
    });
    room
      .on(RoomEvent.ParticipantConnected, look)
      .on(RoomEvent.ParticipantDisconnected, look)
      .on(RoomEvent.ParticipantAttributesChanged, look)
      .on(RoomEvent.TrackPublished, look)
      .on(RoomEvent.TrackUnpublished, look)
      .on(RoomEvent.ActiveSpeakersChanged, look)
      .on(RoomEvent.TrackSubscribed, (track) => this.show(room, track))
      .on(RoomEvent.TrackUnsubscribed, (track) => this.hide(room, track))
      .on(RoomEvent.LocalTrackPublished, (publication) => this.onPublished(room, publication))
      .on(RoomEvent.AudioPlaybackStatusChanged, mine(this.handlers.onChange))
      .on(RoomEvent.TrackMuted, mine(this.handlers.onChange))
      .on(RoomEvent.TrackUnmuted, mine(this.handlers.onChange))
      .on(RoomEvent.Reconnecting, mine(() => this.become("reconnecting")))
      .on(RoomEvent.Reconnected, mine(() => this.become("joined")))
      .on(RoomEvent.Disconnected, (reason) => mine(() => this.onDisconnected(reason))());
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
    this.look(room);
    this.become("joined");
  }

  /** Leave the room, and stop video, audio and microphone. */
  async leave(): Promise<void> {
    const room = this.room;
    this.room = null;
    this.choice = { face: null, voice: null };
    this.subscribed = new Set();
    this.heard = null;
    this.video.srcObject = null;
    this.audio.srcObject = null;
    this.handlers.onVoice(null);
    this.handlers.onMicrophone(null);
    this.become("none");
    await room?.disconnect();
  }

  /** Start audio playback; to be called from a click. */
  async turnOnSound(): Promise<void> {
    await this.room?.startAudio();
  }

  /** Publish or mute the microphone; rejects with the browser's error. */
  async talk(on: boolean): Promise<void> {
    await this.room?.localParticipant.setMicrophoneEnabled(on, {
      autoGainControl: true,
      echoCancellation: true, // or the avatar would hear itself, and fall silent
      noiseSuppression: true,
    });
    this.handlers.onChange();
  }

  /** Subscribe to one face and one voice, and to nothing else. */
  private look(room: Room): void {
    const participants = [...room.remoteParticipants.values()].sort(
      (one, other) => (one.joinedAt?.getTime() ?? 0) - (other.joinedAt?.getTime() ?? 0),
    );
    this.choice = choose(
      participants.map((one) => ({
        identity: one.identity,
        isAgent: one.isAgent,
        onBehalfOf: one.attributes[ON_BEHALF] ?? null,
        isSpeaking: one.isSpeaking,
        hasVideo: one.videoTrackPublications.size > 0,
        hasAudio: one.audioTrackPublications.size > 0,
      })),
      this.choice,
    );
    // A voice is given up before another one is taken, so that never two are audible.
    const wanted = new Set(participants.flatMap((one) => this.wanted(one)));
    for (const publication of this.subscribed) {
      if (!wanted.has(publication)) {
        publication.setSubscribed(false);
      }
    }
    for (const publication of wanted) {
      if (!this.subscribed.has(publication)) {
        publication.setSubscribed(true);
      }
    }
    this.subscribed = wanted;
    this.handlers.onChange();
  }

  private wanted(participant: RemoteParticipant): RemoteTrackPublication[] {
    const [video] = participant.videoTrackPublications.values();
    const [audio] = participant.audioTrackPublications.values();
    const seen = participant.identity === this.choice.face ? video : undefined;
    const heard = participant.identity === this.choice.voice ? audio : undefined;
    return [seen, heard].filter((publication) => publication !== undefined);
  }

  private show(room: Room, track: RemoteTrack): void {
    if (this.room !== room) {
      return;
    }
    if (track.kind === Track.Kind.Video) {
      track.attach(this.video);
    } else {
      track.attach(this.audio);
      this.heard = track;
      this.handlers.onVoice(track.mediaStreamTrack);
    }
    this.handlers.onChange();
  }

  private hide(room: Room, track: RemoteTrack): void {
    track.detach();
    if (this.room !== room) {
      return;
    }
    if (track === this.heard) {
      this.heard = null;
      this.handlers.onVoice(null);
    }
    this.handlers.onChange();
  }

  private onPublished(room: Room, publication: LocalTrackPublication): void {
    const track = publication.track?.mediaStreamTrack;
    if (this.room !== room || track === undefined) {
      return;
    }
    track.addEventListener("ended", () => this.handlers.onUnplugged(), { once: true });
    this.handlers.onMicrophone(track);
    this.handlers.onChange();
  }

  private onDisconnected(reason?: DisconnectReason): void {
    this.replaced = reason === DisconnectReason.DUPLICATE_IDENTITY;
    this.handlers.onMicrophone(null);
    this.become("left");
  }

  private become(connection: Connection): void {
    this.connection = connection;
    this.handlers.onChange();
  }
}
