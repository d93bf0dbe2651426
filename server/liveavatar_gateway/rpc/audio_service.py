"""`AudioService.StreamAudio`: speech up, progress down."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from liveavatar.gateway.v1 import audio_service_pb2 as p
from liveavatar.gateway.v1 import stream_pb2
from liveavatar.gateway.v1.audio_service_pb2_grpc import AudioServiceServicer
from liveavatar_gateway.core.errors import (
    AudioGap,
    AudioStreamSuperseded,
    GatewayError,
    HeaderRequired,
    InvalidField,
    SessionEnded,
    UnexpectedMessage,
    UtteranceIdle,
)
from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.speech.utterance import AudioInput, Utterance
from liveavatar_gateway.core.states import Outcome
from liveavatar_gateway.rpc import mapping as convert
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.errors import answered, status_of
from liveavatar_gateway.rpc.heartbeat import Silence
from liveavatar_gateway.rpc.stream_reader import first, leave, part
from liveavatar_gateway.sessions.audio_input import audio_input_of
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.session import SessionActor

_Context = grpc.aio.ServicerContext[Any, Any]
_MAX_UNREAD: Final = 128
"""Utterances and answers that wait to be told; above that no more are read."""


class AudioService(AudioServiceServicer):
    """Speaks for the sessions in a directory."""

    def __init__(self, config: RpcConfig, directory: Directory) -> None:
        self._config = config
        self._directory = directory

    async def StreamAudio(  # type: ignore[override]  # noqa: N802, D102 - named and described in the contract
        self,
        request_iterator: AsyncIterator[p.StreamAudioRequest],  # noqa: ARG002 - `context.read` is cheaper
        context: _Context,
    ) -> None:
        async with answered(context):
            message = await first(context.read(), self._config.first_message_timeout_s)
            kind = None if message is grpc.aio.EOF else message.WhichOneof("message")
            if kind != "header":
                raise HeaderRequired(
                    f"the first message must be header, got {kind or 'nothing'}", field="header", got=kind or ""
                )
            session = await self._target(message.header)
            intake = self._intake(message.header)
            await AudioStream(session, intake, self._config, context).run()

    async def _target(self, header: p.AudioHeader) -> SessionActor:
        match header.WhichOneof("target"):
            case "session_id":
                session_id = convert.checked_id(header.session_id, "header.session_id", required=True)
                session = await self._directory.get(session_id)
            case "handle":
                session = await self._directory.by_handle(header.handle, field="header.handle")
            case _:
                raise InvalidField("the header must name its session", field="header.target")
        _require_alive(session)
        return session

    def _intake(self, header: p.AudioHeader) -> AudioInput:
        return audio_input_of(convert.format_of(header.format), max_chunk_bytes=self._config.max_chunk_bytes)


class _Told:
    """What the caller knows of an utterance."""

    __slots__ = ("ack", "idle", "started", "underrun_count", "utterance")

    def __init__(self, utterance: Utterance) -> None:
        self.utterance = utterance
        self.started = False
        self.idle = False
        self.underrun_count = utterance.underrun_count
        self.ack: tuple[int, int, float, int, int] | None = None


class AudioStream:
    """One `StreamAudio` stream. The reader takes audio in, the writer tells how far it came."""

    def __init__(self, session: SessionActor, intake: AudioInput, config: RpcConfig, context: _Context) -> None:
        self._session = session
        self._intake = intake
        self._config = config
        self._context = context
        self._open: Utterance | None = None
        self._gap_at: int | None = None
        self._told: list[_Told] = []
        self._answers: list[p.StreamAudioResponse] = []
        self._source_ended = False
        self._silence = Silence(config.heartbeat_s)
        # A caller that begins utterances and reads no answers is not read any more itself.
        self._caught_up = asyncio.Event()
        self._over = False
        self._reading: asyncio.Future[None] | None = None
        # Name of the utterance whose `begin` opened nothing: what follows up to its `end` was on its way and is
        # dropped. None when the last `begin` was taken.
        self._refused: str | None = None
        self._hold = session.holds.speak(AudioStreamSuperseded(session.id), self._leave_open)

    async def run(self) -> None:
        """Serve until all that was begun has ended after the caller's last message.

        Raises:
            GatewayError: the stream's grammar was broken, another took over, or the session ended.
        """
        try:
            ready = p.AudioReady(
                session_id=self._session.id,
                credit_bytes=self._session.core.speech.credit_bytes(self._intake),
                max_chunk_bytes=self._config.max_chunk_bytes,
                heartbeat_interval=self._silence.announced,
            )
            await self._write_one(p.StreamAudioResponse(ready=ready))
            async with asyncio.TaskGroup() as tasks:
                name = f"session-{self._session.id}/progress"
                reading = self._reading = asyncio.ensure_future(self._read())
                writer = tasks.create_task(self._write(reading), name=name)
                await asyncio.shield(reading)
                self._leave_open()
                self._source_ended = True
                self._hold.signal.set()
                await writer
        finally:
            self._over = True
            # A reader that waits for its caller is not in a read that ends with the call.
            self._caught_up.set()
            if self._reading is not None:
                leave(self._reading)
            # Whatever ended the stream: its caller may come back for an utterance without its end.
            self._leave_open()
            self._hold.release()

    def _leave_open(self) -> None:
        if self._open is not None:
            self._session.leave_open(self._open)
            self._open = None

    # --- up: one coroutine, nothing per chunk but an append

    async def _read(self) -> None:
        # A twentieth cheaper than iterating, and there are fifty of these per second of speech.
        read = self._context.read
        while (request := await read()) is not grpc.aio.EOF:
            if self._over or self._hold.superseded is not None:
                # What was on its way here is for the stream that took over to send.
                return
            kind = request.WhichOneof("message")
            if kind == "chunk":
                self._take(request.chunk)
                continue
            if kind == "heartbeat":
                continue
            if len(self._told) + len(self._answers) >= _MAX_UNREAD:
                await self._catch_up()
                if self._over:
                    return
            if kind == "begin":
                self._begin(request.begin)
            elif kind == "end":
                self._seal(self._require_open("end", request.end.utterance_id))
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
            utterance_id = convert.checked_id(begin.utterance_id, "begin.utterance_id", required=begin.resume)
            idle_timeout_s = convert.idle_timeout_s(begin)
            if begin.resume:
                found = self._session.resume(utterance_id, self._intake, idle_timeout_s=idle_timeout_s)
            else:
                found = self._session.begin(utterance_id, self._intake, idle_timeout_s=idle_timeout_s)
        except GatewayError as error:
            self._reject(begin.utterance_id, error, 0)
            return
        if isinstance(found, UtteranceEnded):
            self._answer(
                ended=_ended(
                    found.utterance_id,
                    found.outcome,
                    found.played_s,
                    found.error,
                    found.inferred,
                    dropped_tail_bytes=found.dropped_tail_bytes,
                )
            )
            return
        self._refused = None
        self._open = found
        self._tell_of(found, resumed=begin.resume)

    def _tell_of(self, utterance: Utterance, *, resumed: bool) -> None:
        """From now on tell how far an utterance comes; one that is resumed is told of at once."""
        told = next((one for one in self._told if one.utterance is utterance), None)
        if told is None:
            told = _Told(utterance)
            self._told.append(told)
            # The writer may sleep without an end: an utterance whose first sound is far off is acknowledged too.
            self._hold.signal.set()
        if resumed:
            told.ack = None
            ack = self._ack(told, time.monotonic())
            self._answer(ack=ack)
            if utterance.failure is not None:
                told.idle = True
                self._reject(utterance.id, utterance.failure, utterance.received)

    def _take(self, chunk: p.AudioChunk) -> None:
        utterance = self._open
        named = chunk.utterance_id
        if named and (utterance is None or named != utterance.id):
            # Its writer was blocked while that utterance was cut, and did not know yet: not for the one after it.
            self._session.drop_stale(len(chunk.audio))
            return
        if utterance is None:
            if self._refused is not None:
                self._session.drop_stale(len(chunk.audio))
                return
            raise UnexpectedMessage("chunk outside of an utterance; send begin first", field="chunk")
        try:
            offset = chunk.offset_bytes if chunk.HasField("offset_bytes") else None
            self._session.receive(utterance, offset, chunk.audio)
        except AudioGap as gap:
            # Once per hole: all that follows until the caller goes back has the same one.
            if self._gap_at != utterance.received:
                self._gap_at = utterance.received
                if self._answers and self._answers[-1].rejected.utterance_id == utterance.id:
                    # An earlier hole of it, not told yet: the caller is to go on behind it anyway.
                    self._answers.pop()
                self._reject(utterance.id, gap, utterance.received)
        except GatewayError as error:
            self._session.seal(utterance, error)
            self._reject(utterance.id, error, utterance.received)

    def _seal(self, utterance: Utterance | None) -> None:
        if utterance is not None:
            was_sealed = utterance.sealed
            self._session.seal(utterance)
            if utterance.failure is not None and not was_sealed:
                # Too short to be told from a file before: judged only now that it is whole.
                self._reject(utterance.id, utterance.failure, utterance.received)
            self._open = None

    def _cancel(self, utterance: Utterance | None) -> None:
        if utterance is not None:
            self._session.cancel(utterance)
            self._open = None

    def _require_open(self, kind: str, named: str) -> Utterance | None:
        """Return the utterance that an `end` or `cancel` means; None when it means none that is open.

        Args:
            kind: Which of the two, for errors.
            named: The utterance that the message names; empty for whichever is open.
        """
        present = self._refused if self._open is None else self._open.id
        if named and named != present:
            return None
        if present is None:
            raise UnexpectedMessage(f"{kind} without an open utterance", field=kind)
        self._refused = None
        return self._open

    def _reject(self, utterance_id: str, error: GatewayError, received: int) -> None:
        self._answer(rejected=_rejected(utterance_id, error, received))

    def _answer(self, **message: Any) -> None:
        self._answers.append(p.StreamAudioResponse(**message))
        self._hold.signal.set()

    # --- down: what changed, at most every `ack_interval_s` for mere progress

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
            if self._hold.superseded is not None:
                raise self._hold.superseded
            if self._source_ended and not self._told:
                return
            if self._source_ended and not any(told.utterance.sealed for told in self._told):
                # Nothing is left to speak: waiting for another stream must not take longer than the detach grace.
                self._hold.detach()
            if not self._told and self._session.core.over:
                await part(reading)
                if not reading.done():
                    _require_alive(self._session)
            await self._hold.signal.wait(self._wait_s(next_ack_s))
            if self._silence.is_too_long:
                await self._write_one(p.StreamAudioResponse(heartbeat=stream_pb2.Heartbeat()))

    def _wait_s(self, next_ack_s: float) -> float | None:
        """Return how long there is nothing to do unless something happens; None for ever."""
        ack_s = next_ack_s - time.monotonic() if self._told else None
        return min((left_s for left_s in (ack_s, self._silence.left_s) if left_s is not None), default=None)

    async def _write_one(self, response: p.StreamAudioResponse) -> None:
        await self._context.write(response)
        self._silence.broken()

    def _due(self, now_s: float, *, with_acks: bool) -> list[p.StreamAudioResponse]:
        responses, self._answers = self._answers, []
        for told in list(self._told):
            utterance = told.utterance
            if utterance.started and not told.started:
                told.started = True
                responses.append(p.StreamAudioResponse(started=p.AudioStarted(utterance_id=utterance.id)))
            ran_dry = utterance.underrun_count != told.underrun_count
            told.underrun_count = utterance.underrun_count
            if (with_acks or ran_dry or utterance.outcome) and (ack := self._ack(told, now_s)) is not None:
                responses.append(p.StreamAudioResponse(ack=ack))
            if isinstance(utterance.failure, UtteranceIdle) and not told.idle:
                told.idle = True
                rejected = _rejected(utterance.id, utterance.failure, utterance.received)
                responses.append(p.StreamAudioResponse(rejected=rejected))
            if utterance.outcome is not None:
                self._told.remove(told)
                ended = _ended(
                    utterance.id,
                    utterance.outcome,
                    utterance.played_s,
                    utterance.failure,
                    utterance.inferred,
                    dropped_tail_bytes=utterance.dropped_tail_bytes,
                )
                responses.append(p.StreamAudioResponse(ended=ended))
        return responses

    def _ack(self, told: _Told, now_s: float) -> p.AudioAck | None:
        speech, utterance = self._session.core.speech, told.utterance
        played_s = utterance.position_s(speech.clock, now_s)
        credit = speech.credit_bytes(self._intake)
        state = (utterance.received, speech.confirmed_bytes(utterance), played_s, credit, utterance.underrun_count)
        if state == told.ack:
            return None
        told.ack = state
        return p.AudioAck(
            utterance_id=utterance.id,
            received_bytes=state[0],
            confirmed_bytes=state[1],
            played=convert.duration(played_s),
            credit_bytes=credit,
            underrun_count=utterance.underrun_count,
        )


def _rejected(utterance_id: str, error: GatewayError, received: int) -> p.AudioRejected:
    return p.AudioRejected(utterance_id=utterance_id, error=status_of(error), received_bytes=received)


def _ended(
    utterance_id: str,
    outcome: Outcome,
    played_s: float,
    error: GatewayError | None,
    inferred: bool,  # noqa: FBT001 - as in the event
    *,
    dropped_tail_bytes: int,
) -> p.AudioEnded:
    return p.AudioEnded(
        utterance_id=utterance_id,
        outcome=convert.outcome(outcome),
        played=convert.duration(played_s),
        error=status_of(error) if error else None,
        inferred=inferred,
        dropped_tail_bytes=dropped_tail_bytes,
    )


def _require_alive(session: SessionActor) -> None:
    core = session.core
    if core.over:
        raise SessionEnded(session.id, core.end_reason.value if core.end_reason else "", core.upstream_reason)
