"""Stream of `AudioService.StreamAudio`: audio in, progress out."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import grpc

from liveavatar.gateway.v1 import audio_service_pb2 as p
from liveavatar.gateway.v1 import stream_pb2
from liveavatar_gateway.core.errors import (
    AudioGap,
    GatewayError,
    UnexpectedMessage,
    UtteranceIdle,
)
from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.speech.utterance import AudioInput, Utterance
from liveavatar_gateway.core.speech.words import TimedText, with_text
from liveavatar_gateway.rpc import mapping
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.errors import status_of
from liveavatar_gateway.rpc.heard_text import piece_of
from liveavatar_gateway.rpc.session_stream import SessionStream
from liveavatar_gateway.rpc.stream_reader import leave, wait_for_half_close
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.sessions.utterances import UtteranceProgress

Pace = Callable[[int], float]
"""Counts bytes of audio; returns the time for which no more may be read, seconds."""

_MAX_UNREAD: Final = 128
"""Utterances and answers that the caller has not read; above that, no more requests are read."""


_PACE_CHECK_S: Final = 1.0
"""Interval at which a paused reader asks for its quota again."""


class _Reported:
    """State of an utterance as the caller was sent it."""

    __slots__ = ("idle", "progress", "started", "underrun_count", "utterance")

    def __init__(self, utterance: Utterance) -> None:
        self.utterance = utterance
        self.started = False
        self.idle = False
        self.underrun_count = utterance.underrun_count
        self.progress: UtteranceProgress | None = None

    def ack(self, progress: UtteranceProgress) -> p.StreamAudioResponse | None:
        """Return an ack; None if the progress is the one that was sent last."""
        if progress == self.progress:
            return None
        self.progress = progress
        ack = p.AudioAck(
            utterance_id=self.utterance.id,
            received_bytes=progress.received_bytes,
            confirmed_bytes=progress.confirmed_bytes,
            played=mapping.duration(progress.played_s),
            credit_bytes=progress.credit_bytes,
            underrun_count=progress.underrun_count,
        )
        return p.StreamAudioResponse(ack=ack)


class AudioStream(SessionStream[p.StreamAudioResponse]):
    """Reader that passes audio on, and writer that reports its progress."""

    def __init__(
        self,
        session: SessionActor,
        audio_input: AudioInput,
        config: RpcConfig,
        context: grpc.aio.ServicerContext[Any, Any],
        *,
        pace: Pace | None,
    ) -> None:
        self._pace = pace
        self._utterances = session.utterances
        self._audio_input = audio_input
        self._open: Utterance | None = None
        self._gap_at: int | None = None
        self._reported: list[_Reported] = []
        self._answers: list[p.StreamAudioResponse] = []
        self._half_closed = False
        # No more requests are read from a caller that reads no answers.
        self._caught_up = asyncio.Event()
        self._over = False
        self._reading: asyncio.Future[None] | None = None
        # Id of the utterance whose `begin` was refused: what follows up to its `end` was on its way and is
        # dropped. None if the last `begin` was accepted.
        self._refused: str | None = None
        attachment = session.attachments.add_audio_stream(self._orphan)
        heartbeat = p.StreamAudioResponse(heartbeat=stream_pb2.Heartbeat())
        super().__init__(session, attachment, config, context, heartbeat=heartbeat)

    async def run(self) -> None:
        """Serve until every utterance has ended after the caller's last message.

        Raises:
            GatewayError: the stream's grammar was broken, another stream took over, or the session ended.
        """
        try:
            ready = p.AudioReady(
                session_id=self._session.id,
                credit_bytes=self._utterances.credit_bytes(self._audio_input),
                max_chunk_bytes=self._config.max_chunk_bytes,
                heartbeat_interval=self._heartbeat_interval,
            )
            await self._write_one(p.StreamAudioResponse(ready=ready))
            async with asyncio.TaskGroup() as tasks:
                name = f"session-{self._session.id}/progress"
                reading = self._reading = asyncio.ensure_future(self._read())
                writer = tasks.create_task(self._write(reading), name=name)
                await asyncio.shield(reading)
                self._orphan()
                self._half_closed = True
                self._attachment.wakeup.set()
                await writer
        finally:
            self._over = True
            # A reader that waits for its caller is not in a read that ends with the call.
            self._caught_up.set()
            if self._reading is not None:
                leave(self._reading)
            # However the stream ended, its caller may come back for an utterance that has not ended.
            self._orphan()
            self._attachment.release()

    def _orphan(self) -> None:
        """Let another stream continue the open utterance, if there is one."""
        if self._open is not None:
            self._utterances.orphan(self._open)
            self._open = None

    # --- requests: one coroutine, nothing per chunk but an append

    async def _read(self) -> None:
        # Five per cent cheaper than iteration, and a second of speech may have fifty chunks.
        read, pace = self._context.read, self._pace
        while (request := await read()) is not grpc.aio.EOF:
            if self._over or self._attachment.superseded is not None:
                # The later stream sends this again.
                return
            kind = request.WhichOneof("message")
            if kind == "chunk":
                self._receive(request.chunk)
                if pace is not None:
                    await self._pause(pace, pace(len(request.chunk.audio)))
                continue
            if kind == "heartbeat":
                continue
            if len(self._reported) + len(self._answers) >= _MAX_UNREAD:
                await self._catch_up()
                if self._over:
                    return
            self._handle(request, kind)

    async def _pause(self, pace: Pace, pause_s: float) -> None:
        """Wait until more audio may be read; a quota that is raised meanwhile ends the wait."""
        while pause_s > 0 and not self._over:
            step_s = min(pause_s, _PACE_CHECK_S)
            if self._open is not None:
                self._utterances.pause(self._open, step_s)
            await asyncio.sleep(step_s)
            # No longer than before, or streams of one tenant could keep each other waiting for ever.
            pause_s = min(pause_s - step_s, pace(0))

    def _handle(self, request: p.StreamAudioRequest, kind: str | None) -> None:
        """Handle a message that comes once in an utterance."""
        if kind == "begin":
            self._begin(request.begin)
        elif kind == "end":
            self._seal(self._require_open("end", request.end.utterance_id))
        elif kind == "timings":
            self._take_timings(request.timings)
        elif kind == "cancel":
            self._cancel(self._require_open("cancel", request.cancel.utterance_id))
        else:
            got = kind or "nothing"
            raise UnexpectedMessage(f"header comes first and once; got {got} here", field=got, got=got)

    async def _catch_up(self) -> None:
        """Wait until the caller has read something."""
        self._caught_up.clear()
        await self._caught_up.wait()

    def _begin(self, begin: p.BeginUtterance) -> None:
        if self._open is not None and not self._open.sealed:
            raise UnexpectedMessage(
                f"begin while utterance {self._open.id!r} is open; end or cancel it first",
                field="begin",
                utterance_id=self._open.id,
            )
        self._gap_at = None
        self._open = None
        self._refused = begin.utterance_id
        try:
            utterance_id = mapping.checked_id(begin.utterance_id, "begin.utterance_id", required=begin.resume)
            open_utterance = self._utterances.resume if begin.resume else self._utterances.begin
            found = open_utterance(utterance_id, self._audio_input, idle_timeout_s=mapping.idle_timeout_s(begin))
        except GatewayError as error:
            self._reject(begin.utterance_id, error, 0)
            return
        if isinstance(found, UtteranceEnded):
            self._answer_ended(found, begin)
            return
        self._refused = None
        self._open = found
        self._report(found, resumed=begin.resume)
        if begin.HasField("text"):
            self._add_text(found, piece_of(begin.text, first_item=0), "begin.text")

    def _report(self, utterance: Utterance, *, resumed: bool) -> None:
        """Report the progress of an utterance from now on; that of a resumed one at once."""
        reported = next((one for one in self._reported if one.utterance is utterance), None)
        if reported is None:
            reported = _Reported(utterance)
            self._reported.append(reported)
            # The writer may sleep without a limit, and acks are due long before the first sound.
            self._attachment.wakeup.set()
        if resumed:
            reported.progress = None
            if (ack := reported.ack(self._progress(utterance, time.monotonic()))) is not None:
                self._answer(ack)
            if utterance.failure is not None:
                reported.idle = True
                self._reject(utterance.id, utterance.failure, utterance.received)

    def _receive(self, chunk: p.AudioChunk) -> None:
        utterance = self._open
        named = chunk.utterance_id
        if named and (utterance is None or named != utterance.id):
            # The caller does not know yet that the named utterance has ended; its audio is not for the next one.
            self._utterances.drop_stale(len(chunk.audio))
            return
        if utterance is None:
            if self._refused is not None:
                self._utterances.drop_stale(len(chunk.audio))
                return
            raise UnexpectedMessage("chunk outside of an utterance; send begin first", field="chunk")
        try:
            offset = chunk.offset_bytes if chunk.HasField("offset_bytes") else None
            self._utterances.receive(utterance, offset, chunk.audio)
        except AudioGap as gap:
            # Once per gap: every chunk until the caller goes back has the same one.
            if self._gap_at != utterance.received:
                self._gap_at = utterance.received
                if self._answers and self._answers[-1].rejected.utterance_id == utterance.id:
                    # Not sent yet, and outdated: the caller must continue behind the earlier gap.
                    self._answers.pop()
                self._reject(utterance.id, gap, utterance.received)
        except GatewayError as error:
            self._utterances.seal(utterance, error)
            self._reject(utterance.id, error, utterance.received)

    def _take_timings(self, timings: p.TextTimings) -> None:
        named = timings.utterance_id
        if self._open is not None and named in ("", self._open.id):
            utterance: Utterance | None = self._open
        elif not named and self._refused is None:
            raise UnexpectedMessage("timings outside of an utterance; send begin first", field="timings")
        else:
            # A sealed utterance may still be spoken, and the timings of its end may come after its audio.
            utterance = self._utterances.find(named) if named else None
        if utterance is not None:
            self._add_text(utterance, piece_of(timings.text), "timings.text")

    def _add_text(self, utterance: Utterance, piece: TimedText, field: str) -> None:
        try:
            self._utterances.add_text(utterance, piece, field=field)
        except GatewayError as error:
            self._reject(utterance.id, error, utterance.received)

    def _answer_ended(self, ended: UtteranceEnded, begin: p.BeginUtterance) -> None:
        """Answer a `begin` that resumes an utterance which has ended, with the text of its timings."""
        if begin.HasField("text") and not ended.heard_text:
            try:
                ended = with_text(ended, piece_of(begin.text, first_item=0), field="begin.text")
            except GatewayError as error:
                self._reject(ended.utterance_id, error, 0)
        self._answer(_ended(ended))

    def _seal(self, utterance: Utterance | None) -> None:
        if utterance is not None:
            was_sealed = utterance.sealed
            self._utterances.seal(utterance)
            if utterance.failure is not None and not was_sealed:
                # An utterance this short is checked for a file header only once it is complete.
                self._reject(utterance.id, utterance.failure, utterance.received)
            self._open = None

    def _cancel(self, utterance: Utterance | None) -> None:
        if utterance is not None:
            self._utterances.cancel(utterance)
            self._open = None

    def _require_open(self, kind: str, named: str) -> Utterance | None:
        """Return the utterance that an `end` or `cancel` means; None if that is no longer open.

        Args:
            kind: The message, for errors.
            named: Id in the message; empty for the open utterance, whatever its id.
        """
        present = self._refused if self._open is None else self._open.id
        if named and named != present:
            return None
        if present is None:
            raise UnexpectedMessage(f"{kind} without an open utterance", field=kind)
        self._refused = None
        return self._open

    def _reject(self, utterance_id: str, error: GatewayError, received_bytes: int) -> None:
        self._answer(_rejected(utterance_id, error, received_bytes))

    def _answer(self, response: p.StreamAudioResponse) -> None:
        self._answers.append(response)
        self._attachment.wakeup.set()

    # --- responses: every change, and progress at most once per `ack_interval_s`

    async def _write(self, reading: asyncio.Future[None]) -> None:
        next_ack_s = 0.0
        while True:
            now_s = time.monotonic()
            with_acks = now_s >= next_ack_s
            if with_acks:
                next_ack_s = now_s + self._config.ack_interval_s
            for response in self._due(now_s, with_acks=with_acks):
                await self._write_one(response)
            self._caught_up.set()
            if self._attachment.superseded is not None:
                raise self._attachment.superseded
            if self._half_closed and not self._reported and not self._answers:
                return
            if self._half_closed and not any(reported.utterance.sealed for reported in self._reported):
                # All speech is over: the wait for another stream must not take longer than the detach grace.
                self._attachment.detach()
            if not self._reported and self._session.over:
                await wait_for_half_close(reading)
                if not reading.done():
                    self._session.require_alive()
            await self._wait_for_news(next_ack_s - time.monotonic() if self._reported else None)

    def _due(self, now_s: float, *, with_acks: bool) -> list[p.StreamAudioResponse]:
        responses, self._answers = self._answers, []
        for reported in list(self._reported):
            utterance = reported.utterance
            if utterance.started and not reported.started:
                reported.started = True
                responses.append(p.StreamAudioResponse(started=p.AudioStarted(utterance_id=utterance.id)))
            ran_dry = utterance.underrun_count != reported.underrun_count
            reported.underrun_count = utterance.underrun_count
            if with_acks or ran_dry or utterance.outcome:
                ack = reported.ack(self._progress(utterance, now_s))
                responses += [] if ack is None else [ack]
            if isinstance(utterance.failure, UtteranceIdle) and not reported.idle:
                reported.idle = True
                responses.append(_rejected(utterance.id, utterance.failure, utterance.received))
            if utterance.outcome is not None:
                self._reported.remove(reported)
                ended = UtteranceEnded(
                    utterance.id,
                    utterance.outcome,
                    utterance.played_s,
                    utterance.failure,
                    utterance.inferred,
                    utterance.dropped_tail_bytes,
                    utterance.repeated_s,
                    utterance.heard_text,
                )
                responses.append(_ended(ended))
        return responses

    def _progress(self, utterance: Utterance, now_s: float) -> UtteranceProgress:
        return self._utterances.progress(utterance, self._audio_input, now_s)


def _rejected(utterance_id: str, error: GatewayError, received_bytes: int) -> p.StreamAudioResponse:
    rejected = p.AudioRejected(utterance_id=utterance_id, error=status_of(error), received_bytes=received_bytes)
    return p.StreamAudioResponse(rejected=rejected)


def _ended(ended: UtteranceEnded) -> p.StreamAudioResponse:
    message = p.AudioEnded(
        utterance_id=ended.utterance_id,
        outcome=mapping.outcome(ended.outcome),
        played=mapping.duration(ended.played_s),
        error=status_of(ended.error) if ended.error else None,
        inferred=ended.inferred,
        dropped_tail_bytes=ended.dropped_tail_bytes,
        repeated=mapping.duration(ended.repeated_s),
        heard_text=ended.heard_text,
    )
    return p.StreamAudioResponse(ended=message)
