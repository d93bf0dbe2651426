"""One StreamAudio stream: its grammar, its credit, and what it says of each utterance."""

import asyncio
import enum
import logging
from collections.abc import Callable
from typing import TypeAlias

import grpc

from liveavatar.gateway.audio import AudioFormat
from liveavatar.gateway.channel import Stream, heartbeat_interval_s
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.credit import Chunk, CreditLedger, sendable_bytes
from liveavatar.gateway.errors import (
    AudioGap,
    CapacityExhausted,
    ConnectionLost,
    Draining,
    GatewayError,
    SessionEnded,
    UtteranceIdReused,
)
from liveavatar.gateway.model import Outcome, Progress
from liveavatar.gateway.refusals import from_status
from liveavatar.gateway.utterance import Phase, Stop, UtteranceState
from liveavatar.gateway.v1 import audio_service_pb2 as pb
from liveavatar.gateway.v1 import stream_pb2

_log = logging.getLogger(__name__)

AudioCall: TypeAlias = Stream[pb.StreamAudioRequest, pb.StreamAudioResponse]

_UNCONFIRMED_S = 4.0
# Audio that may be kept beyond the gateway's own window: what it has sent and LiveAvatar has not confirmed yet.
DEFAULT_WAIT_S = 1.0
"""How long an utterance waits that found no room, where the gateway does not say."""
_NOT_BEGUN = (UtteranceIdReused, Draining, SessionEnded, CapacityExhausted)


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

    Invariants: bytes in flight never exceed the gateway's newest credit. What is kept to be sent again never
    exceeds the gateway's whole window and what LiveAvatar has yet to confirm; where it is full, new audio waits.
    """

    def __init__(
        self,
        call: AudioCall,
        header: pb.AudioHeader,
        audio_format: AudioFormat,
        changes: Condition,
        *,
        on_crowded: Callable[[UtteranceState, float], None],
    ) -> None:
        """Prepare a stream.

        Args:
            call: A call that has just begun.
            header: Its first message.
            audio_format: Format of all of its utterances.
            changes: Notified whenever something here changed.
            on_crowded: Told that the gateway has no room for an utterance now, and for how many seconds to wait
                before it is begun again.
        """
        self.format = audio_format
        self.phase = StreamPhase.OPENING
        self.error: GatewayError | None = None
        self.turns: dict[str, UtteranceState] = {}
        """Utterances the gateway owes an end on this stream."""
        self._call = call
        self._on_crowded = on_crowded
        self._header = header
        self._changes = changes
        self.useful = False
        """Whether anything came of it: audio was taken, or an utterance ended."""
        self._ledger = CreditLedger(0)
        self._max_chunk_bytes = 0
        self._kept_limit_bytes = 0
        self._resuming: set[str] = set()
        self._heartbeat_s: float | None = None

    async def run(self) -> None:
        """Read to the end of the stream; `phase` and `error` then say how it went. Cancelling cuts the stream."""
        try:
            await self._call.write(pb.StreamAudioRequest(header=self._header))
            async with asyncio.TaskGroup() as tasks:
                beating = tasks.create_task(self._keep_alive(), name="audio/heartbeat")
                self.error = await self._read_all()
                beating.cancel()
        finally:
            self.phase = StreamPhase.CLOSED
            self._call.cancel()
            self._changes.notify()

    async def _read_all(self) -> GatewayError | None:
        try:
            while (message := await self._call.read()) is not None:
                self._take(message)
                self._changes.notify()
        except GatewayError as error:
            return error
        return None

    async def _keep_alive(self) -> None:
        """Send heartbeats as often as the gateway announced, if it did."""
        await self._changes.until(lambda: self.phase is not StreamPhase.OPENING)
        if self._heartbeat_s is not None:
            await self._call.keep_alive(pb.StreamAudioRequest(heartbeat=stream_pb2.Heartbeat()), self._heartbeat_s)

    async def begin(self, turn: UtteranceState) -> bool:
        """Open an utterance, or go on with one of a stream that broke; False when the stream is over.

        Of one that goes on nothing may be sent before the gateway has said where: see `answered`.
        """
        resume = turn.phase is not Phase.QUEUED
        turn.phase = Phase.OPEN
        self.turns[turn.id] = turn
        self._ledger.begin(turn.id)
        if resume:
            self._resuming.add(turn.id)
        begin = pb.BeginUtterance(utterance_id=turn.id, resume=resume)
        return await self._call.write(pb.StreamAudioRequest(begin=begin))

    def answered(self, turn: UtteranceState) -> bool:
        """Whether the gateway has said how an utterance goes on, or the stream is over."""
        return turn.id not in self._resuming or self.phase is StreamPhase.CLOSED

    def room_bytes(self, turn: UtteranceState, wanted: int, *, again: bool) -> int:
        """How much of `wanted` bytes the utterance may send now; 0 means wait for a change.

        Args:
            turn: The utterance.
            wanted: Bytes there are.
            again: Whether they were sent before, so that they are kept already.
        """
        available = self._ledger.available_bytes
        if not again:
            kept = sum(one.window.kept_bytes for one in self.turns.values())
            available = min(available, max(self._kept_limit_bytes - kept, 0))
        return sendable_bytes(
            turn.format,
            wanted=min(wanted, turn.format.whole(self._max_chunk_bytes)),
            available=available,
            in_flight=self._ledger.in_flight_bytes,
        )

    async def send(self, turn: UtteranceState, audio: bytes) -> bool:
        """Send new audio; False when the stream is over."""
        return await self._send(turn, turn.window.send(audio))

    async def send_again(self, turn: UtteranceState, limit_bytes: int) -> bool:
        """Repeat audio that a gap swallowed; False when the stream is over."""
        return await self._send(turn, turn.window.send_again(limit_bytes))

    async def end(self, turn: UtteranceState) -> bool:
        """Seal the utterance: what was sent is spoken to its end."""
        if turn.phase is Phase.OPEN:
            turn.phase = Phase.SEALED
        return await self._call.write(pb.StreamAudioRequest(end=pb.EndUtterance(utterance_id=turn.id)))

    async def cancel(self, turn: UtteranceState) -> bool:
        """Silence the open utterance and seal it."""
        if turn.phase is Phase.OPEN:
            turn.phase = Phase.SEALED
        return await self._call.write(pb.StreamAudioRequest(cancel=pb.CancelUtterance(utterance_id=turn.id)))

    def cut(self) -> None:
        """Break the stream off; `run` returns."""
        self._call.cancel()

    async def half_close(self) -> None:
        """Tell that nothing more comes; the gateway closes the stream after the last `ended`."""
        await self._call.finish_writing()

    async def _send(self, turn: UtteranceState, chunk: Chunk) -> bool:
        self._ledger.sent(turn.id, chunk.end_bytes)
        # Named, so that none of it is taken for the next utterance when this one is cut meanwhile.
        named = pb.AudioChunk(offset_bytes=chunk.offset_bytes, audio=chunk.audio, utterance_id=turn.id)
        return await self._call.write(pb.StreamAudioRequest(chunk=named))

    def _take(self, message: pb.StreamAudioResponse) -> None:
        match message.WhichOneof("message"):
            case "ready":
                self._ledger = CreditLedger(message.ready.credit_bytes)
                self._credit(message.ready.credit_bytes)
                self._max_chunk_bytes = message.ready.max_chunk_bytes
                self._heartbeat_s = heartbeat_interval_s(message.ready.heartbeat_interval)
                self.phase = StreamPhase.READY
            case "ack":
                self._take_ack(message.ack)
            case "started":
                turn = self.turns.get(message.started.utterance_id)
                if turn is not None:
                    turn.start()
            case "ended":
                self.useful = True
                self._forget(message.ended.utterance_id)
                turn = self.turns.pop(message.ended.utterance_id, None)
                if turn is not None:
                    turn.finish(Outcome.from_proto(message.ended))
            case "rejected":
                self._take_rejection(message.rejected)
            case "heartbeat":
                return
            case None:
                _log.debug("audio.unknown_message")

    def _take_ack(self, ack: pb.AudioAck) -> None:
        self._ledger.ack(ack.utterance_id, ack.received_bytes, ack.credit_bytes)
        self._credit(ack.credit_bytes)
        turn = self.turns.get(ack.utterance_id)
        if turn is None:
            return
        if ack.utterance_id in self._resuming:
            self._resuming.discard(ack.utterance_id)
            self._place(turn, ack.received_bytes)
        elif ack.received_bytes > turn.progress.received_bytes:
            self.useful = True
        turn.window.let_go(ack.confirmed_bytes)
        turn.acknowledge(
            Progress(
                received_bytes=ack.received_bytes,
                confirmed_bytes=ack.confirmed_bytes,
                # What was heard was heard, also where a restarted gateway knows less of it.
                played=max(ack.played.ToTimedelta(), turn.progress.played),
                underrun_count=max(ack.underrun_count, turn.progress.underrun_count),
            )
        )

    def _place(self, turn: UtteranceState, received_bytes: int) -> None:
        """Go on where the gateway says, which may be before what an earlier stream had brought it."""
        if not turn.window.go_back(received_bytes):
            turn.failure = ConnectionLost(
                f"the gateway goes on at byte {received_bytes} of utterance {turn.id!r}, which is not kept; the "
                "rest of it is lost",
                code=grpc.StatusCode.DATA_LOSS,
                metadata={"utterance_id": turn.id, "received_bytes": str(received_bytes)},
            )
            turn.halt(Stop.END)

    def _credit(self, credit_bytes: int) -> None:
        beyond_bytes = self.format.size_bytes(_UNCONFIRMED_S)
        self._kept_limit_bytes = max(self._kept_limit_bytes, credit_bytes + beyond_bytes)

    def _forget(self, utterance_id: str) -> None:
        self._ledger.forget(utterance_id)
        self._resuming.discard(utterance_id)

    def _take_rejection(self, rejected: pb.AudioRejected) -> None:
        error = from_status(rejected.error)
        turn = self.turns.get(rejected.utterance_id)
        if turn is None:
            # Late words on an utterance that has ended, which has its outcome already.
            _log.debug("audio.rejected utterance=%s cause=%s", rejected.utterance_id, error)
            return
        if isinstance(error, AudioGap) and self._goes_back(turn, rejected.received_bytes):
            return
        answers_begin = turn.id in self._resuming or not turn.taken
        if answers_begin and isinstance(error, CapacityExhausted) and self._waits_for_room(turn, error):
            return
        turn.failure = error
        if not answers_begin or not _refuses_begin(error):
            turn.halt(Stop.END)
            return
        # The gateway owes no end for a `begin` that it did not take.
        turn.halt(Stop.NOTHING)
        del self.turns[turn.id]
        self._forget(turn.id)
        turn.fail(error)

    def _goes_back(self, turn: UtteranceState, expected: int) -> bool:
        turn.taken = True
        if turn.phase is not Phase.OPEN or not turn.window.gap(expected):
            return False
        self._ledger.sent(turn.id, turn.window.sent_offset)
        self._changes.notify()
        return True

    def _waits_for_room(self, turn: UtteranceState, error: CapacityExhausted) -> bool:
        """Take an utterance off this stream until the gateway has room for it; what was sent of it was dropped."""
        resumed = turn.id in self._resuming
        if not (resumed or turn.window.go_back(0)):
            return False
        del self.turns[turn.id]
        self._forget(turn.id)
        if turn.stop is not None:
            # It was silenced, or its source failed, while it was on its way.
            turn.drop()
            return True
        turn.phase = turn.phase if resumed else Phase.QUEUED
        self._on_crowded(turn, DEFAULT_WAIT_S if error.retry_after is None else error.retry_after)
        return True


def _refuses_begin(error: GatewayError) -> bool:
    return isinstance(error, _NOT_BEGUN) or any(
        violation.field.startswith("begin") for violation in error.field_violations
    )
