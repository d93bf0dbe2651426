"""StreamAudio call: its grammar, its credit, and the answers for each utterance."""

import asyncio
import enum
import logging
from collections.abc import Callable, Mapping
from typing import TypeAlias

import grpc

from liveavatar.gateway.audio import AudioFormat
from liveavatar.gateway.channel import Stream, heartbeat_interval_s
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.credit import Chunk, CreditAccount, sendable_bytes
from liveavatar.gateway.errors import (
    AudioGap,
    CapacityExhausted,
    ConnectionLost,
    Draining,
    GatewayError,
    SessionEnded,
    TimingsGap,
    TimingsInvalid,
    TimingsLimit,
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
# Audio kept beyond the gateway's own window: the gateway has sent it and LiveAvatar has not confirmed it yet.
DEFAULT_WAIT_S = 1.0
"""Delay before an utterance that found no room is begun again, where the gateway names no delay."""
_NOT_BEGUN = (UtteranceIdReused, Draining, SessionEnded, CapacityExhausted)


class StreamPhase(enum.Enum):
    """State of one call. Each phase is entered once, in this order; OPENING may be followed by CLOSED."""

    OPENING = enum.auto()
    """The header is not answered yet."""
    READY = enum.auto()
    """Utterances may be begun."""
    CLOSED = enum.auto()
    """The call is over; `error` holds the reason, None for OK."""


class AudioStream:
    """StreamAudio call. One task reads (`run`), another writes begin, chunks, and end or cancel, in this order.

    Invariants: bytes in flight never exceed the gateway's newest credit. Audio kept for resending never exceeds
    the gateway's whole window plus the audio that LiveAvatar has yet to confirm; above that, new audio waits.
    """

    def __init__(
        self,
        call: AudioCall,
        header: pb.AudioHeader,
        audio_format: AudioFormat,
        condition: Condition,
        *,
        on_no_room: Callable[[UtteranceState, float], None],
    ) -> None:
        """Prepare a stream.

        Args:
            call: A call that has just begun.
            header: First message of the call.
            audio_format: Format of all utterances of the stream.
            condition: Notified of each change.
            on_no_room: Called with an utterance for which the gateway has no room, and with the seconds to wait
                before the utterance is begun again.
        """
        self._call = call
        self._header = header
        self._format = audio_format
        self._condition = condition
        self._on_no_room = on_no_room
        self._phase = StreamPhase.OPENING
        self._error: GatewayError | None = None
        self._utterances: dict[str, UtteranceState] = {}
        self._made_progress = False
        self._credit = CreditAccount(0)
        self._max_chunk_bytes = 0
        self._kept_limit_bytes = 0
        self._resuming: set[str] = set()
        self._heartbeat_s: float | None = None

    @property
    def format(self) -> AudioFormat:
        """Format of all utterances of the stream."""
        return self._format

    @property
    def phase(self) -> StreamPhase:
        """State of the call."""
        return self._phase

    @property
    def error(self) -> GatewayError | None:
        """Error that ended the call; None while the call is open, and after OK."""
        return self._error

    @property
    def utterances(self) -> Mapping[str, UtteranceState]:
        """Utterances for which the gateway owes an `ended` on this stream, oldest first."""
        return self._utterances

    @property
    def made_progress(self) -> bool:
        """True once the gateway received audio or ended an utterance on this stream."""
        return self._made_progress

    async def run(self) -> None:
        """Read to the end of the call, then set `phase` and `error`. Cancelling this cancels the call."""
        try:
            await self._call.write(pb.StreamAudioRequest(header=self._header))
            async with asyncio.TaskGroup() as tasks:
                beating = tasks.create_task(self._keep_alive(), name="audio/heartbeat")
                self._error = await self._read_all()
                beating.cancel()
        finally:
            self._phase = StreamPhase.CLOSED
            self._call.cancel()
            self._condition.notify()

    async def _read_all(self) -> GatewayError | None:
        try:
            while (message := await self._call.read()) is not None:
                self._take(message)
                self._condition.notify()
        except GatewayError as error:
            return error
        return None

    async def _keep_alive(self) -> None:
        """Send heartbeats at the interval that the gateway announced, if any."""
        await self._condition.until(lambda: self.phase is not StreamPhase.OPENING)
        if self._heartbeat_s is not None:
            await self._call.keep_alive(pb.StreamAudioRequest(heartbeat=stream_pb2.Heartbeat()), self._heartbeat_s)

    async def begin(self, utterance: UtteranceState) -> bool:
        """Send `begin` for a new utterance, or for an utterance of a broken stream; False when the call is over.

        Audio of a resumed utterance may be sent once `is_positioned`.
        """
        resumes = utterance.begin()
        self._utterances[utterance.id] = utterance
        self._credit.begin(utterance.id)
        if resumes:
            self._resuming.add(utterance.id)
        begin = pb.BeginUtterance(utterance_id=utterance.id, resume=resumes, text=utterance.text.restart())
        return await self._call.write(pb.StreamAudioRequest(begin=begin))

    def is_positioned(self, utterance: UtteranceState) -> bool:
        """Return True once the gateway has named the byte at which to resume, or the call is over."""
        return utterance.id not in self._resuming or self.phase is StreamPhase.CLOSED

    def sendable_bytes(self, utterance: UtteranceState, wanted: int, *, resend: bool) -> int:
        """Return how many of `wanted` bytes the utterance may send now; 0: wait for a change.

        Args:
            utterance: The utterance.
            wanted: Bytes to send.
            resend: True when the bytes were sent before, so that they are kept already.
        """
        available = self._credit.available_bytes
        if not resend:
            kept = sum(other.window.kept_bytes for other in self._utterances.values())
            available = min(available, max(self._kept_limit_bytes - kept, 0))
        return sendable_bytes(
            utterance.format,
            wanted=min(wanted, utterance.format.whole(self._max_chunk_bytes)),
            available=available,
            in_flight=self._credit.in_flight_bytes,
        )

    async def send(self, utterance: UtteranceState, audio: bytes) -> bool:
        """Send new audio; False when the call is over."""
        return await self._send(utterance, utterance.window.append(audio))

    async def send_text(self, utterance: UtteranceState) -> None:
        """Send the timings that this stream lacks."""
        while (text := utterance.text.take()) is not None:
            timings = pb.TextTimings(utterance_id=utterance.id, text=text)
            if not await self._call.write(pb.StreamAudioRequest(timings=timings)):
                return

    async def resend(self, utterance: UtteranceState, limit_bytes: int) -> bool:
        """Send audio again that the gateway did not receive; False when the call is over."""
        return await self._send(utterance, utterance.window.resend(limit_bytes))

    async def end(self, utterance: UtteranceState) -> bool:
        """Seal the utterance: the avatar speaks all audio that was sent."""
        utterance.seal()
        return await self._call.write(pb.StreamAudioRequest(end=pb.EndUtterance(utterance_id=utterance.id)))

    async def cancel(self, utterance: UtteranceState) -> bool:
        """Silence and seal the open utterance."""
        utterance.seal()
        return await self._call.write(pb.StreamAudioRequest(cancel=pb.CancelUtterance(utterance_id=utterance.id)))

    def abort(self) -> None:
        """Cancel the call; `run` returns."""
        self._call.cancel()

    async def half_close(self) -> None:
        """Half-close the call; the gateway closes its side after the last `ended`."""
        await self._call.finish_writing()

    def take_unfinished(self) -> list[UtteranceState]:
        """Remove and return the utterances that have no outcome, after the end of the call."""
        unfinished = [utterance for utterance in self._utterances.values() if utterance.outcome is None]
        self._utterances.clear()
        return unfinished

    async def _send(self, utterance: UtteranceState, chunk: Chunk) -> bool:
        self._credit.sent(utterance.id, chunk.end_bytes)
        # With its id, the gateway cannot take the chunk for the next utterance after an interrupt.
        named = pb.AudioChunk(offset_bytes=chunk.offset_bytes, audio=chunk.audio, utterance_id=utterance.id)
        return await self._call.write(pb.StreamAudioRequest(chunk=named))

    def _take(self, message: pb.StreamAudioResponse) -> None:
        match message.WhichOneof("message"):
            case "ready":
                self._credit = CreditAccount(message.ready.credit_bytes)
                self._raise_kept_limit(message.ready.credit_bytes)
                self._max_chunk_bytes = message.ready.max_chunk_bytes
                self._heartbeat_s = heartbeat_interval_s(message.ready.heartbeat_interval)
                self._phase = StreamPhase.READY
            case "ack":
                self._take_ack(message.ack)
            case "started":
                utterance = self._utterances.get(message.started.utterance_id)
                if utterance is not None:
                    utterance.start()
            case "ended":
                self._made_progress = True
                self._forget(message.ended.utterance_id)
                utterance = self._utterances.pop(message.ended.utterance_id, None)
                if utterance is not None:
                    utterance.finish(Outcome.from_proto(message.ended))
            case "rejected":
                self._take_rejection(message.rejected)
            case "heartbeat":
                return
            case None:
                _log.debug("audio.unknown_message")

    def _take_ack(self, ack: pb.AudioAck) -> None:
        self._credit.ack(ack.utterance_id, ack.received_bytes, ack.credit_bytes)
        self._raise_kept_limit(ack.credit_bytes)
        utterance = self._utterances.get(ack.utterance_id)
        if utterance is None:
            return
        if ack.utterance_id in self._resuming:
            self._resuming.discard(ack.utterance_id)
            self._rewind(utterance, ack.received_bytes)
        elif ack.received_bytes > utterance.progress.received_bytes:
            self._made_progress = True
        utterance.window.discard(ack.confirmed_bytes)
        utterance.accept(
            Progress(
                received_bytes=ack.received_bytes,
                confirmed_bytes=ack.confirmed_bytes,
                # A restarted gateway may know of less playout than was reported before.
                played=max(ack.played.ToTimedelta(), utterance.progress.played),
                underrun_count=max(ack.underrun_count, utterance.progress.underrun_count),
            )
        )

    def _rewind(self, utterance: UtteranceState, received_bytes: int) -> None:
        """Resume at the byte that the gateway names, possibly before audio that an earlier stream delivered."""
        if not utterance.window.rewind(received_bytes):
            lost = ConnectionLost(
                f"the gateway resumes utterance {utterance.id!r} at byte {received_bytes}, which is not kept; the "
                "rest of the utterance is lost",
                code=grpc.StatusCode.DATA_LOSS,
                metadata={"utterance_id": utterance.id, "received_bytes": str(received_bytes)},
            )
            utterance.stop_sending(Stop.END, lost)

    def _raise_kept_limit(self, credit_bytes: int) -> None:
        beyond_bytes = self.format.size_bytes(_UNCONFIRMED_S)
        self._kept_limit_bytes = max(self._kept_limit_bytes, credit_bytes + beyond_bytes)

    def _forget(self, utterance_id: str) -> None:
        self._credit.forget(utterance_id)
        self._resuming.discard(utterance_id)

    def _take_rejection(self, rejected: pb.AudioRejected) -> None:
        error = from_status(rejected.error)
        utterance = self._utterances.get(rejected.utterance_id)
        if utterance is None:
            # The utterance has ended, so its outcome is final.
            _log.debug("audio.rejected utterance=%s cause=%s", rejected.utterance_id, error)
            return
        if isinstance(error, TimingsInvalid | TimingsGap | TimingsLimit):
            _log.warning("audio.timings_refused utterance=%s cause=%s", utterance.id, error)
            utterance.text.refuse()
            return
        if isinstance(error, AudioGap) and self._repair_gap(utterance, rejected.received_bytes):
            return
        answers_begin = utterance.id in self._resuming or not utterance.accepted
        if answers_begin and isinstance(error, CapacityExhausted) and self._postpone(utterance, error):
            return
        if not answers_begin or not _refuses_begin(error):
            utterance.stop_sending(Stop.END, error)
            return
        # The gateway owes no `ended` for a `begin` that it refused.
        utterance.stop_sending(Stop.NOT_BEGUN, error)
        del self._utterances[utterance.id]
        self._forget(utterance.id)
        utterance.fail(error)

    def _repair_gap(self, utterance: UtteranceState, expected: int) -> bool:
        utterance.accept()
        if utterance.phase is not Phase.OPEN or not utterance.window.repair_gap(expected):
            return False
        self._credit.sent(utterance.id, utterance.window.sent_offset)
        self._condition.notify()
        return True

    def _postpone(self, utterance: UtteranceState, error: CapacityExhausted) -> bool:
        """Remove an utterance from this stream until the gateway has room; the gateway dropped its audio."""
        resumed = utterance.id in self._resuming
        if not (resumed or utterance.window.rewind(0)):
            return False
        del self._utterances[utterance.id]
        self._forget(utterance.id)
        if utterance.stop is not None:
            # The utterance was interrupted, or its source failed, while `begin` was on its way.
            utterance.drop()
            return True
        if not resumed:
            utterance.requeue()
        self._on_no_room(utterance, DEFAULT_WAIT_S if error.retry_after is None else error.retry_after)
        return True


def _refuses_begin(error: GatewayError) -> bool:
    return isinstance(error, _NOT_BEGUN) or any(
        violation.field.startswith("begin") for violation in error.field_violations
    )
