"""Exchange of one session with LiveAvatar: commands out, events in, over one socket after the other."""

import asyncio
import time
from collections.abc import Callable

import structlog

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.core.outputs import CheckSocket, Deadline, HandOver, Output, PrepareStandby, Send
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.states import EndReason, end_reason_of
from liveavatar_gateway.sessions.avatars import Avatars
from liveavatar_gateway.sessions.journal import SessionJournal
from liveavatar_gateway.sessions.publisher import EventPublisher
from liveavatar_gateway.sessions.reconnector import ReconnectConfig, Reconnector, SessionGone
from liveavatar_gateway.sessions.standby import Standby, StandbyManager
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.telemetry.metrics import SOCKET_CLOSED, Metrics
from liveavatar_gateway.upstream.session import UpstreamSession
from liveavatar_gateway.upstream.socket import (
    CONNECTION_LOST,
    SEND_TIMEOUT_S,
    CommandSocket,
    SocketClosed,
    read_what_arrived,
)

_log = structlog.get_logger(__name__)
_STALL_S = 1.0
"""Shortest time without progress after which a socket is stuck, and not only busy."""
_LATE_S = 0.25
"""Delay of a wake-up from which on the process is known to have stood still."""
_MAX_EARLY_EVENTS = 1000
"""Events that are kept until the state machine knows of their socket; an avatar sends a few in that moment."""
_CHECK_S = 0.5
"""Longest sleep without a socket. Lower notices a standstill of the process sooner."""


def _do_nothing() -> None:
    """Do nothing, for an owner that need not know of takeovers."""


class SessionDriver:
    """Only writer of a session's commands. `run` returns when the session is over; the caller stops the avatar."""

    def __init__(
        self,
        core: Session,
        config: ReconnectConfig,
        metrics: Metrics,
        *,
        wake: Wakeup,
        publisher: EventPublisher,
        journal: SessionJournal,
        avatars: Avatars,
        standbys: StandbyManager,
        on_take_over: Callable[[], None] = _do_nothing,
    ) -> None:
        """Prepare for `run`.

        Args:
            core: State machine of the session.
            config: Retries after the loss of a socket.
            metrics: Counters of packets and failures.
            wake: Set after an input to the state machine that may have made a command due.
            publisher: Hands out events and answers of the state machine.
            journal: Notes each packet and each end of an utterance once the operating system has it, and delivers
                it even if this process dies. A process that dies before the note causes a second sending; if the
                note came first, the packet would be lost.
            avatars: The avatar that speaks.
            standbys: The avatar that takes over.
            on_take_over: Called when a standby speaks from now on.
        """
        self._core = core
        self._metrics = metrics
        self._wake = wake
        self._publisher = publisher
        self._journal = journal
        self._avatars = avatars
        self._standbys = standbys
        self._on_take_over = on_take_over
        self._reconnector = Reconnector(core, config, journal=journal, avatars=avatars, standbys=standbys)
        self._news = Wakeup()
        """Set when LiveAvatar reports something while a command is being sent."""
        self._is_sending = False
        self._early: list[m.Event] | None = None
        """Events that came before the state machine knows of their socket; None once it does."""
        self._lost: SocketClosed | None = None
        self._stuck_since_s: float | None = None
        self._stuck_seen_s = 0.0
        self._hand_over_due = False
        self._keep_alive_due = False
        self._standby: Standby | None = None
        """Avatar that takes over next; taken from `standbys`."""

    async def run(self) -> None:
        """Keep a socket open and speak over it until the session is over."""
        try:
            while not self._core.over:
                standby, self._standby = self._standby, None
                if standby is not None:
                    reached: tuple[CommandSocket, int] | None = await self._take_over(standby)
                elif (connected := self._avatars.take_connected()) is not None:
                    reached = self._begin_on(connected)
                else:
                    reached = await self._reach()
                if reached is not None:
                    await self._talk(*reached)
        finally:
            self._standbys.close()

    def _begin_on(self, connected: Standby) -> tuple[CommandSocket, int]:
        """Speak over the socket of a warm session, whose readiness was reported before this session existed."""
        self._early = [m.StateUpdated("connected")] if connected.is_ready else []
        connected.listen(self._listener(self._avatars.current))
        # The session's own keep-alives begin a whole interval from now.
        self._keep_alive_due = True
        return connected.socket, 1

    async def _take_over(self, standby: Standby) -> tuple[CommandSocket, int]:
        """Let a standby speak from now on."""
        # Buffered events are the replaced avatar's and say nothing about the new socket.
        self._early = None
        standby.listen(self._listener(standby.upstream))
        await self._avatars.take_over(standby)
        self._on_take_over()
        await self._standbys.wait_for_release()
        self._publisher.report()
        return standby.socket, 0

    # --- outputs of the state machine

    def _advance(self, *, is_stuck: bool = False) -> Output | None:
        """Let time pass; see `_drain`."""
        self._core.tick(time.monotonic(), is_stuck=is_stuck)
        return self._drain()

    def _drain(self) -> Output | None:
        """Carry out all outputs but the last, and return that; None when the session is over."""
        outputs = self._core.drain(time.monotonic())
        self._publisher.publish(outputs)
        for output in outputs:
            if isinstance(output, PrepareStandby):
                self._standbys.prepare()
            elif isinstance(output, HandOver):
                self._hand_over_due = True
        return None if self._core.over else outputs[-1]

    def _take_standby(self) -> bool:
        """Take the standby if it is to take over; return False also if it was lost in that moment."""
        due, self._hand_over_due = self._hand_over_due, False
        if due and not self._core.over:
            self._standby = self._standbys.take()
        return self._standby is not None

    # --- without a socket

    async def _reach(self) -> tuple[CommandSocket, int] | None:
        """Open a socket while deadlines apply; return None if the session is over or a standby takes over."""
        self._early = []
        opening = asyncio.create_task(
            self._reconnector.open(self._listener, self._lost), name=f"session-{self._core.id}/open"
        )
        opening.add_done_callback(self._opened)
        try:
            while not (self._core.over or opening.done()):
                output = self._advance()
                if output is None or isinstance(output, HandOver):
                    break
                # Without a socket no command is due.
                await self._sleep(output.at_s if isinstance(output, Deadline) else None, at_most_s=_CHECK_S)
                await self._journal.confirm_lease()
        finally:
            if not opening.done():
                opening.cancel()
                await asyncio.wait([opening])
        if self._core.over or self._take_standby() or opening.cancelled():
            # A socket that opened in this moment is closed with its session.
            return None
        try:
            return opening.result()
        except SessionGone as gone:
            reason = end_reason_of(gone.upstream_reason) if gone.upstream_reason else EndReason.UPSTREAM_ENDED
            self._end(reason, upstream_reason=gone.upstream_reason)
        except GatewayError as error:
            # Errors of the gateway too: the account may have no permit left for a replacement.
            self._end(EndReason.UPSTREAM_FAILED, error=error)
        return None

    def _opened(self, opening: asyncio.Task[tuple[CommandSocket, int]]) -> None:
        if not opening.cancelled():
            # Retrieved here, because a session that ends in this moment does not retrieve the error.
            opening.exception()
        self._wake.set()

    # --- with a socket

    async def _talk(self, socket: CommandSocket, attempt_count: int) -> None:
        """Speak over a socket until it is lost or the session is over."""
        opened_s = time.monotonic()
        self._lost = None
        if attempt_count:
            self._core.socket_opened(opened_s, attempt_count=attempt_count)
        early, self._early = self._early or [], None
        for event in early:
            self._on_event(event)
        if self._keep_alive_due:
            self._keep_alive_due = False
            self._core.keep_alive()
        # Repeated if the standby is lost at the moment of its takeover.
        while not (self._core.over or self._lost or self._take_standby()):
            async with asyncio.TaskGroup() as tasks:
                watcher = tasks.create_task(self._watch(socket), name=f"session-{self._core.id}/watch")
                publisher = tasks.create_task(self._publish_news(), name=f"session-{self._core.id}/publish")
                try:
                    await self._send(socket)
                except SocketClosed as closed:
                    self._lost = closed
                watcher.cancel()
                publisher.cancel()
        if self._lost is not None and not self._core.over and not (self._standby or self._take_standby()):
            socket.abort()
            now_s = time.monotonic()
            self._reconnector.note_lost(opened_s=opened_s, ready_s=self._core.heard_since_s, now_s=now_s)
            self._core.socket_lost(now_s)
            self._metrics.upstream_failed(SOCKET_CLOSED)
            _log.info(
                "upstream.socket_lost",
                session=self._core.id,
                code=self._lost.code,
                how=str(self._lost),
                lasted_s=round(now_s - opened_s, 1),
            )
            self._publisher.report()

    async def _publish_news(self) -> None:
        """Publish what LiveAvatar reports while `_send` waits for the socket."""
        while True:
            await self._news.wait()
            await self._journal.confirm_lease()
            self._publisher.report()

    async def _watch(self, socket: CommandSocket) -> None:
        self._lost = await socket.closed()
        self._wake.set()

    async def _send(self, socket: CommandSocket) -> None:
        """Send due commands, and sleep until one is due again.

        Raises:
            SocketClosed: a command could not be sent.
        """
        core = self._core
        was_checked = False
        await self._journal.confirm_lease()
        while not core.over and self._lost is None:
            output = self._advance(is_stuck=self._is_stuck(socket))
            while isinstance(output, Send):
                await self._send_command(socket, output)
                await self._journal.confirm_lease()
                output = None if self._lost is not None else self._drain()
            match output:
                case HandOver():
                    return
                case CheckSocket() if was_checked:
                    raise SocketClosed(CONNECTION_LOST, "nothing was confirmed in time")
                case CheckSocket():
                    await read_what_arrived()
                case Deadline(at_s):
                    await self._sleep(at_s)
            was_checked = isinstance(output, CheckSocket)
            await self._journal.confirm_lease()

    async def _send_command(self, socket: CommandSocket, output: Send) -> None:
        command = output.command
        began_s = time.monotonic()
        self._is_sending = True
        try:
            # The pong proves that everything up to here was read.
            await socket.send(command, ping=output.number)
        finally:
            self._is_sending = False
        if time.monotonic() - began_s > _STALL_S:
            self._core.note_stall(time.monotonic())
        if isinstance(command, m.Speak):
            self._metrics.packet_sent(len(command.pcm))
        elif isinstance(command, m.KeepAlive):
            self._metrics.kept_alive("socket", "sent")
        if isinstance(command, m.Speak | m.SpeakEnd):
            self._note_progress(command)

    def _is_stuck(self, socket: CommandSocket) -> bool:
        """Return whether LiveAvatar's end of the socket takes no data.

        Raises:
            SocketClosed: it took none for so long that it is gone.
        """
        now_s = time.monotonic()
        if not socket.takes_nothing:
            self._stuck_since_s = None
            return False
        if self._stuck_since_s is None or now_s - self._stuck_seen_s > _STALL_S:
            self._stuck_since_s = now_s
        self._stuck_seen_s = now_s
        if now_s - self._stuck_since_s >= SEND_TIMEOUT_S:
            raise SocketClosed(CONNECTION_LOST, f"nothing was taken for {SEND_TIMEOUT_S:g} s")
        return True

    def _note_progress(self, command: m.Speak | m.SpeakEnd) -> None:
        utterance = self._core.speech.find(command.event_id)
        if utterance is not None:
            self._journal.note_utterance(utterance)

    async def _sleep(self, deadline_s: float | None, at_most_s: float | None = None) -> None:
        began_s = time.monotonic()
        if at_most_s is not None:
            deadline_s = began_s + at_most_s if deadline_s is None else min(deadline_s, began_s + at_most_s)
        await self._wake.wait(None if deadline_s is None else deadline_s - began_s)
        if deadline_s is not None and time.monotonic() > max(deadline_s, began_s) + _LATE_S:
            self._reconnector.note_standstill()
        if deadline_s is not None and time.monotonic() > deadline_s + _LATE_S:
            # After a standstill, events that came meanwhile are read before any deadline is applied.
            await read_what_arrived()

    def _listener(self, upstream: UpstreamSession) -> Callable[[m.Event], None]:
        """Return a listener for one avatar; events of an avatar that was replaced are ignored."""

        def on_event(event: m.Event) -> None:
            if self._avatars.upstream is upstream:
                self._on_event(event)

        return on_event

    def _on_event(self, event: m.Event) -> None:
        if self._early is not None:
            # The event came with the answer to the handshake: the state machine does not know of this socket yet.
            if len(self._early) < _MAX_EARLY_EVENTS:
                self._early.append(event)
                if len(self._early) == _MAX_EARLY_EVENTS:
                    _log.warning("upstream.early_events_dropped", session=self._core.id, kept=_MAX_EARLY_EVENTS)
        elif self._core.on_event(event, time.monotonic()):
            self._wake.set()
            if self._is_sending:
                self._news.set()

    def _end(self, reason: EndReason, *, error: GatewayError | None = None, upstream_reason: str = "") -> None:
        self._core.end(reason, time.monotonic(), error=error, upstream_reason=upstream_reason)
        self._publisher.report()
