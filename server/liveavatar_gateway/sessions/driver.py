"""Drives one session upstream: commands out, events in, and a lost socket opened again."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import GatewayError, UpstreamError, UpstreamUnreachable
from liveavatar_gateway.core.outputs import CheckSocket, Deadline, HandOver, Output, PrepareStandby, Send
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.core.states import EndReason, SessionState, end_reason_of
from liveavatar_gateway.sessions.standby import Standby, StandbyManager
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.telemetry.metrics import SOCKET_CLOSED, Metrics
from liveavatar_gateway.upstream.backoff import Backoff
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
"""A socket that takes nothing for longer than this is stuck, and not only busy."""
_LATE_S = 0.25
"""A deadline that is noticed later than this was missed by a process that stood still."""
_LOOK_S = 0.5
"""How often it is noticed, while there is no socket, whether the process stood still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconnectConfig:
    """How a lost command socket is opened again. Seconds."""

    budget_s: float = 30.0
    """How long it is tried, also where sockets open and do not last. Higher survives longer outages of LiveAvatar
    and pays for them; 0 tries only once at the beginning, and ends a session with its socket."""
    first_wait_s: float = 0.2
    """Longest wait before the first try. Lower comes back sooner, and with everybody else."""
    max_wait_s: float = 5.0
    """Longest wait between two tries."""
    stable_s: float = 1.0
    """How long a socket must have lasted for the next loss to begin with the shortest wait again, and how long its
    avatar must have heard for it to begin with the whole budget."""


def _unkept(utterance: Utterance) -> None:
    """What becomes of progress that nobody keeps."""


class SessionGone(Exception):
    """LiveAvatar ended the session, with its own word for why; empty when it has none."""

    def __init__(self, upstream_reason: str) -> None:
        super().__init__(upstream_reason)
        self.upstream_reason = upstream_reason


async def _unwanted(successor: "Standby", old: UpstreamSession | None) -> None:
    """What becomes of a take-over that nobody planned."""


async def _unshared() -> None:
    """Do nothing: no other process can have the session."""


Renew = Callable[[], Awaitable[UpstreamSession | None]]


class SessionDriver:
    """The only writer upstream of one session. `run` returns when that is over; its caller closes `upstream`.

    `progress` is called with an utterance when the operating system has a packet of it, or its end, and delivers
    that whatever becomes of this process. A process that is killed just before repeats that packet; the other way
    round it would be lost.
    `renew` makes a fresh upstream session when the old one cannot be reached any more, or gives None.
    """

    def __init__(
        self,
        core: Session,
        config: ReconnectConfig,
        metrics: Metrics,
        *,
        wake: Wakeup,
        publish: Callable[[Sequence[Output]], None],
        rotations: StandbyManager,
    ) -> None:
        """Prepare for `run`.

        Args:
            core: The state machine.
            config: How a lost socket is opened again.
            metrics: What is counted.
            wake: Set by whoever gave the machine an input after which a command may be due.
            publish: Called with outputs of the state machine, for its reports.
            rotations: Has the avatar that is to take over.
        """
        self._core = core
        self._config = config
        self._metrics = metrics
        self._wake = wake
        self._publish = publish
        self._news = Wakeup()
        self._is_sending = False
        self._rotations = rotations
        self._backoff = Backoff(first_s=config.first_wait_s, max_s=config.max_wait_s, rng=random.Random())  # noqa: S311 - jitter
        self._early: list[m.Event] | None = None
        self._lost: SocketClosed | None = None
        self._give_up_s: float | None = None
        """Until when it is tried to reach the avatar: since it was lost, however often a socket did not last."""
        self._attempt_count = 0
        self._stood_still = False
        """True when the process stood still since the latest try to reach the avatar began."""
        self._stuck_since_s: float | None = None
        self._stuck_seen_s = 0.0
        self._hand_over_due = False
        self._standby: Standby | None = None
        """Avatar that takes over next; taken from `rotations`."""
        self._renewed = False
        """Whether it is a fresh avatar in place of one out of reach, and was not heard to last yet."""
        self.upstream: UpstreamSession | None = None
        self.progress: Callable[[Utterance], None] = _unkept
        self.renew: Renew | None = None
        self.confirm: Callable[[], Awaitable[None]] = _unshared
        """Makes sure, before anything is sent, that no other process took the session while this one stood still;
        if one did, the task of `run` is cancelled."""
        self.succeeded: Callable[[Standby, UpstreamSession | None], Awaitable[None]] = _unwanted
        """Called when a fresh avatar speaks from now on, before it is sent anything."""

    async def run(self, upstream: UpstreamSession) -> None:
        """Keep a socket open and speak over it until the session is over."""
        self.upstream = upstream
        try:
            while not self._core.over:
                standby, self._standby = self._standby, None
                reached = await self._reach() if standby is None else await self._succeed(standby)
                if reached is not None:
                    await self._talk(*reached)
        finally:
            self._rotations.close()

    async def _succeed(self, successor: Standby) -> tuple[CommandSocket, int]:
        """A fresh avatar speaks from now on; it is the one that another process would go on with."""
        old, self.upstream = self.upstream, successor.upstream
        # What the old one said to a socket that is not needed any more is not the fresh one's.
        self._early = None
        successor.hear(self._listener(successor.upstream))
        await self.succeeded(successor, old)
        await self._rotations.let_go()
        self._report()
        return successor.socket, 0

    # --- outputs of the state machine

    def _report(self) -> None:
        """Publish what the state machine has to report, without asking it for commands."""
        self._publish(self._core.reports())

    def _advance(self, *, is_stuck: bool = False) -> Output | None:
        """Let time pass, see `_drain`."""
        self._core.tick(time.monotonic(), is_stuck=is_stuck)
        return self._drain()

    def _drain(self) -> Output | None:
        """Carry out all outputs but the last, and return that; None when the session is over."""
        outputs = self._core.drain(time.monotonic())
        self._publish(outputs)
        for output in outputs:
            if isinstance(output, PrepareStandby):
                self._rotations.prepare()
            elif isinstance(output, HandOver):
                self._hand_over_due = True
        return None if self._core.over else outputs[-1]

    def _take_standby(self) -> bool:
        """Take the standby avatar if it is to take over; False also when it was lost in that very moment."""
        due, self._hand_over_due = self._hand_over_due, False
        if due and not self._core.over:
            self._standby = self._rotations.take()
        return self._standby is not None

    # --- without a socket

    async def _reach(self) -> tuple[CommandSocket, int] | None:
        """Open a socket while time goes on; None when the session is over instead."""
        self._early = []
        opening = asyncio.create_task(self._open_or_renew(), name=f"session-{self._core.id}/open")
        opening.add_done_callback(self._opened)
        try:
            while not (self._core.over or opening.done()):
                output = self._advance()
                if output is None or isinstance(output, HandOver):
                    break
                # Without a socket no command is due.
                await self._sleep(output.at_s if isinstance(output, Deadline) else None, at_most_s=_LOOK_S)
                await self.confirm()
        finally:
            if not opening.done():
                opening.cancel()
                await asyncio.wait([opening])
        if self._core.over or self._take_standby() or opening.cancelled():
            # A socket that was opened all the same is closed with its session.
            return None
        try:
            return opening.result()
        except SessionGone as gone:
            reason = end_reason_of(gone.upstream_reason) if gone.upstream_reason else EndReason.UPSTREAM_ENDED
            self._end(reason, upstream_reason=gone.upstream_reason)
        except GatewayError as error:
            # Not only LiveAvatar's: a fresh avatar may find no place on the account.
            self._end(EndReason.UPSTREAM_FAILED, error=error)
        return None

    def _opened(self, opening: asyncio.Task[tuple[CommandSocket, int]]) -> None:
        if not opening.cancelled():
            # Looked at here: a session that ends in this very moment does not ask why it could not be reached.
            opening.exception()
        self._wake.set()

    async def _open_or_renew(self) -> tuple[CommandSocket, int]:
        try:
            return await self._open(again=self._core.state is SessionState.RECONNECTING)
        except UpstreamUnreachable:
            # A fresh one that is out of reach as well is not replaced again: each is paid for.
            fresh = await self.renew() if self.renew is not None and not self._renewed else None
            if fresh is None:
                raise
        self.upstream = fresh
        self._renewed = True
        self._give_up_s = None
        self._core.replaced(max_duration_s=fresh.started.max_duration_s, now_s=time.monotonic())
        self._backoff.reset()
        return await self._open(again=False)

    async def _open(self, *, again: bool) -> tuple[CommandSocket, int]:
        """Open the socket, trying as long as the budget allows; returns it with how many tries that took.

        Raises:
            SessionGone: there is nothing to connect to any more.
            UpstreamUnreachable: the budget is spent.
        """
        assert self.upstream is not None  # noqa: S101 - set by `run`
        session_id = self.upstream.started.session_id
        give_up_s = self._give_up_s or self._begin_to_reach(time.monotonic())
        count = 0
        wait_s = self._backoff.next_s() if again else 0.0
        failure: UpstreamError | None = None
        while (not again and count == 0) or await self._may_try(wait_s, give_up_s):
            await asyncio.sleep(wait_s)
            await self.confirm()
            self._stood_still = False
            count += 1
            self._attempt_count += 1
            try:
                socket = await self.upstream.connect(self._listener(self.upstream))
            except UpstreamUnreachable as error:
                failure = error
                status = error.metadata.get("http_status", "")
                _log.info("upstream.connect_failed", session=self._core.id, attempt=count, http_status=status)
                if status.startswith("4"):
                    await self._raise_if_gone(session_id)
            else:
                if not again:
                    # Those before an avatar is reached at all are not tries to reach it again.
                    self._attempt_count = 0
                return socket, count
            wait_s = self._backoff.next_s()
        raise self._unreachable(self._attempt_count) from failure

    async def _may_try(self, wait_s: float, give_up_s: float) -> bool:
        """Return whether another try is due: within the budget, or since the process stood still."""
        if time.monotonic() + wait_s <= give_up_s:
            return True
        # Those who notice that have woken up by then too.
        await read_what_arrived()
        return self._stood_still and self._config.budget_s > 0

    def _begin_to_reach(self, now_s: float) -> float:
        """From now on the budget is spent; returns until when it lasts."""
        self._attempt_count = 0
        self._give_up_s = now_s + self._config.budget_s
        return self._give_up_s

    async def _raise_if_gone(self, session_id: str) -> None:
        """A refusal may mean that the session is over; only its record can tell."""
        assert self.upstream is not None  # noqa: S101 - set by `run`
        fate = await self.upstream.remote_status()
        if fate.over:
            _log.info("upstream.gone", session=self._core.id, upstream_session=session_id, reason=fate.reason)
            raise SessionGone(fate.reason)

    def _unreachable(self, count: int) -> UpstreamUnreachable:
        budget_s = self._config.budget_s
        if self._lost is None:
            return UpstreamUnreachable(
                f"LiveAvatar's command socket could not be opened within {budget_s:g} s; try again",
                retry_after_s=1.0,
                attempt_count=count,
            )
        return UpstreamUnreachable(
            f"the connection to the avatar was lost ({self._lost}) and could not be made again within "
            f"{budget_s:g} s; create a new session",
            close_code=self._lost.code,
            attempt_count=count,
        )

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
        # Again when the avatar that was to take over is lost in that very moment.
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
            heard_since_s = self._core.heard_since_s
            if heard_since_s is not None and now_s - heard_since_s >= self._config.stable_s:
                # Otherwise it is lost over and over, and what was spent of the budget stays spent.
                self._begin_to_reach(now_s)
                self._renewed = False
            if now_s - opened_s >= self._config.stable_s:
                self._backoff.reset()
            self._core.socket_lost(now_s)
            self._metrics.upstream_failed(SOCKET_CLOSED)
            _log.info(
                "upstream.socket_lost",
                session=self._core.id,
                code=self._lost.code,
                how=str(self._lost),
                lasted_s=round(now_s - opened_s, 1),
            )
            self._report()

    async def _publish_news(self) -> None:
        """Publish what LiveAvatar reports while `_send` waits for the socket."""
        while True:
            await self._news.wait()
            await self.confirm()
            self._report()

    async def _watch(self, socket: CommandSocket) -> None:
        self._lost = await socket.closed()
        self._wake.set()

    async def _send(self, socket: CommandSocket) -> None:
        """Send what is due, sleep until something is due again.

        Raises:
            SocketClosed: a command could not be sent.
        """
        core = self._core
        was_checked = False
        await self.confirm()
        while not core.over and self._lost is None:
            output = self._advance(is_stuck=self._is_stuck(socket))
            while isinstance(output, Send):
                await self._send_command(socket, output)
                await self.confirm()
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
            await self.confirm()

    async def _send_command(self, socket: CommandSocket, output: Send) -> None:
        command = output.command
        began_s = time.monotonic()
        self._is_sending = True
        try:
            # The pong proves that all up to here was read.
            await socket.send(command, ping=output.number)
        finally:
            self._is_sending = False
        if time.monotonic() - began_s > _STALL_S:
            self._core.note_stall(time.monotonic())
        if isinstance(command, m.Speak):
            self._metrics.packet_sent(len(command.pcm))
        if isinstance(command, m.Speak | m.SpeakEnd):
            self._note_progress(command)

    def _is_stuck(self, socket: CommandSocket) -> bool:
        """Return whether LiveAvatar's end does not take what was sent.

        Raises:
            SocketClosed: it took nothing for so long that it is gone.
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
            self.progress(utterance)

    async def _sleep(self, deadline_s: float | None, at_most_s: float | None = None) -> None:
        began_s = time.monotonic()
        if at_most_s is not None:
            deadline_s = began_s + at_most_s if deadline_s is None else min(deadline_s, began_s + at_most_s)
        await self._wake.wait(None if deadline_s is None else deadline_s - began_s)
        if deadline_s is not None and time.monotonic() > max(deadline_s, began_s) + _LATE_S:
            self._stood_still = True
        if deadline_s is not None and time.monotonic() > deadline_s + _LATE_S:
            # This process stood still, and nothing is judged by the clock before what LiveAvatar said meanwhile.
            await read_what_arrived()

    def _listener(self, upstream: UpstreamSession) -> Callable[[m.Event], None]:
        """Hears one avatar, until another speaks: how that one ends is not how the session does."""

        def hear(event: m.Event) -> None:
            if self.upstream is upstream:
                self._on_event(event)

        return hear

    def _on_event(self, event: m.Event) -> None:
        if self._early is not None:
            # It came with the answer to the handshake: the machine does not know of this socket yet.
            self._early.append(event)
        elif self._core.on_event(event, time.monotonic()):
            self._wake.set()
            if self._is_sending:
                self._news.set()

    def _end(self, reason: EndReason, *, error: GatewayError | None = None, upstream_reason: str = "") -> None:
        self._core.end(reason, time.monotonic(), error=error, upstream_reason=upstream_reason)
        self._report()
