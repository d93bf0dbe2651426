"""Generator of the benchmark: sessions that send encoded chunks in real time, all driven by one timer."""

import asyncio
import random
import time
from array import array
from collections.abc import Sequence
from typing import Final, cast

from liveavatar.gateway.channel import Connection
from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as audio
from load.bench.loads import TalkLoad
from load.bench.sink import Sink
from load.gateway import LeanSession
from load.pipe import AudioPipe, encoded
from load.recorder import LoadRecorder
from load.session import until
from load.speech import Voice
from stage.errors import StageError

_TICK_S: Final = 0.001
_ENDED_WITHIN_S: Final = 20.0
_POLL_S: Final = 0.05
_BEGIN: Final = encoded(audio.StreamAudioRequest(begin=audio.BeginUtterance()))
_END: Final = encoded(audio.StreamAudioRequest(end=audio.EndUtterance()))


class Talker(LeanSession):
    """Session opened by `Attach`. `step` sends the next chunk of its turn and never waits."""

    def __init__(self, connection: Connection, target: str, recorder: LoadRecorder, voice: Voice) -> None:
        super().__init__(connection, target, recorder, voice, attached=True)
        self.written: list[int] = []
        """Bytes of each utterance written."""
        self.first_packets_s = array("d")
        """From the write of the chunk that completed a first packet to the packet's arrival upstream."""
        self.packets = 0
        """Packets that arrived upstream."""
        self.ended = 0
        """Utterances reported as completed."""
        self.problem = ""
        self._pipe: AudioPipe
        self._position = 0
        self._speaking = False
        self._written_s: list[float] = []
        self._sink: Sink | None = None

    async def join(self, load: TalkLoad, number: int, sink: Sink) -> None:
        """Open the session and its audio stream.

        Raises:
            Failure: the server refused, or did not answer in time.
        """
        await self.open()
        await self._open_audio()
        self._pipe = cast("AudioPipe", self._audio)
        self._sink = sink
        sink.avatar(self.upstream_id).on_packet = self._on_packet
        pcm = random.Random(number).randbytes(load.chunk_bytes)
        self._chunk = encoded(audio.StreamAudioRequest(chunk=audio.AudioChunk(audio=pcm)))
        self._chunk_bytes = load.chunk_bytes
        self._spoken, self._turn = load.spoken_chunks, load.turn_chunks
        self._position = load.first_position(number)

    def step(self, now_s: float) -> int:
        """Send the next chunk, with the begin or end of its utterance; return the bytes of audio written."""
        position = self._position
        self._position = position + 1 if position + 1 < self._turn else 0
        if position >= self._spoken:
            return 0
        if not self._speaking:
            self._speaking = True
            self.written.append(0)
            self._written_s.clear()
            self._pipe.post(_BEGIN)
        self._written_s.append(now_s)
        self.written[-1] += self._chunk_bytes
        self._pipe.post(self._chunk)
        if position == self._spoken - 1:
            self.finish_utterance()
        return self._chunk_bytes

    def finish_utterance(self) -> None:
        """End the open utterance, if any."""
        if self._speaking:
            self._speaking = False
            self._pipe.post(_END)

    def check(self) -> None:
        """Make sure that every byte arrived, in the utterance in which it was written.

        Raises:
            StageError: the server reported a problem, or bytes are missing or too many.
        """
        assert self._sink is not None
        avatar = self._sink.avatar(self.upstream_id)
        problem = self.problem or avatar.problem or (str(self.waits.failure) if self.waits.failure else "")
        if problem:
            raise StageError(f"session {self.upstream_id}: {problem}")
        if avatar.utterances != self.written:
            raise StageError(f"session {self.upstream_id}: {_difference(self.written, avatar.utterances)}")

    def take_underruns(self) -> int:
        """Return the underruns since the last call."""
        assert self._sink is not None
        avatar = self._sink.avatar(self.upstream_id)
        count, avatar.underruns = avatar.underruns, 0
        return count

    def _on_packet(self, size_bytes: int, first: bool, arrived_s: float) -> None:  # noqa: FBT001 - the sink's signature
        self.packets += 1
        completing = -(-size_bytes // self._chunk_bytes) - 1
        if first and completing < len(self._written_s):
            self.first_packets_s.append(arrived_s - self._written_s[completing])

    def _on_audio(self, message: audio.StreamAudioResponse, now_s: float) -> None:
        kind = message.WhichOneof("message")
        if kind == "ended":
            self.ended += 1
            if message.ended.outcome != audio_pb2.UTTERANCE_OUTCOME_COMPLETED:
                outcome = audio_pb2.UtteranceOutcome.Name(message.ended.outcome)
                self.problem = self.problem or f"an utterance ended {outcome}: {message.ended.error.message}"
        elif kind in ("ready", "rejected"):
            super()._on_audio(message, now_s)


class Conversation:
    """All talkers of one server, driven by one timer; their chunks are due evenly over each period."""

    def __init__(self, talkers: Sequence[Talker], load: TalkLoad) -> None:
        self._talkers = talkers
        self._step_s = load.chunk_ms / 1000 / len(talkers)
        self._sent = 0
        self._begun_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None
        self.written_bytes = 0
        """Audio written so far."""
        self.lateness_s = array("d")
        """Delay of each chunk."""

    def start(self) -> None:
        """Talk until `finish`."""
        self._begun_s, self._sent = time.monotonic(), 0
        self._tick()

    def forget(self) -> None:
        """Start the figures of a window."""
        del self.lateness_s[:]
        for talker in self._talkers:
            del talker.first_packets_s[:]
            talker.take_underruns()

    async def finish(self) -> None:
        """Stop, end all utterances, and wait until the server has reported that.

        Raises:
            StageError: talking failed, an end did not come, the server reported a problem, or bytes differ.
        """
        if self._timer is not None:
            self._timer.cancel()
        if self._error is not None:
            raise StageError(f"the generator failed: {self._error!r}") from self._error
        for talker in self._talkers:
            talker.finish_utterance()
        give_up_s = time.monotonic() + _ENDED_WITHIN_S
        while any(talker.ended < len(talker.written) for talker in self._talkers):
            for talker in self._talkers:
                if talker.problem or talker.waits.failure:
                    talker.check()
            if time.monotonic() > give_up_s:
                raise StageError(f"utterances did not end within {_ENDED_WITHIN_S:g} s")
            await until(time.monotonic() + _POLL_S)
        for talker in self._talkers:
            talker.check()

    def _tick(self) -> None:
        talkers, count, step_s, begun_s = self._talkers, len(self._talkers), self._step_s, self._begun_s
        late, sent, now_s = self.lateness_s, self._sent, time.monotonic()
        try:
            while (due_s := begun_s + sent * step_s) <= now_s:
                self.written_bytes += talkers[sent % count].step(now_s)
                late.append(now_s - due_s)
                sent += 1
                now_s = time.monotonic()
        except Exception as error:  # noqa: BLE001 - a timer's error would be lost; `finish` raises it
            self._error = error
            return
        self._sent = sent
        self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)


def _difference(written: Sequence[int], arrived: Sequence[int]) -> str:
    for number, (wrote, came) in enumerate(zip(written, arrived, strict=False)):
        if wrote != came:
            return f"{came} of {wrote} bytes of utterance {number} arrived"
    return f"{len(arrived)} of {len(written)} utterances arrived"
