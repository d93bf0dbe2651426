"""One living session: drives the state machine of `core` with a socket, a clock and tasks."""

import asyncio
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from liveavatar_gateway.core.errors import AttachSuperseded, Draining, GatewayError, InternalError, SessionEnded
from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.messages import Event, Speak
from liveavatar_gateway.core.session import Session, SessionConfig
from liveavatar_gateway.core.states import EndReason, SessionState
from liveavatar_gateway.core.utterance import Intake, Utterance
from liveavatar_gateway.sessions.signal import Signal
from liveavatar_gateway.telemetry.metrics import SOCKET_CLOSED, Metrics
from liveavatar_gateway.upstream.model import AvatarRequest, Started
from liveavatar_gateway.upstream.pool import Pool, UpstreamSession
from liveavatar_gateway.upstream.socket import CommandSocket, SocketClosed

_log = structlog.get_logger(__name__)


def _new_id() -> str:
    return str(uuid.uuid4())


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a caller asked for."""

    avatar: AvatarRequest
    detach_grace_s: float
    """How long it lives while nobody holds it."""
    labels: Mapping[str, str] = field(default_factory=dict)


class Hold:
    """One stream's (or waiting call's) grip on a session. While there is one, the session is not abandoned."""

    def __init__(self, session: "LiveSession", signal: Signal) -> None:
        self._session = session
        self.signal = signal
        self.superseded: GatewayError | None = None

    def supersede(self, error: GatewayError) -> None:
        """Tell the holder that another took its part."""
        self.superseded = error
        self.signal.set()

    def release(self) -> None:
        """Let go. Idempotent."""
        self._session.let_go(self)


class LiveSession:
    """A session from its creation to its last event.

    `run` is its one task and its only writer upstream; all other methods are called from the same loop and only
    change the state machine and wake that task. Whatever ends `run`, the session is stopped upstream.
    """

    def __init__(self, spec: Spec, config: SessionConfig, pool: Pool, metrics: Metrics) -> None:
        self.spec = spec
        self.core = Session(_new_id(), config, new_id=_new_id, utc_now=_utc_now)
        self.handle = f"{self.core.id}.{secrets.token_urlsafe(24)}"
        self.started: Started | None = None
        self.started_at: datetime | None = None
        self.draining_until: datetime | None = None
        self.finished = asyncio.Event()
        self._pool = pool
        self._metrics = metrics
        self._meter = metrics.session()
        self._driver = Signal()
        self._holds: set[Hold] = set()
        self._attach: Hold | None = None
        self._audio: Hold | None = None
        self._tickets: dict[int, asyncio.Future[list[UtteranceEnded]]] = {}
        self._told = 0
        self._grace_timer: asyncio.TimerHandle | None = None
        self._creation: asyncio.Task[UpstreamSession] | None = None

    # --- who holds it

    @property
    def id(self) -> str:
        """The gateway's id of the session."""
        return self.core.id

    @property
    def attached(self) -> bool:
        """Whether an `Attach` stream holds it."""
        return self._attach is not None

    @property
    def last_command_at_s(self) -> float:
        """Monotonic time of the last command upstream."""
        return self.core.last_command_at_s

    def hold(self) -> Hold:
        """Keep the session from being abandoned, until `release`."""
        hold = Hold(self, Signal())
        self._holds.add(hold)
        self._stop_grace()
        return hold

    def attach(self) -> Hold:
        """Hold it as its `Attach` stream; an earlier one is superseded."""
        if self._attach is not None:
            self._attach.supersede(AttachSuperseded(self.id))
        self._attach = self.hold()
        return self._attach

    def hold_audio(self, error_for_earlier: GatewayError) -> Hold:
        """Hold it as its `StreamAudio` stream; an earlier one is superseded."""
        if self._audio is not None:
            self._audio.supersede(error_for_earlier)
        self._audio = self.hold()
        return self._audio

    def let_go(self, hold: Hold) -> None:
        """Called by `Hold.release`. Without any hold the session lives for its detach grace."""
        self._holds.discard(hold)
        self._attach = None if self._attach is hold else self._attach
        self._audio = None if self._audio is hold else self._audio
        if not self._holds and not self.core.over:
            self._stop_grace()
            loop = asyncio.get_running_loop()
            self._grace_timer = loop.call_later(self.spec.detach_grace_s, self._abandon)

    def _stop_grace(self) -> None:
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = None

    def _abandon(self) -> None:
        _log.info("session.abandoned", session=self.id, grace_s=self.spec.detach_grace_s)
        self.end(EndReason.CALLER_LOST)

    # --- what callers do

    def begin(self, utterance_id: str, intake: Intake) -> Utterance:
        """Open an utterance.

        Raises:
            Draining, SessionEnded, UtteranceIdReused, CapacityExhausted: it was not opened.
        """
        if self.draining_until is not None and not self.core.over:
            raise Draining
        utterance = self.core.begin(utterance_id, intake)
        self._meter.begun(utterance.id)
        return utterance

    def receive(self, utterance: Utterance, offset: int | None, audio: bytes) -> None:
        """Take a chunk. This is the hot path: an append, and a wake-up when a packet is due.

        Raises:
            CallerError, CreditExceeded: nothing was taken.
        """
        if self.core.speech.receive(utterance, offset, audio, time.monotonic()):
            self._driver.set()

    def seal(self, utterance: Utterance, failure: GatewayError | None = None) -> None:
        """Take no more audio for an utterance; it is spoken to its end."""
        self.core.seal(utterance, failure)
        self._driver.set()

    def cancel(self, utterance: Utterance) -> None:
        """Drop an utterance, or cut it if it is being spoken."""
        self.core.cancel(utterance)
        self._driver.set()

    async def interrupt(self, utterance_id: str) -> list[UtteranceEnded]:
        """Barge-in; returns what was cut when LiveAvatar has done it, or has not answered in time.

        Raises:
            SessionEnded, UtteranceNotFound: nothing was cut.
        """
        ticket = self.core.interrupt(utterance_id)
        answer: asyncio.Future[list[UtteranceEnded]] = asyncio.get_running_loop().create_future()
        self._tickets[ticket] = answer
        self._driver.set()
        self._tell()
        asked_s = time.monotonic()
        try:
            ended = await answer
            self._metrics.interrupted(time.monotonic() - asked_s)
            return ended
        finally:
            self._tickets.pop(ticket, None)

    def listen(self) -> None:
        """Take the attentive pose.

        Raises:
            SessionEnded: it cannot.
        """
        self.core.listen()
        self._driver.set()

    def stop_listening(self) -> None:
        """Go back to the idle pose.

        Raises:
            SessionEnded: it cannot.
        """
        self.core.stop_listening()
        self._driver.set()

    def keep_alive(self) -> None:
        """Send a keep-alive."""
        self.core.keep_alive()
        self._driver.set()

    def go_away(self, deadline: datetime) -> None:
        """Announce that this process shuts down: no new utterances, and the session ends by `deadline`."""
        self.draining_until = deadline
        self._wake_holders()

    def end(self, reason: EndReason, *, error: GatewayError | None = None) -> None:
        """Begin to end; `finished` is set when LiveAvatar has stopped it."""
        self.core.end(reason, time.monotonic(), error=error)
        if self._creation is not None:
            self._creation.cancel()
        self._driver.set()
        self._tell()

    async def room(self) -> Started:
        """Wait until the room can be joined.

        Raises:
            GatewayError: the session ended before, and why.
        """
        await self._until(lambda: self.started is not None)
        assert self.started is not None  # noqa: S101 - `_until` returns only then
        return self.started

    async def ready(self) -> None:
        """Wait until the avatar is ready.

        Raises:
            GatewayError: the session ended before, and why.
        """
        await self._until(lambda: self.core.state is SessionState.READY)

    async def _until(self, reached: Callable[[], bool]) -> None:
        hold = self.hold()
        try:
            while not reached():
                if self.core.over:
                    raise self.core.error or SessionEnded(
                        self.id, self.core.end_reason.value if self.core.end_reason else ""
                    )
                await hold.signal.wait()
        finally:
            hold.release()

    # --- its one task

    async def run(self, wait_s: float | None) -> None:
        """Live: wait for a place, start, speak until something ends it, stop.

        Args:
            wait_s: Longest wait for a place on the account, seconds; None is the pool's own limit.
        """
        upstream: UpstreamSession | None = None
        try:
            upstream = await self._create(wait_s)
            await self._live(upstream)
        except GatewayError as error:
            self.end(EndReason.CREATE_FAILED if upstream is None else EndReason.UPSTREAM_FAILED, error=error)
        except asyncio.CancelledError:
            self.end(EndReason.DRAINED)
            raise
        except Exception:  # noqa: BLE001 - the root of the session's task: whatever it is ends here, logged
            incident = _new_id()
            _log.exception("session.crashed", session=self.id, incident=incident)
            self.end(EndReason.UPSTREAM_FAILED, error=InternalError("a fault of the gateway", incident=incident))
        finally:
            self._stop_grace()
            self._pool.let_go(self)
            await self._finish(upstream)

    async def _create(self, wait_s: float | None) -> UpstreamSession:
        """As a task of its own, so that `end` can call it off while it waits for a place."""
        began_s = time.monotonic()
        self._creation = asyncio.create_task(
            self._pool.start(self.spec.avatar, wait_s=wait_s), name=f"session-{self.id}/create"
        )
        try:
            upstream = await self._creation
        except asyncio.CancelledError:
            if not self.core.over:
                self._creation.cancel()
                raise
            raise SessionEnded(self.id, self.core.end_reason.value if self.core.end_reason else "") from None
        finally:
            self._creation = None
        self.started = upstream.started
        self.started_at = _utc_now()
        if not self.core.over:
            self.core.started(max_duration_s=upstream.started.max_duration_s, now_s=time.monotonic())
        _log.info(
            "session.started",
            session=self.id,
            upstream_session=upstream.started.session_id,
            ms=round((time.monotonic() - began_s) * 1000),
        )
        self._tell()
        return upstream

    async def _live(self, upstream: UpstreamSession) -> None:
        if self.core.over:
            return
        socket = await upstream.connect(self._on_event)
        self.core.socket_opened(time.monotonic())
        self._pool.keep_alive(self)
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(self._watch(socket), name=f"session-{self.id}/watch")
            await self._drive(socket)
            watcher.cancel()

    def _on_event(self, event: Event) -> None:
        if self.core.on_wire(event, time.monotonic()):
            self._driver.set()

    async def _watch(self, socket: CommandSocket) -> None:
        closed = await socket.closed()
        self._lost(closed)

    def _lost(self, closed: SocketClosed) -> None:
        _log.info("upstream.socket_closed", session=self.id, code=closed.code, how=str(closed))
        if not self.core.over:
            self._metrics.upstream_failed(SOCKET_CLOSED)
        self.end(EndReason.UPSTREAM_FAILED)

    async def _drive(self, socket: CommandSocket) -> None:
        """Send what is due, sleep until something is due again."""
        core = self.core
        while not core.over:
            core.tick(time.monotonic())
            try:
                while (command := core.next_command(time.monotonic())) is not None:
                    await socket.send(command)
                    if isinstance(command, Speak):
                        self._metrics.packet(len(command.pcm))
            except SocketClosed as closed:
                self._lost(closed)
            self._tell()
            deadline_s = core.deadline_s
            await self._driver.wait(None if deadline_s is None else deadline_s - time.monotonic())

    async def _finish(self, upstream: UpstreamSession | None) -> None:
        self._tell()
        try:
            if upstream is not None:
                self.core.learn_end(await upstream.close())
        finally:
            self.core.ended()
            self._tell()
            self.finished.set()
            self._log_end()

    def _log_end(self) -> None:
        _log.info(
            "session.ended",
            session=self.id,
            reason=self.core.end_reason.value if self.core.end_reason else "",
            upstream_reason=self.core.upstream_reason,
            error=self.core.error.reason if self.core.error else "",
            played_s=round(self.core.speech.played_s, 1),
            unknown_events=self.core.unknown_events,
        )

    # --- telling the streams

    def _tell(self) -> None:
        """Hand out answers, and wake the holders when the log has grown."""
        for ticket, ended in self.core.answers:
            answer = self._tickets.get(ticket)
            if answer is not None and not answer.done():
                answer.set_result(ended)
        self.core.answers.clear()
        if self.core.log.last_sequence != self._told:
            for entry in self.core.log.kept_after(self._told):
                self._meter.happened(entry.happening, self.core.end_reason)
            self._told = self.core.log.last_sequence
            self._wake_holders()

    def _wake_holders(self) -> None:
        for hold in self._holds:
            hold.signal.set()

    # --- what it has used

    @property
    def played_s(self) -> float:
        """Seconds of speech that were heard, that of the utterance being heard now among them."""
        speech, now_s = self.core.speech, time.monotonic()
        return speech.played_s + sum(one.position_s(speech.clock, now_s) for one in speech.active)

    @property
    def expires_at(self) -> datetime | None:
        """When LiveAvatar will end it; None before the start, or when LiveAvatar did not say."""
        if self.started is None or self.started_at is None or self.started.max_duration_s is None:
            return None
        return self.started_at + timedelta(seconds=self.started.max_duration_s)

    @property
    def billed(self) -> timedelta:
        """From LiveAvatar's start to the end or to now."""
        if self.started_at is None:
            return timedelta()
        return (self.core.ended_at or _utc_now()) - self.started_at
