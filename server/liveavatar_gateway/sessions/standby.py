"""Has a fresh avatar ready before the limit of the one that speaks."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import structlog

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import GatewayError, InternalError, UpstreamUnreachable
from liveavatar_gateway.core.readiness import Due, Readiness, ReadinessConfig
from liveavatar_gateway.core.session import OVER_UPSTREAM, Session
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.upstream.backoff import Backoff
from liveavatar_gateway.upstream.pool import Pool
from liveavatar_gateway.upstream.session import UpstreamSession
from liveavatar_gateway.upstream.socket import CommandSocket, SocketClosed

_log = structlog.get_logger(__name__)

_FIRST_WAIT_S = 0.5
_MAX_WAIT_S = 5.0


class Standby:
    """An avatar that is started and connected, and waits for its turn. `hear` gives its events to another."""

    def __init__(self, upstream: UpstreamSession) -> None:
        self.upstream = upstream
        self.socket: CommandSocket
        self.started_at = datetime.now(UTC)
        self.started_mono_s = time.monotonic()
        self.last_command_at_s = self.started_mono_s
        self._changed = Wakeup()
        self._ready = False
        self._gone = False
        self._listener: Callable[[m.Event], None] | None = None
        self._readiness: Readiness
        self._sends_keep_alive = False

    def hear(self, listener: Callable[[m.Event], None]) -> None:
        """Another takes its events from now on."""
        self._listener = listener

    def keep_alive(self) -> None:
        """Send a keep-alive; for the pool."""
        self._sends_keep_alive = True
        self._changed.set()

    async def connect(self, config: ReadinessConfig, new_id: Callable[[], str]) -> None:
        """Open its socket and wait until it is ready.

        Raises:
            UpstreamUnreachable, ReadyTimeout: it cannot be used.
        """
        self._readiness = Readiness(config)
        self.socket = await self.upstream.connect(self._on_event)
        self._readiness.open(time.monotonic(), fresh=True)
        async with self._watching():
            while not self._ready and not self._gone:
                match self._readiness.tick(time.monotonic()):
                    case Due.GIVE_UP:
                        raise self._readiness.timeout()
                    case Due.PROBE:
                        await self._send(m.Interrupt(new_id()))
                deadline_s = self._readiness.deadline_s
                await self._changed.wait(None if deadline_s is None else deadline_s - time.monotonic())
        if self._gone:
            raise UpstreamUnreachable("the fresh avatar was lost before it was ready", retry_after_s=1.0)

    async def until_gone(self, new_id: Callable[[], str]) -> None:
        """Keep it until its socket is lost, or LiveAvatar ends it."""
        async with self._watching():
            while not self._gone:
                await self._changed.wait(None)
                if self._sends_keep_alive and not self._gone:
                    self._sends_keep_alive = False
                    self.last_command_at_s = time.monotonic()
                    await self._send(m.KeepAlive(new_id()))

    @contextlib.asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        watcher = asyncio.create_task(self._watch(), name="successor/watch")
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.wait([watcher])

    async def _watch(self) -> None:
        await self.socket.closed()
        self._gone = True
        self._changed.set()

    async def _send(self, command: m.Command) -> None:
        try:
            await self.socket.send(command, ping=0)
        except SocketClosed:
            self._gone = True

    def _on_event(self, event: m.Event) -> None:
        if self._listener is not None:
            self._listener(event)
            return
        if isinstance(event, m.Stopped) or (isinstance(event, m.StateUpdated) and event.state in OVER_UPSTREAM):
            self._gone = True
            self._changed.set()
        elif self._readiness.is_shown_by(event):
            self._ready = True
            self._changed.set()


class StandbyManager:
    """Starts what the session's plan asks for, and tries until it is there. `close` when the session is over."""

    def __init__(
        self,
        core: Session,
        pool: Pool,
        *,
        start: Callable[[], Awaitable[UpstreamSession]],
        changed: Callable[[], None],
        new_id: Callable[[], str],
        cost: Callable[[float], None],
    ) -> None:
        """Prepare.

        Args:
            core: The state machine, which knows when.
            pool: Runs what must not be lost.
            start: Starts the next avatar; raises `GatewayError`.
            changed: Called when there is a fresh avatar, or news of none.
            new_id: Makes ids of commands.
            cost: Called with the seconds that an avatar is billed for which never spoke.
        """
        self._core = core
        self._pool = pool
        self._start = start
        self._changed = changed
        self._new_id = new_id
        self._cost = cost
        self._task: asyncio.Task[None] | None = None
        self._letting_go: asyncio.Task[None] | None = None
        self._successor: Standby | None = None
        self._taken: Standby | None = None

    def prepare(self) -> None:
        """Start a standby avatar, and try until there is one."""
        if self._task is None:
            self._task = asyncio.create_task(self._prepare(), name=f"session-{self._core.id}/rotate")

    def take(self) -> Standby | None:
        """Return the standby avatar, which speaks from now on; None when it was lost."""
        if self._successor is None:
            return None
        self._taken, self._successor = self._successor, None
        self._letting_go = self._task
        self._stop()
        return self._taken

    async def let_go(self) -> None:
        """Wait until the avatar that was taken is watched no more: its socket has one reader at a time."""
        if self._letting_go is not None:
            await asyncio.wait([self._letting_go])
            self._letting_go = None

    def close(self) -> None:
        """Nobody is to take over any more."""
        self._core.standby_dropped()
        self._stop()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _prepare(self) -> None:
        backoff = Backoff(first_s=_FIRST_WAIT_S, max_s=_MAX_WAIT_S, rng=random.Random())  # noqa: S311 - jitter
        while True:
            try:
                await self._keep_one()
                backoff.reset()
            except GatewayError as error:
                _log.warning("rotation.failed", session=self._core.id, reason=error.reason)
                self._core.standby_failed(error)
                self._changed()
            except Exception:  # noqa: BLE001 - the root of this task: whatever it is delays the rotation, logged
                incident = self._new_id()
                _log.exception("rotation.crashed", session=self._core.id, incident=incident)
                self._core.standby_failed(InternalError("a fault of the gateway", incident=incident))
                self._changed()
            await asyncio.sleep(backoff.next_s())

    async def _keep_one(self) -> None:
        """Start one and keep it until it is lost; when it is taken this task is cancelled.

        Raises:
            GatewayError: there is none, or it is lost.
        """
        successor = Standby(await self._start())
        try:
            await successor.connect(self._core.config.readiness, self._new_id)
            _log.info(
                "rotation.ready", session=self._core.id, upstream_session=successor.upstream.started.session_id
            )
            self._successor = successor
            self._core.standby_ready(time.monotonic())
            self._pool.add_keep_alive(successor)
            self._changed()
            await successor.until_gone(self._new_id)
            raise UpstreamUnreachable("the fresh avatar was lost before its turn", retry_after_s=1.0)
        finally:
            self._pool.remove_keep_alive(successor)
            if self._taken is not successor:
                self._successor = None
                self._cost(time.monotonic() - successor.started_mono_s)
                self._pool.run(successor.upstream.close(), name=f"session-{self._core.id}/drop-successor")
