"""Holds every upstream session of one account: a place for each, one keep-alive timer, and a stop for all.

Warm sessions and fairness between tenants will live here: a warm one is an `UpstreamSession` that nobody has
taken yet, and fairness is another order of the line in `places.py`.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from liveavatar_gateway.core.errors import CapacityExhausted, GatewayError, InvalidField
from liveavatar_gateway.core.messages import Event
from liveavatar_gateway.rooms.tokens import LiveKitRooms
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.errors import is_answered, is_denied
from liveavatar_gateway.upstream.journal import UpstreamJournal
from liveavatar_gateway.upstream.keepalive import KeepAliveConfig, KeepAliveSchedule, KeepAliveTarget
from liveavatar_gateway.upstream.model import AvatarRequest, LiveKitAccess, Minted, RemoteStatus, Started
from liveavatar_gateway.upstream.permits import Permit, Permits, PermitsConfig
from liveavatar_gateway.upstream.proxies import Proxies
from liveavatar_gateway.upstream.rest import Rest
from liveavatar_gateway.upstream.socket import CommandSocket
from liveavatar_gateway.upstream.standstill import HEARING_S, STOOD_STILL_S
from liveavatar_gateway.upstream.stopper import StopConfig, Stopped, Stopper

_Result = TypeVar("_Result")

_log = structlog.get_logger(__name__)

_STOP_REASON = "USER_CLOSED"
_FATE_TIMEOUT_S = 3.0
_SEARCH_WAIT_S = 10.0
"""How long a caller waits for a search for what dead processes left."""
_SEARCH_LIMIT_S = 30.0
"""How long such a search may take."""
_SOCKET_LINGER_S = 3.0
"""How long a socket waits for its session's stop before it is closed all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """The parts of the pool."""

    places: PermitsConfig = field(default_factory=PermitsConfig)
    """How many sessions, and who waits."""
    stops: StopConfig = field(default_factory=StopConfig)
    """How hard a stop is tried."""
    keep_alive: KeepAliveConfig = field(default_factory=KeepAliveConfig)
    """When keep-alives are sent."""
    connect_timeout_s: float = 10.0
    """Longest wait for the command socket to open."""
    proxies: Proxies = field(default_factory=Proxies)
    """Through what it is opened."""


class UpstreamSession:
    """One started session with its place. Whoever has it closes it: that stops it and gives the place back."""

    def __init__(self, pool: "Pool", place: Permit, started: Started, ledger: UpstreamJournal) -> None:
        self._pool = pool
        self._place = place
        self._ledger = ledger
        self._socket: CommandSocket | None = None
        self._closing: asyncio.Task[str] | None = None
        self.started = started
        pool.held.add(started.session_id)

    async def connect(self, on_event: Callable[[Event], None]) -> CommandSocket:
        """Open the command socket; `on_event` is called with each of its events.

        Raises:
            UpstreamUnreachable: it cannot be opened; the session is still to be closed.
        """
        try:
            self._socket = await CommandSocket.open(
                self.started.ws_url,
                on_event,
                timeout_s=self._pool.config.connect_timeout_s,
                proxies=self._pool.config.proxies,
            )
        except GatewayError as error:
            self._pool.metrics.upstream_failed(error.reason)
            raise
        return self._socket

    async def fate(self) -> RemoteStatus:
        """Ask whether the session is over upstream; not over when LiveAvatar does not say in time."""
        return await self._pool.fate(self.started.session_id)

    async def close(self) -> str:
        """Stop the session, close its socket, give its place back; returns LiveAvatar's reason if it ended first.

        The stop goes on when the caller is cancelled, and the place stays taken until it is confirmed. Closed
        again, it says the same: a second stop would find that LiveAvatar ended it, for a reason of our own.
        """
        if self._closing is None:
            self._closing = self._pool.run(self._close(), name=f"session-{self.started.session_id}/close")
        return await asyncio.shield(self._closing)

    async def _close(self) -> str:
        session_id = self.started.session_id
        stopping = self._pool.run(
            self._pool.stops.stop(session_id, _STOP_REASON), name=f"session-{session_id}/await-stop"
        )
        try:
            # Stop first, so that the avatar leaves in order; but a socket left open would keep LiveAvatar's own
            # clean-up from ending a session that cannot be stopped.
            await asyncio.wait([stopping], timeout=_SOCKET_LINGER_S)
            if self._socket is not None:
                await self._socket.close()
            stopped = await stopping
            await self._ledger.stopped(session_id)
            return await self._reason_of_another(stopped)
        finally:
            self._pool.held.discard(session_id)
            self._place.release(settle=True)

    async def _reason_of_another(self, stopped: Stopped) -> str:
        """Return LiveAvatar's reason where it, or somebody else, ended the session; empty where this stop did."""
        if stopped not in (Stopped.BEFORE, Stopped.EITHER):
            return ""
        reason = (await self._pool.fate(self.started.session_id)).reason
        return "" if stopped is Stopped.EITHER and reason == _STOP_REASON else reason

    async def leave(self) -> None:
        """Let go of the session without stopping it: another process drives it now."""
        self._pool.held.discard(self.started.session_id)
        self._place.release(settle=False)
        if self._socket is not None:
            await self._socket.close()


class Pool:
    """All sessions on one account. Whoever makes it closes it, after the sessions."""

    def __init__(
        self,
        config: PoolConfig,
        rest: Rest,
        metrics: Metrics,
        *,
        rooms: LiveKitRooms | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.config = config
        self.rooms = rooms
        """Makes tokens for rooms of the callers' own; None without a LiveKit server."""
        self.metrics = metrics
        self.places = Permits(config.places)
        self.stops = Stopper(config.stops, rest)
        self.find_orphans: Callable[[], Awaitable[int]] | None = None
        """Stops what dead processes left on the account; returns how many sessions that were."""
        self.held: set[str] = set()
        """LiveAvatar's ids of all sessions that somebody here has or is about to have."""
        self._rest = rest
        self._keep_alive = KeepAliveSchedule(config.keep_alive, rng or random.Random())  # noqa: S311 - jitter
        self._search: asyncio.Task[int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[Any]] = set()

    async def start(
        self, request: AvatarRequest, ledger: UpstreamJournal, *, wait_s: float | None
    ) -> UpstreamSession:
        """Wait for a place, then mint and start a session in it.

        Raises:
            CapacityExhausted: no place in time.
            RegistryUnavailable: the ledger cannot be kept; nothing was started.
            UpstreamError: LiveAvatar refused or failed; what may run all the same is being stopped.
        """
        until_s = time.monotonic() + (self.config.places.wait_s if wait_s is None else wait_s)
        place = await self.places.take(wait_s=wait_s)
        has_searched = False
        while True:
            try:
                return await self._start_in(place, request, ledger)
            except CapacityExhausted as error:
                refused = error
            # The account is full although this process has a place: what a dead process left may be in the way.
            is_hopeful = place.is_hopeful
            if not has_searched:
                has_searched = True
                is_hopeful = await self._freed_orphans(until_s) or is_hopeful
            left_s = until_s - time.monotonic()
            if not is_hopeful or left_s <= 0:
                raise refused
            try:
                place = await self.places.take(wait_s=left_s, again=place)
            except CapacityExhausted as in_vain:
                raise refused from in_vain

    async def _freed_orphans(self, until_s: float) -> bool:
        """Have one search run for all callers, and wait for it within bounds; True when it stopped sessions."""
        if self.find_orphans is None:
            return False
        if self._search is None:
            self._search = self.run(self._search_orphans(self.find_orphans), name="pool/find-orphans")
        wait_s = min(_SEARCH_WAIT_S, until_s - time.monotonic())
        search = self._search
        await asyncio.wait([search], timeout=max(0.0, wait_s))
        return search.done() and not search.cancelled() and search.result() > 0

    async def _search_orphans(self, find: Callable[[], Awaitable[int]]) -> int:
        stopped = 0
        try:
            async with asyncio.timeout(_SEARCH_LIMIT_S):
                stopped = await find()
            if stopped:
                # LiveAvatar frees what was stopped a little later.
                await asyncio.sleep(self.places.settling.pause_s)
        except Exception:  # noqa: BLE001 - the root of its task: a fault of the search refuses no caller
            _log.exception("pool.search_crashed")
        finally:
            self._search = None
        return stopped

    async def _start_in(self, place: Permit, request: AvatarRequest, ledger: UpstreamJournal) -> UpstreamSession:
        try:
            minted = await self._rest.mint(request, self._livekit_room(request))
            await self._note(minted.session_id, ledger)
        except CapacityExhausted:
            place.refuse()
            raise
        except BaseException:
            place.release(settle=False)
            raise
        # Shielded: a start that was sent must be seen through, or a session would run that nobody knows.
        task = self.run(self._start(place, minted, ledger), name=f"session-{minted.session_id}/start")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._close_unwanted)
            raise

    async def _note(self, session_id: str, ledger: UpstreamJournal) -> None:
        """Have the ledger note what is about to start; a note that nobody waits for any more is taken back."""
        noting = self.run(ledger.minted(session_id), name=f"session-{session_id}/note")
        try:
            await asyncio.shield(noting)
        except asyncio.CancelledError:
            self.run(self._take_back(noting, session_id, ledger), name=f"session-{session_id}/take-back")
            raise

    @staticmethod
    async def _take_back(noting: asyncio.Task[None], session_id: str, ledger: UpstreamJournal) -> None:
        await asyncio.gather(noting, return_exceptions=True)
        await ledger.stopped(session_id)

    def _livekit_room(self, request: AvatarRequest) -> LiveKitAccess | None:
        if request.seat is None:
            return None
        if self.rooms is None:
            # Another process took the request, with other settings.
            raise InvalidField(
                "this gateway has no LiveKit server for the session's own room", field="livekit_room"
            )
        return self.rooms.avatar(request.seat, max_duration_s=request.max_duration_s)

    async def _start(self, place: Permit, minted: Minted, ledger: UpstreamJournal) -> UpstreamSession:
        self.held.add(minted.session_id)
        try:
            started = await self._rest.start(minted)
        except Exception as error:
            # Only LiveAvatar's own refusal says that nothing runs; a fault of our own says nothing.
            if not isinstance(error, GatewayError) or not is_denied(error):
                # Behind: its caller is told at once, and nobody else gets the place before LiveAvatar confirms.
                undoing = self._undo(place, minted, ledger, may_be_starting=not is_answered(error))
                self.run(undoing, name=f"session-{minted.session_id}/undo")
                raise
            self.held.discard(minted.session_id)
            if isinstance(error, CapacityExhausted):
                place.refuse()
            else:
                place.release(settle=False)
            await ledger.stopped(minted.session_id)
            raise
        place.accept()
        await ledger.started(started)
        return UpstreamSession(self, place, started, ledger)

    async def _undo(
        self, place: Permit, minted: Minted, ledger: UpstreamJournal, *, may_be_starting: bool
    ) -> None:
        """Stop what a failed start may have left running."""
        try:
            await self.stops.stop(minted.session_id, _STOP_REASON, may_be_starting=may_be_starting)
            await ledger.stopped(minted.session_id)
        finally:
            self.held.discard(minted.session_id)
            place.release(settle=True)

    def adopt(self, started: Started, ledger: UpstreamJournal) -> UpstreamSession:
        """Go on with a session that another process started. It has a place even where all are taken."""
        return UpstreamSession(self, self.places.seize(), started, ledger)

    def _close_unwanted(self, task: asyncio.Task[UpstreamSession]) -> None:
        if not task.cancelled() and task.exception() is None:
            self.run(task.result().close(), name="unwanted/close")

    def run(self, work: Coroutine[Any, Any, _Result], *, name: str) -> asyncio.Task[_Result]:
        """Run work that must not be lost when the one who wants its result is cancelled."""
        task = asyncio.create_task(work, name=name)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    async def fate(self, session_id: str) -> RemoteStatus:
        """Ask whether and why a session ended; it is not over when LiveAvatar does not say in time."""
        try:
            async with asyncio.timeout(_FATE_TIMEOUT_S):
                return await self._rest.fate(session_id)
        except (GatewayError, TimeoutError):
            _log.info("upstream.fate_unknown", upstream_session=session_id)
            return RemoteStatus(over=False)

    def keep_alive(self, session: KeepAliveTarget) -> None:
        """Keep a session alive until `let_go`."""
        self._keep_alive.add(session, time.monotonic())
        self._arm()

    def let_go(self, session: KeepAliveTarget) -> None:
        """Stop keeping a session alive."""
        self._keep_alive.remove(session)

    def _arm(self) -> None:
        """The one timer of all keep-alives."""
        if self._timer is None and (next_s := self._keep_alive.next_s()) is not None:
            delay_s = max(0.0, next_s - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._keep_alive.run(time.monotonic())
        self._arm()

    async def close(self, timeout_s: float) -> list[str]:
        """Wait for all that is being started and closed; returns LiveAvatar's ids of what may still run.

        A start that was sent is waited for, and stopped when it succeeds: work that begins meanwhile counts too.
        What is not closed in time is given up: the process ends, and LiveAvatar reaps what nobody is connected to.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        stood_still = False
        while self._closing and (left_s := until_s - loop.time()) > 0:
            await asyncio.wait(set(self._closing), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if not stood_still and loop.time() > until_s + STOOD_STILL_S:
                # What LiveAvatar confirmed meanwhile is yet to be read.
                stood_still = True
                until_s = loop.time() + HEARING_S
            # The callbacks of what is done may have begun something else.
            await asyncio.sleep(0)
        left = sorted(self.held | self.stops.pending_ids)
        await self.stops.give_up()
        for task in self._closing:
            task.cancel()
        return left
