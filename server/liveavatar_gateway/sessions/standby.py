"""Standby avatars: a fresh one is started and connected before the limit of the one that speaks."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Final, Protocol

import structlog

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import (
    GatewayError,
    InternalError,
    UpstreamAddressRefused,
    UpstreamUnreachable,
)
from liveavatar_gateway.core.readiness import Due, Readiness, ReadinessConfig
from liveavatar_gateway.core.session import OVER_UPSTREAM, Session
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.upstream.backoff import Backoff
from liveavatar_gateway.upstream.pool import Pool
from liveavatar_gateway.upstream.session import UpstreamSession
from liveavatar_gateway.upstream.socket import CommandSocket, SocketClosed

_log = structlog.get_logger(__name__)

_FIRST_CHECK: Final = 1 << 40
"""Number of the first health check: above the numbers of all commands that a session sends later on the socket."""
_FIRST_WAIT_S = 0.5
_MAX_WAIT_S = 5.0


class Standby:
    """Avatar that is started and connected before it takes over. `listen` passes its events on."""

    def __init__(self, upstream: UpstreamSession) -> None:
        self.upstream = upstream
        self.socket: CommandSocket
        self.started_at = datetime.now(UTC)
        self.started_mono_s = time.monotonic()
        self.last_command_at_s = self.started_mono_s
        self._wake = Wakeup()
        self._ready = False
        self._gone = False
        self._listener: Callable[[m.Event], None] | None = None
        self._readiness: Readiness
        self._keep_alive_due = False
        self._check_due = False
        self._checked = self._answered = _FIRST_CHECK
        self._has_socket = False

    @property
    def has_socket(self) -> bool:
        """True once its socket was opened."""
        return self._has_socket

    @property
    def is_ready(self) -> bool:
        """True once commands are handled."""
        return self._ready

    @property
    def is_gone(self) -> bool:
        """True once its socket is lost, or LiveAvatar has ended it."""
        return self._gone

    def check(self) -> None:
        """Ask for an answer on the socket; an avatar that did not answer the check before is gone."""
        if self._checked != self._answered:
            self._gone = True
        self._check_due = True
        self._wake.set()

    def drop(self) -> None:
        """Give the avatar up: LiveAvatar has ended it without a word on its socket."""
        self._gone = True
        self._wake.set()

    def listen(self, listener: Callable[[m.Event], None]) -> None:
        """Pass all further events to a listener."""
        self._listener = listener

    def keep_alive(self) -> None:
        """Send a keep-alive."""
        self._keep_alive_due = True
        self._wake.set()

    async def connect(self, config: ReadinessConfig, new_id: Callable[[], str]) -> None:
        """Open its socket and wait until it is ready.

        Raises:
            UpstreamUnreachable, ReadyTimeout: it cannot be used.
        """
        self._readiness = Readiness(config)
        self.socket = await self.upstream.connect(self._on_event)
        self._has_socket = True
        self._readiness.open(time.monotonic(), fresh=True)
        async with self._watching():
            while not self._ready and not self._gone:
                match self._readiness.tick(time.monotonic()):
                    case Due.GIVE_UP:
                        raise self._readiness.timeout()
                    case Due.PROBE:
                        await self._send(m.Interrupt(new_id()))
                deadline_s = self._readiness.deadline_s
                await self._wake.wait(None if deadline_s is None else deadline_s - time.monotonic())
        if self._gone:
            raise UpstreamUnreachable("the fresh avatar was lost before it was ready", retry_after_s=1.0)

    async def wait_until_gone(self, new_id: Callable[[], str]) -> None:
        """Keep the avatar alive until its socket is lost, or LiveAvatar ends it."""
        async with self._watching():
            while not self._gone:
                await self._wake.wait(None)
                if self._keep_alive_due and not self._gone:
                    self._keep_alive_due = False
                    self.last_command_at_s = time.monotonic()
                    await self._send(m.KeepAlive(new_id()))
                if self._check_due and not self._gone:
                    self._check_due = False
                    self._checked += 1
                    await self._send(m.Probe(), ping=self._checked)

    @contextlib.asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        watcher = asyncio.create_task(self._watch(), name="standby/watch")
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.wait([watcher])

    async def _watch(self) -> None:
        await self.socket.closed()
        self._gone = True
        self._wake.set()

    async def _send(self, command: m.Command, *, ping: int = 0) -> None:
        try:
            await self.socket.send(command, ping=ping)
        except SocketClosed:
            self._gone = True

    def _on_event(self, event: m.Event) -> None:
        if isinstance(event, m.PongReceived) and event.number > _FIRST_CHECK:
            # Never passed on: to a session it would confirm audio that was not sent.
            self._answered = event.number
            return
        if self._listener is not None:
            self._listener(event)
            return
        if isinstance(event, m.Stopped) or (isinstance(event, m.StateUpdated) and event.state in OVER_UPSTREAM):
            self._gone = True
            self._wake.set()
        elif self._readiness.is_shown_by(event):
            self._ready = True
            self._wake.set()


class StandbySource(Protocol):
    """Starter of the avatars that follow the first."""

    async def start_next(self) -> UpstreamSession:
        """Start the next avatar; raises `GatewayError`."""

    def retire(self, billed_s: float) -> None:
        """Add the billed time of an avatar that never spoke."""


class StandbyManager:
    """Keeper of the standby that the session's plan asks for; a failed start is repeated. `close` at the end."""

    def __init__(
        self, core: Session, pool: Pool, source: StandbySource, *, wake: Wakeup, new_id: Callable[[], str]
    ) -> None:
        """Prepare.

        Args:
            core: State machine of the session; records each standby.
            pool: Runner of work that must not be lost.
            source: Starter of avatars.
            wake: Set when a standby is ready, or failed.
            new_id: Makes ids of commands.
        """
        self._core = core
        self._pool = pool
        self._source = source
        self._wake = wake
        self._new_id = new_id
        self._task: asyncio.Task[None] | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._ready: Standby | None = None
        self._taken: Standby | None = None

    def prepare(self) -> None:
        """Start a standby, and try until there is one."""
        if self._task is None:
            self._task = asyncio.create_task(self._prepare(), name=f"session-{self._core.id}/rotate")

    def take(self) -> Standby | None:
        """Return the standby, which speaks from now on; None if it was lost."""
        if self._ready is None:
            return None
        self._taken, self._ready = self._ready, None
        self._releasing = self._task
        self._stop()
        return self._taken

    async def wait_for_release(self) -> None:
        """Wait until the task of the taken standby has ended: a socket has one reader at a time."""
        if self._releasing is not None:
            await asyncio.wait([self._releasing])
            self._releasing = None

    def close(self) -> None:
        """Close the standby, if any, and prepare no other."""
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
                self._wake.set()
                if isinstance(error, UpstreamAddressRefused):
                    # The next one would most likely be billed and refused too.
                    return
            except Exception:  # noqa: BLE001 - the root of this task: whatever it is delays the rotation, logged
                incident = self._new_id()
                _log.exception("rotation.crashed", session=self._core.id, incident=incident)
                self._core.standby_failed(InternalError("a fault of the gateway", incident=incident))
                self._wake.set()
            await asyncio.sleep(backoff.next_s())

    async def _keep_one(self) -> None:
        """Start a standby and keep it until it is lost; `take` cancels this task.

        Raises:
            GatewayError: none could be started, or it is lost.
        """
        standby = Standby(await self._source.start_next())
        try:
            await standby.connect(self._core.config.readiness, self._new_id)
            _log.info(
                "rotation.ready", session=self._core.id, upstream_session=standby.upstream.started.session_id
            )
            self._ready = standby
            self._core.standby_ready(time.monotonic())
            self._pool.add_keep_alive(standby)
            self._wake.set()
            await standby.wait_until_gone(self._new_id)
            raise UpstreamUnreachable("the fresh avatar was lost before it took over", retry_after_s=1.0)
        finally:
            self._pool.remove_keep_alive(standby)
            if self._taken is not standby:
                self._ready = None
                self._source.retire(time.monotonic() - standby.started_mono_s)
                self._pool.run(standby.upstream.close(), name=f"session-{self._core.id}/drop-standby")
