"""A session with the gateway, over gRPC: `Attach` or `CreateSession`, and one `StreamAudio`."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from google.protobuf.duration_pb2 import Duration

from liveavatar.gateway.channel import CallOptions, Connection, Stream, answer
from liveavatar.gateway.credit import CreditAccount
from liveavatar.gateway.errors import GatewayError
from liveavatar.gateway.refusals import from_status
from liveavatar.gateway.v1 import (
    audio_pb2,
    session_pb2,
    session_service_pb2,
)
from liveavatar.gateway.v1 import audio_service_pb2 as audio
from load.figures import System
from load.keys import Metadata
from load.pipe import open_pipe
from load.recorder import LoadRecorder
from load.session import ANSWER_WITHIN_S, OPEN_WITHIN_S, Failure, Session, Utterance, until
from load.speech import Voice

AVATAR_ID: Final = "dd73ea75-1218-4ef3-92ce-606d5f7fbc0a"
CONNECTION_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each channel, not one for all
    ("grpc.http2.bdp_probe", 0),
    ("grpc.enable_retries", 0),  # a call that had to be repeated is a failure here
)

_DETACH_GRACE_S: Final = 10
# Sessions of a killed generator end this soon.
_OUTCOMES: Final = {
    audio_pb2.UTTERANCE_OUTCOME_COMPLETED: "completed",
    audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED: "interrupted",
}


class GatewaySession(Session):
    """Session with the gateway, opened and steered by `Attach` if `attached`, else by unary calls."""

    system: System = "gateway"

    def __init__(self, connection: Connection, recorder: LoadRecorder, voice: Voice, *, attached: bool) -> None:
        super().__init__(recorder, voice)
        self.metadata: Metadata = ()
        """Metadata of every call: the credential of the caller."""
        self.tenant = ""
        """Tenant of the session, as the gateway names it; empty before the session is open."""
        self._connection = connection
        self._attached = attached
        self._session_id = ""
        self._ended = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._attach: Stream[Any, Any] | None = None
        self._audio: _AudioCall | None = None
        self._opened: asyncio.Future[Any] = _future()
        self._ready: asyncio.Future[None] = _future()
        self._over: asyncio.Future[None] = _future()
        self._audio_ready: asyncio.Future[Any] = _future()
        self._results: dict[str, asyncio.Future[Any]] = {}
        self._command_ids = itertools.count(1)
        self._by_id: dict[str, Utterance] = {}
        self._credit = CreditAccount(0)
        self._credit_came: asyncio.Future[None] | None = None
        self._audio_opened_s = 0.0
        self._queued_at_s: float | None = None

    async def open(self) -> None:
        """Open the session; its avatar can speak when this returns.

        Raises:
            Failure: it was refused, or did not come in time.
        """
        spec = session_pb2.SessionSpec(avatar_id=AVATAR_ID, detach_grace=Duration(seconds=_DETACH_GRACE_S))
        if self._attached:
            await self._open_attached(spec)
        else:
            request = session_service_pb2.CreateSessionRequest(spec=spec)
            created = await self._call(
                self._connection.sessions.CreateSession(request, **self._options(OPEN_WITHIN_S))
            )
            self._note(created.session)

    async def _open_attached(self, spec: session_pb2.SessionSpec) -> None:
        self._attach = Stream(self._connection.sessions.Attach(metadata=self.metadata))
        self._start(self._read_events(self._attach))
        request = session_service_pb2.OpenSession(spec=spec)
        await self._attach.write(session_service_pb2.AttachRequest(open=request))
        opened = await self.waits.answer("session opened", self._opened, OPEN_WITHIN_S)
        self._note(opened.session)
        await self.waits.answer("session ready", self._ready, OPEN_WITHIN_S)

    def _note(self, session: session_pb2.Session) -> None:
        self._session_id = session.id
        self.upstream_id = session.upstream_session_id
        self.tenant = session.tenant

    async def look_up(self) -> None:
        """Ask the gateway for the session, and record how long the answer takes.

        Raises:
            Failure: the call failed.
        """
        began_s = time.monotonic()
        request = session_service_pb2.GetSessionRequest(session_id=self._session_id)
        await self._call(self._connection.sessions.GetSession(request, **self._options(ANSWER_WITHIN_S)))
        self.recorder.record(self.system, "unary call", time.monotonic() - began_s)

    async def _open_audio(self) -> None:
        self._audio_opened_s = time.monotonic()
        self._audio = await self._dial()
        header = audio.AudioHeader(session_id=self._session_id)
        await self._audio.write(audio.StreamAudioRequest(header=header))
        ready = await self.waits.answer("audio ready", self._audio_ready, ANSWER_WITHIN_S)
        self.recorder.record(self.system, "attach", time.monotonic() - self._audio_opened_s)
        self._credit = CreditAccount(ready.credit_bytes)

    async def _dial(self) -> "_AudioCall":
        stream = Stream(self._connection.audio.StreamAudio(metadata=self.metadata))
        self._start(self._read_audio(stream))
        return stream

    async def listen(self, from_s: float, to_s: float) -> None:
        """Show the listening pose for a time; without `Attach` only wait."""
        await until(from_s)
        if self._attached:
            await self._command(start_listening=session_service_pb2.StartListening())
        await until(to_s)
        if self._attached:
            await self._command(stop_listening=session_service_pb2.StopListening())

    async def _begin(self, utterance: Utterance) -> None:
        if self._audio is None:
            await self._open_audio()
        self._by_id[utterance.id] = utterance
        self._credit.begin(utterance.id)
        await self._send(audio.StreamAudioRequest(begin=audio.BeginUtterance(utterance_id=utterance.id)))

    async def _write(self, utterance: Utterance, chunk: bytes) -> None:
        self._credit.sent(utterance.id, utterance.sent_bytes)
        await self._send(audio.StreamAudioRequest(chunk=audio.AudioChunk(utterance_id=utterance.id, audio=chunk)))

    async def _seal(self, utterance: Utterance) -> None:
        await self._send(audio.StreamAudioRequest(end=audio.EndUtterance(utterance_id=utterance.id)))

    async def _send(self, message: audio.StreamAudioRequest) -> None:
        assert self._audio is not None
        if not await self._audio.write(message):
            await self._raise_lost()

    def _room(self) -> int:
        return self._credit.available_bytes

    async def _wait_for_room(self, utterance: Utterance, size_bytes: int) -> None:
        while self._room() < size_bytes and utterance.outcome is None:
            self._credit_came = _future()
            await self.waits.answer("credit", self._credit_came, ANSWER_WITHIN_S)

    async def interrupt(self, utterance: Utterance, *, how: str = "command") -> None:
        """Wait for the utterance's `interrupt_s` and interrupt it, unless it ends before.

        Args:
            utterance: Utterance with `interrupt_s`.
            how: `command` and `unnamed` go over `Attach` (the latter interrupts queued utterances too), `unary` is
                `InterruptSession`, `cancel` is for the utterance that is open on the audio stream.
        """
        assert utterance.interrupt_s is not None
        await _either(until(utterance.interrupt_s), utterance.over)
        if how == "cancel" and not utterance.sealed:
            await self._send(audio.StreamAudioRequest(cancel=audio.CancelUtterance(utterance_id=utterance.id)))
            utterance.sealed = True
            return
        if utterance.outcome is None:
            if how == "unary" or not self._attached:
                request = session_service_pb2.InterruptSessionRequest(
                    session_id=self._session_id, utterance_id=utterance.id
                )
                await self._call(
                    self._connection.sessions.InterruptSession(request, **self._options(ANSWER_WITHIN_S))
                )
            else:
                named = "" if how == "unnamed" else utterance.id
                await self._command(interrupt=session_service_pb2.Interrupt(utterance_id=named))
        if not utterance.sealed:
            # The end was not sent yet; the gateway accepts it also for an interrupted utterance.
            await self._seal(utterance)
            utterance.sealed = True

    async def _command(self, **command: Any) -> None:
        assert self._attach is not None
        command_id = f"c{next(self._command_ids)}"
        self._results[command_id] = _future()
        request = session_service_pb2.SessionCommand(id=command_id, **command)
        if not await self._attach.write(session_service_pb2.AttachRequest(command=request)):
            await self._raise_lost()
        name = next(iter(command))
        try:
            result = await self.waits.answer(f"{name} carried out", self._results[command_id], ANSWER_WITHIN_S)
        finally:
            del self._results[command_id]
        if result.status.code:
            raise _failure(from_status(result.status))

    async def end(self) -> None:
        """End the session and wait until the gateway has ended it upstream."""
        self._ended = True
        with contextlib.suppress(Failure, GatewayError):
            if self._attached and self.waits.failure is None and self._attach is not None and self._session_id:
                await self._end_attached()
        if self._session_id and not self._over.done():
            request = session_service_pb2.EndSessionRequest(session_id=self._session_id)
            try:
                await answer(self._connection.sessions.EndSession(request, **self._options(ANSWER_WITHIN_S)))
            except GatewayError as error:
                # A session that failed before is counted already.
                if self.waits.failure is None:
                    self.recorder.failed(self.system, f"END: {_reason(error)}", took_s=0.0)
        for stream in (self._audio, self._attach):
            if stream is not None:
                stream.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._audio is not None:
            self.recorder.record(self.system, "stream lifetime", time.monotonic() - self._audio_opened_s)

    async def _end_attached(self) -> None:
        assert self._attach is not None
        if self._audio is not None:
            await self._audio.finish_writing()
        request = session_service_pb2.SessionCommand(id="end", end=session_service_pb2.End())
        if await self._attach.write(session_service_pb2.AttachRequest(command=request)):
            await self.waits.answer("session ended", self._over, ANSWER_WITHIN_S)

    async def _read_events(self, stream: Stream[Any, Any]) -> None:
        try:
            while (message := await stream.read()) is not None:
                kind = message.WhichOneof("message")
                if kind == "event":
                    self._on_event(message.event)
                elif kind == "command_result":
                    _resolve(self._results.get(message.command_result.id), message.command_result)
                elif kind == "queue_position" and self._queued_at_s is None:
                    self._queued_at_s = time.monotonic()
                elif kind == "opened":
                    if self._queued_at_s is not None:
                        self.recorder.record(self.system, "queue wait", time.monotonic() - self._queued_at_s)
                    _resolve(self._opened, message.opened)
            _resolve(self._over, None)
            self.waits.fail(Failure("ATTACH_CLOSED", "the gateway closed the event stream"))
        except GatewayError as error:
            self.waits.fail(_failure(error))

    def _on_event(self, event: session_service_pb2.SessionEvent) -> None:
        kind = event.WhichOneof("event")
        if kind == "state_changed" and event.state_changed.state == session_pb2.SESSION_STATE_READY:
            _resolve(self._ready, None)
        elif kind == "ended":
            _resolve(self._over, None)
            if not self._ended:
                reason = session_pb2.EndReason.Name(event.ended.session.end_reason).removeprefix("END_REASON_")
                error = _failure(from_status(event.ended.error)) if event.ended.HasField("error") else None
                self.waits.fail(error or Failure(reason, "the session ended against the caller's will"))

    async def _read_audio(self, stream: Stream[Any, Any]) -> None:
        try:
            while (message := await stream.read()) is not None:
                self._on_audio(message, time.monotonic())
            if not self._ended:
                self.waits.fail(Failure("AUDIO_CLOSED", "the gateway closed the audio stream"))
        except GatewayError as error:
            self.waits.fail(_failure(error))

    def _on_audio(self, message: audio.StreamAudioResponse, now_s: float) -> None:
        kind = message.WhichOneof("message")
        if kind == "ack":
            ack = message.ack
            self._credit.ack(ack.utterance_id, ack.received_bytes, ack.credit_bytes)
            _resolve(self._credit_came, None)
            if (utterance := self._by_id.get(ack.utterance_id)) is not None:
                self._note_acked(utterance, ack.received_bytes, now_s)
        elif kind == "started":
            if (utterance := self._by_id.get(message.started.utterance_id)) is not None:
                self._note_started(utterance, now_s)
        elif kind == "ended":
            self._on_ended(message.ended)
        elif kind == "rejected":
            self.waits.fail(_failure(from_status(message.rejected.error)))
        elif kind == "ready":
            _resolve(self._audio_ready, message.ready)

    def _on_ended(self, ended: audio.AudioEnded) -> None:
        utterance = self._by_id.pop(ended.utterance_id, None)
        if utterance is None:
            self.waits.fail(
                Failure("ENDED_TWICE", f"utterance {ended.utterance_id!r} is over already or never was")
            )
            return
        self._credit.forget(utterance.id)
        _resolve(self._credit_came, None)
        outcome: Any = _OUTCOMES.get(ended.outcome, "failed")
        utterance.end(outcome)
        if outcome == "failed":
            self.waits.fail(_failure(from_status(ended.error)))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self.waits.done)
        self._tasks.add(task)

    def _options(self, timeout_s: float) -> CallOptions:
        return {"timeout": timeout_s, "metadata": self.metadata}

    async def _call(self, call: Any) -> Any:
        try:
            return await answer(call)
        except GatewayError as error:
            raise _failure(error) from error

    async def _raise_lost(self) -> None:
        """Raise the reason why a stream ended, which its reader knows or learns at once."""
        await self.waits.answer("status of the lost stream", _future(), ANSWER_WITHIN_S)


class _AudioCall(Protocol):
    """Open `StreamAudio` call."""

    async def write(self, message: audio.StreamAudioRequest, /) -> bool:
        """Send a message; False when the call is over."""

    async def finish_writing(self) -> None:
        """Half-close."""

    def cancel(self) -> None:
        """Cancel the call."""


class LeanSession(GatewaySession):
    """Session with audio over `AudioPipe`, at little cost to this process, for measuring capacity."""

    def __init__(
        self, connection: Connection, target: str, recorder: LoadRecorder, voice: Voice, *, attached: bool = False
    ) -> None:
        super().__init__(connection, recorder, voice, attached=attached)
        self._target = target

    async def _dial(self) -> _AudioCall:
        try:
            return await open_pipe(self._target, self._on_pipe_message, self._on_pipe_closed, self.metadata)
        except OSError as error:
            raise Failure("UNAVAILABLE", f"{self._target}: {error}") from error

    def _on_pipe_message(self, message: audio.StreamAudioResponse) -> None:
        self._on_audio(message, time.monotonic())

    def _on_pipe_closed(self) -> None:
        if not self._ended:
            self.waits.fail(Failure("AUDIO_CLOSED", "the audio stream was closed"))


def _future() -> "asyncio.Future[Any]":
    return asyncio.get_running_loop().create_future()


def _resolve(future: "asyncio.Future[Any] | None", value: object) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _failure(error: GatewayError) -> Failure:
    return Failure(_reason(error), error.message)


def _reason(error: GatewayError) -> str:
    """Return the gateway's reason, or the status of an error that did not come from the gateway."""
    return error.reason or error.code.name


async def _either(waiting: Coroutine[Any, Any, None], over: "asyncio.Future[Any]") -> None:
    task = asyncio.ensure_future(waiting)
    try:
        await asyncio.wait({task, over}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
