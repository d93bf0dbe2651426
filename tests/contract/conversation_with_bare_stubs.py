"""A whole conversation with grpcio and freshly generated stubs, nothing of ours. Run by test_bare_stubs.py.

Usage: conversation_with_bare_stubs.py ADDRESS SECONDS_OF_SPEECH
"""

import json
import math
import struct
import sys
import threading

import grpc

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as audio
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from liveavatar.gateway.v1.audio_service_pb2_grpc import AudioServiceStub
from liveavatar.gateway.v1.session_service_pb2_grpc import SessionServiceStub

AVATAR = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
RATE_HZ = 16_000


def tone(seconds: float) -> bytes:
    samples = (round(8000 * math.sin(2 * math.pi * 440 * n / RATE_HZ)) for n in range(round(seconds * RATE_HZ)))
    return b"".join(struct.pack("<h", sample) for sample in samples)


class Turns:
    """Requests of one audio stream: each turn waits until it is told to go."""

    def __init__(self, session_id: str, pcm: bytes) -> None:
        self.next_turn = threading.Event()
        self.session_id = session_id
        self.pcm = pcm

    def __iter__(self):
        audio_format = audio_pb2.AudioFormat(
            encoding=audio_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hz=RATE_HZ, channel_count=1
        )
        yield audio.StreamAudioRequest(header=audio.AudioHeader(session_id=self.session_id, format=audio_format))
        yield from self.turn("first")
        self.next_turn.wait(30)
        yield from self.turn("second")

    def turn(self, name: str):
        yield audio.StreamAudioRequest(begin=audio.BeginUtterance(utterance_id=name))
        for start in range(0, len(self.pcm), 6400):
            chunk = audio.AudioChunk(utterance_id=name, offset_bytes=start, audio=self.pcm[start : start + 6400])
            yield audio.StreamAudioRequest(chunk=chunk)
        yield audio.StreamAudioRequest(end=audio.EndUtterance(utterance_id=name))


def main() -> None:
    address, seconds = sys.argv[1], float(sys.argv[2])
    pcm = tone(seconds)
    with grpc.insecure_channel(address) as channel:
        control, speech = SessionServiceStub(channel), AudioServiceStub(channel)
        info = control.GetServerInfo(sessions.GetServerInfoRequest(), timeout=10)
        spec = session_pb2.SessionSpec(avatar_id=AVATAR, labels={"made": "bare"})
        created = control.CreateSession(sessions.CreateSessionRequest(spec=spec, request_id="bare-1"), timeout=30)

        commands_end = threading.Event()

        def commands():
            yield sessions.AttachRequest(resume=sessions.ResumeSession(handle=created.handle))
            commands_end.wait(60)

        attach = control.Attach(commands())
        assert next(attach).WhichOneof("message") == "opened"

        turns = Turns(created.session.id, pcm)
        ended = []
        for response in speech.StreamAudio(iter(turns), timeout=60):
            kind = response.WhichOneof("message")
            if kind == "started" and response.started.utterance_id == "second":
                request = sessions.InterruptSessionRequest(session_id=created.session.id, utterance_id="second")
                control.InterruptSession(request, timeout=10)
            if kind == "ended":
                ended.append(
                    (response.ended.utterance_id, audio_pb2.UtteranceOutcome.Name(response.ended.outcome))
                )
                turns.next_turn.set()

        final = control.EndSession(sessions.EndSessionRequest(session_id=created.session.id), timeout=20).session
        events = [response.event.WhichOneof("event") for response in attach if response.HasField("event")]
        commands_end.set()
    sys.stdout.write(
        json.dumps(
            {
                "stubs": session_pb2.__file__,
                "version": info.version,
                "upstream_id": final.upstream_session_id,
                "ended": ended,
                "events": events,
                "end_reason": session_pb2.EndReason.Name(final.end_reason),
                "confirmed_bytes": len(pcm),
            }
        )
    )


if __name__ == "__main__":
    main()
