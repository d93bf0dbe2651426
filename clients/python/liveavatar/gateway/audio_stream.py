"""One StreamAudio stream: its grammar, its credit, and what it says of each utterance."""

import enum
import logging
from typing import TypeAlias

from liveavatar.gateway.audio import AudioFormat
from liveavatar.gateway.changes import Changes
from liveavatar.gateway.channel import Stream
from liveavatar.gateway.credit import Chunk, CreditLedger, sendable_bytes
from liveavatar.gateway.errors import AudioGap, GatewayError, UtteranceIdReused, from_status
from liveavatar.gateway.model import Outcome, Progress
from liveavatar.gateway.utterance import Phase, Stop, Turn
from liveavatar.gateway.v1 import audio_service_pb2 as pb

_log = logging.getLogger(__name__)

AudioCall: TypeAlias = Stream[pb.StreamAudioRequest, pb.StreamAudioResponse]


class StreamPhase(enum.Enum):
    """Where the stream is."""

    OPENING = enum.auto()
    """The gateway has not answered yet."""
    READY = enum.auto()
    """Utterances may be begun."""
    CLOSED = enum.auto()
    """Over; `error` says why, None for OK."""


class AudioStream:
    """One call. One task reads it (`run`), another writes to it, in the order begin, chunks, end or cancel.

    Invariant: bytes in flight never exceed the gateway's newest credit.
    """

    def __init__(
        self, call: AudioCall, header: pb.AudioHeader, audio_format: AudioFormat, changes: Changes
    ) -> None:
        self.format = audio_format
        self.phase = StreamPhase.OPENING
        self.error: GatewayError | None = None
        self.turns: dict[str, Turn] = {}
        """Utterances the gateway owes an end on this stream."""
        self._call = call
        self._header = header
        self._changes = changes
        self._ledger = CreditLedger(0)
        self._max_chunk_bytes = 0

    async def run(self) -> None:
        """Read to the end of the stream; `phase` and `error` then say how it went. Cancelling cuts the stream."""
        try:
            await self._call.write(pb.StreamAudioRequest(header=self._header))
            while (message := await self._call.read()) is not None:
                self._take(message)
                self._changes.notify()
        except GatewayError as error:
            self.error = error
        finally:
            self.phase = StreamPhase.CLOSED
            self._call.cancel()
            self._changes.notify()

    async def begin(self, turn: Turn) -> bool:
        """Open an utterance; False when the stream is over."""
        turn.phase = Phase.OPEN
        self.turns[turn.id] = turn
        self._ledger.begin(turn.id)
        return await self._call.write(pb.StreamAudioRequest(begin=pb.BeginUtterance(utterance_id=turn.id)))

    def room_bytes(self, turn: Turn, wanted: int) -> int:
        """How much of `wanted` bytes the utterance may send now; 0 means wait for a change."""
        return sendable_bytes(
            turn.format,
            wanted=min(wanted, turn.format.whole(self._max_chunk_bytes)),
            available=self._ledger.available_bytes,
            in_flight=self._ledger.in_flight_bytes,
        )

    async def send(self, turn: Turn, audio: bytes) -> bool:
        """Send new audio; False when the stream is over."""
        return await self._send(turn, turn.window.send(audio))

    async def send_again(self, turn: Turn, limit_bytes: int) -> bool:
        """Repeat audio that a gap swallowed; False when the stream is over."""
        return await self._send(turn, turn.window.send_again(limit_bytes))

    async def end(self, turn: Turn) -> bool:
        """Seal the utterance: what was sent is spoken to its end."""
        if turn.phase is Phase.OPEN:
            turn.phase = Phase.SEALED
        return await self._call.write(pb.StreamAudioRequest(end=pb.EndUtterance()))

    async def cancel(self, turn: Turn) -> bool:
        """Silence the open utterance and seal it."""
        if turn.phase is Phase.OPEN:
            turn.phase = Phase.SEALED
        return await self._call.write(pb.StreamAudioRequest(cancel=pb.CancelUtterance()))

    async def half_close(self) -> None:
        """Tell that nothing more comes; the gateway closes the stream after the last `ended`."""
        await self._call.finish_writing()

    async def _send(self, turn: Turn, chunk: Chunk) -> bool:
        self._ledger.sent(turn.id, chunk.end_bytes)
        return await self._call.write(
            pb.StreamAudioRequest(chunk=pb.AudioChunk(offset_bytes=chunk.offset_bytes, audio=chunk.audio)),
        )

    def _take(self, message: pb.StreamAudioResponse) -> None:
        match message.WhichOneof("message"):
            case "ready":
                self._ledger = CreditLedger(message.ready.credit_bytes)
                self._max_chunk_bytes = message.ready.max_chunk_bytes
                self.phase = StreamPhase.READY
            case "ack":
                self._take_ack(message.ack)
            case "started":
                turn = self.turns.get(message.started.utterance_id)
                if turn is not None:
                    turn.start()
            case "ended":
                self._ledger.forget(message.ended.utterance_id)
                turn = self.turns.pop(message.ended.utterance_id, None)
                if turn is not None:
                    turn.finish(Outcome.from_proto(message.ended))
            case "rejected":
                self._take_rejection(message.rejected)
            case None:
                _log.debug("audio.unknown_message")

    def _take_ack(self, ack: pb.AudioAck) -> None:
        self._ledger.ack(ack.utterance_id, ack.received_bytes, ack.credit_bytes)
        turn = self.turns.get(ack.utterance_id)
        if turn is not None:
            turn.window.ack(ack.received_bytes)
            turn.acknowledge(
                Progress(
                    received_bytes=ack.received_bytes,
                    sent_bytes=ack.sent_bytes,
                    played=ack.played.ToTimedelta(),
                )
            )

    def _take_rejection(self, rejected: pb.AudioRejected) -> None:
        error = from_status(rejected.error)
        turn = self.turns.get(rejected.utterance_id)
        if turn is None:
            # Late words on an utterance that has ended, which has its outcome already.
            _log.debug("audio.rejected utterance=%s cause=%s", rejected.utterance_id, error)
            return
        if isinstance(error, AudioGap) and self._goes_back(turn, rejected.received_bytes):
            return
        turn.failure = error
        if turn.taken or not _refuses_begin(error):
            turn.halt(Stop.END)
            return
        # The gateway owes no end for a `begin` that it did not take.
        turn.halt(Stop.NOTHING)
        del self.turns[turn.id]
        self._ledger.forget(turn.id)
        turn.fail(error)

    def _goes_back(self, turn: Turn, expected: int) -> bool:
        turn.taken = True
        if turn.phase is not Phase.OPEN or not turn.window.gap(expected):
            return False
        self._ledger.sent(turn.id, turn.window.sent_offset)
        self._changes.notify()
        return True


def _refuses_begin(error: GatewayError) -> bool:
    return isinstance(error, UtteranceIdReused) or any(
        violation.field.startswith("begin") for violation in error.field_violations
    )
