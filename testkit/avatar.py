"""A model of LiveAvatar for property tests of the core: plays in real time, and says so in one dialect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from liveavatar_gateway.audio.convert import converter
from liveavatar_gateway.audio.formats import NATIVE_FORMAT, AudioFormat, Encoding
from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.speech.utterance import AudioInput
from liveavatar_gateway.core.states import Pose

_EPSILON_S = 1e-6
FORMATS = [
    NATIVE_FORMAT,
    AudioFormat(Encoding.MULAW, 8_000, 1),
    AudioFormat(Encoding.PCM_S16LE, 16_000, 2),
    AudioFormat(Encoding.PCM_F32LE, 44_100, 1),
]


class HoldsBack:
    """A simple converter for LiveAvatar's own format that keeps the newest 2000 bytes until the end."""

    def __init__(self) -> None:
        self._held = b""

    def convert(self, chunks: Sequence[bytes], *, last: bool) -> bytes:
        pcm = self._held + b"".join(chunks)
        keep = 0 if last else min(len(pcm), 2_000)
        self._held = pcm[len(pcm) - keep :]
        return pcm[: len(pcm) - keep]


def audio_input_of(audio_format: AudioFormat | None) -> AudioInput:
    """Return the input of an audio format; None is the simple converter."""
    fmt = audio_format or NATIVE_FORMAT
    return AudioInput(
        byte_rate=fmt.byte_rate,
        frame_bytes=fmt.frame_bytes,
        max_chunk_bytes=64 << 20,
        new_converter=HoldsBack if audio_format is None else lambda: converter(fmt),
        detect_container=lambda _: None,
        may_be_container=lambda _: False,
    )


@dataclass
class Line:
    """Utterance of the model avatar."""

    upstream_id: str
    got_s: float = 0.0
    played_s: float = 0.0
    sealed: bool = False
    starts_at_s: float | None = None
    started: bool = False


class Avatar:
    """Plays what it gets in real time, 200 ms after the first packet, and says so in one dialect."""

    TELLS: ClassVar[dict[str, frozenset[str]]] = {
        "modern": frozenset({"acks", "speak", "pose"}),
        "classic": frozenset({"acks", "speak"}),
        "acks-only": frozenset({"acks"}),
        "poses": frozenset({"acks", "pose"}),
        "silent-acks": frozenset({"speak", "pose"}),
        "dead": frozenset(),
    }

    def __init__(self, dialect: str, naming: str) -> None:
        self._tells = self.TELLS[dialect]
        self._naming = naming
        self._lines: list[Line] = []
        self._minted = 0
        self._at_s = 0.0
        self.said: list[m.Event] = []

    def hear(self, command: m.Command, now_s: float) -> None:
        self.play(now_s)
        match command:
            case m.Speak(upstream_id, pcm):
                line = next((line for line in self._lines if line.upstream_id == upstream_id), None)
                if line is None:
                    line = Line(upstream_id)
                    self._lines.append(line)
                line.got_s += len(pcm) / m.BYTE_RATE
                if line.starts_at_s is None:
                    line.starts_at_s = now_s + 0.2
                self._say("acks", m.Appended(self._refs(upstream_id)))
            case m.SpeakEnd(upstream_id):
                for line in self._lines:
                    line.sealed = line.sealed or line.upstream_id == upstream_id
                self._say("acks", m.Committed(self._refs(upstream_id)))
            case m.Interrupt(command_id):
                cut, self._lines = self._lines, []
                self._say("acks", m.Cleared(self._refs(command_id)))
                if cut:
                    self._say("speak", m.SpeakInterrupted(self._refs(cut[0].upstream_id)))
                    self._say("pose", m.PoseUpdated(Pose.IDLE))

    def play(self, now_s: float) -> None:
        """Let time pass."""
        while self._lines:
            line = self._lines[0]
            begins_s = max(self._at_s, line.starts_at_s or 0.0)
            if now_s < begins_s:
                break
            if not line.started:
                line.started = True
                self._say("speak", m.SpeakStarted(self._refs(line.upstream_id)))
                self._say("pose", m.PoseUpdated(Pose.TALKING))
            line.played_s = min(line.got_s, line.played_s + now_s - begins_s)
            if not line.sealed or line.played_s < line.got_s - _EPSILON_S:
                break
            self._say("speak", m.SpeakEnded(self._refs(line.upstream_id)))
            self._say("pose", m.PoseUpdated(Pose.IDLE))
            self._lines.pop(0)
        self._at_s = now_s

    def _say(self, family: str, event: m.Event) -> None:
        if family in self._tells:
            self.said.append(event)

    def _refs(self, upstream_id: str) -> m.Refs:
        self._minted += 1
        minted = f"minted-{self._minted}"
        return {
            "source": m.Refs((upstream_id, minted), f"task-{upstream_id}"),
            "echo": m.Refs((upstream_id,)),
            "none": m.Refs((minted,)),
        }[self._naming]
