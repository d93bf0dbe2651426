"""All upstream sessions of this process: starting, adopting, keeping alive and closing them.

Warm sessions, several accounts and fairness between tenants belong here: a warm session is an `UpstreamSession`
that no caller has yet, and fairness is another order of the queue in `permits.py`.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog

from liveavatar_gateway.core.errors import CapacityExhausted, GatewayError, InvalidField
from liveavatar_gateway.core.messages import Event
from liveavatar_gateway.rooms.access import LiveKitAccess
from liveavatar_gateway.rooms.servers import RoomServers
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.account import Account
from liveavatar_gateway.upstream.errors import is_answered, is_denied
from liveavatar_gateway.upstream.journal import UpstreamJournal
from liveavatar_gateway.upstream.keepalive import KeepAliveConfig, KeepAliveSchedule, KeepAliveTarget
from liveavatar_gateway.upstream.model import AvatarRequest, Minted, Started
from liveavatar_gateway.upstream.permits import Permit
from liveavatar_gateway.upstream.proxies import Proxies
from liveavatar_gateway.upstream.session import STOP_REASON, UpstreamSession
from liveavatar_gateway.upstream.socket import CommandSocket
from liveavatar_gateway.upstream.standstill import EXTRA_WAIT_S, STOOD_STILL_S
from liveavatar_gateway.upstream.stopper import Stopped

_Result = TypeVar("_Result")

_log = structlog.get_logger(__name__)

_SEARCH_WAIT_S: Final = 10.0
"""Longest wait of a caller for a search for orphaned sessions."""
_SEARCH_LIMIT_S: Final = 30.0
"""Longest duration of such a search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """Command sockets and keep-alives of all sessions."""

    keep_alive: KeepAliveConfig = field(default_factory=KeepAliveConfig)
    connect_timeout_s: float = 10.0
    """Longest wait for the command socket to open."""
    proxies: Proxies = field(default_factory=Proxies)
    """Proxies through which command sockets are opened."""


async def no_orphans() -> int:
    """Return 0: no registry that could name orphaned sessions."""
    return 0


class Pool:
    """All sessions on one account. The creator closes the pool, after the sessions."""

    def __init__(
        self,
        config: PoolConfig,
        account: Account,
        metrics: Metrics,
        *,
        stop_orphans: Callable[[], Awaitable[int]] = no_orphans,
        rooms: RoomServers | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare; nothing runs before the first `start` or `adopt`.

        Args:
            config: Command sockets and keep-alives.
            account: Account that pays for the sessions.
            metrics: Counts failures of LiveAvatar.
            stop_orphans: Stops sessions that dead processes left on the account, and returns their number. Called
                when LiveAvatar reports a full account although a permit was free.
            rooms: Signs tokens for rooms of the callers' own; None without a LiveKit server.
            rng: Source of jitter.
        """
        self.account = account
        self.rooms = rooms or RoomServers(None)
        self.metrics = metrics
        self._config = config
        self._stop_orphans = stop_orphans
        self._keep_alive = KeepAliveSchedule(config.keep_alive, rng or random.Random())  # noqa: S311 - jitter
        self._search: asyncio.Task[int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(
        self,
        request: AvatarRequest,
        journal: UpstreamJournal,
        *,
        wait_s: float | None,
        on_wait: Callable[[], object] = lambda: None,
    ) -> UpstreamSession:
        """Wait for a permit, then mint and start a session; for `wait_s` and `on_wait` see `Permits.acquire`.

        Raises:
            CapacityExhausted: no permit in time.
            RegistryUnavailable: the journal cannot be written; nothing was started.
            UpstreamError: LiveAvatar refused or failed; a session that may run regardless is being stopped.
        """
        permits = self.account.permits
        until_s = time.monotonic() + (self.account.config.permits.wait_s if wait_s is None else wait_s)
        permit = await permits.acquire(wait_s=wait_s, on_wait=on_wait)
        has_searched = False
        while True:
            try:
                return await self._start_with(permit, request, journal)
            except CapacityExhausted as error:
                refused = error
            # The account is full although this process had a permit: orphans of a dead process may be the cause.
            may_retry = permit.may_retry
            if not has_searched:
                has_searched = True
                may_retry = await self._stopped_orphans(until_s) or may_retry
            left_s = until_s - time.monotonic()
            if not may_retry or left_s <= 0:
                raise refused
            try:
                permit = await permits.acquire(wait_s=left_s, refused=permit)
            except CapacityExhausted as in_vain:
                raise refused from in_vain

    def adopt(self, started: Started, journal: UpstreamJournal) -> UpstreamSession:
        """Take over a session that another process started, even if all permits are used."""
        self.account.add_session(started.session_id)
        return UpstreamSession(self, self.account.permits.acquire_above_limit(), started, journal)

    async def open_socket(self, started: Started, on_event: Callable[[Event], None]) -> CommandSocket:
        """Open the command socket of a session, see `SessionHost`."""
        try:
            return await CommandSocket.open(
                started.ws_url,
                on_event,
                timeout_s=self._config.connect_timeout_s,
                proxies=self._config.proxies,
            )
        except GatewayError as error:
            self.metrics.upstream_failed(error.reason)
            raise

    def run(self, work: Coroutine[Any, Any, _Result], *, name: str) -> asyncio.Task[_Result]:
        """Run work to its end even if the task that awaits the result is cancelled."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def add_keep_alive(self, target: KeepAliveTarget) -> None:
        """Keep a session alive until `remove_keep_alive`."""
        self._keep_alive.add(target, time.monotonic())
        self._arm()

    def remove_keep_alive(self, target: KeepAliveTarget) -> None:
        """Stop keeping a session alive."""
        self._keep_alive.remove(target)

    async def close(self, timeout_s: float) -> list[str]:
        """Wait for all pending starts and stops; return LiveAvatar's ids of sessions that may still run.

        A start that was sent is awaited, and stopped when it succeeds. Work that begins meanwhile is awaited too.
        Work that is not done in time is cancelled: the process ends, and LiveAvatar ends sessions without a
        socket.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        stood_still = False
        while self._tasks and (left_s := until_s - loop.time()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if not stood_still and loop.time() > until_s + STOOD_STILL_S:
                # Answers that arrived during a suspension have not been read yet.
                stood_still = True
                until_s = loop.time() + EXTRA_WAIT_S
            # Callbacks of finished tasks may have started others.
            await asyncio.sleep(0)
        left = sorted(self.account.session_ids | self.account.stopper.pending_ids)
        await self.account.stopper.give_up()
        for task in self._tasks:
            task.cancel()
        return left

    async def _stopped_orphans(self, until_s: float) -> bool:
        """Share one search between all callers and wait for it within bounds; True if it stopped sessions."""
        if self._search is None:
            self._search = self.run(self._search_orphans(), name="pool/stop-orphans")
        wait_s = min(_SEARCH_WAIT_S, until_s - time.monotonic())
        search = self._search
        await asyncio.wait([search], timeout=max(0.0, wait_s))
        return search.done() and not search.cancelled() and search.result() > 0

    async def _search_orphans(self) -> int:
        stopped = 0
        try:
            async with asyncio.timeout(_SEARCH_LIMIT_S):
                stopped = await self._stop_orphans()
            if stopped:
                # LiveAvatar frees a stopped session a little later.
                await asyncio.sleep(self.account.permits.settling.pause_s)
        except Exception:  # noqa: BLE001 - root of its task: a fault of the search refuses no caller
            _log.exception("pool.search_crashed")
        finally:
            self._search = None
        return stopped

    async def _start_with(
        self, permit: Permit, request: AvatarRequest, journal: UpstreamJournal
    ) -> UpstreamSession:
        try:
            minted = await self.account.rest.mint(request, self._livekit_room(request))
            await self._note_minted(minted.session_id, journal)
        except CapacityExhausted:
            permit.refuse()
            raise
        except BaseException:
            permit.release(settle=False)
            raise
        # Shielded: a start that was sent has to be awaited, or a session would run that nobody knows.
        task = self.run(self._start(permit, minted, journal), name=f"session-{minted.session_id}/start")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._close_unwanted)
            raise

    async def _note_minted(self, session_id: str, journal: UpstreamJournal) -> None:
        """Write the session into the journal before its start; undo the entry if the caller is cancelled."""
        noting = self.run(journal.minted(session_id), name=f"session-{session_id}/note")
        try:
            await asyncio.shield(noting)
        except asyncio.CancelledError:
            self.run(self._undo_note(noting, session_id, journal), name=f"session-{session_id}/undo-note")
            raise

    @staticmethod
    async def _undo_note(noting: asyncio.Task[None], session_id: str, journal: UpstreamJournal) -> None:
        await asyncio.gather(noting, return_exceptions=True)
        await journal.not_started(session_id)

    def _livekit_room(self, request: AvatarRequest) -> LiveKitAccess | None:
        if request.participant is None:
            return None
        rooms = self.rooms.of_room(request.participant.room, tenant=request.participant.tenant)
        if rooms is None:
            # Another process, with other settings, accepted the request, or the room is the tenant's no more.
            raise InvalidField(
                "this gateway has no LiveKit server for the session's own room", field="livekit_room"
            )
        return rooms.avatar(request.participant, max_duration_s=request.max_duration_s)

    async def _start(self, permit: Permit, minted: Minted, journal: UpstreamJournal) -> UpstreamSession:
        self.account.add_session(minted.session_id)
        try:
            started = await self.account.rest.start(minted)
        except Exception as error:
            # Only LiveAvatar's own refusal proves that no session runs; a fault of the gateway proves nothing.
            if not isinstance(error, GatewayError) or not is_denied(error):
                # In the background: the caller gets the error at once, and the permit stays in use until
                # LiveAvatar confirms the stop.
                undoing = self._undo(permit, minted, journal, may_be_starting=not is_answered(error))
                self.run(undoing, name=f"session-{minted.session_id}/undo")
                raise
            self.account.remove_session(minted.session_id)
            if isinstance(error, CapacityExhausted):
                permit.refuse()
            else:
                permit.release(settle=False)
            await journal.not_started(minted.session_id)
            raise
        permit.accept()
        await journal.started(started)
        return UpstreamSession(self, permit, started, journal)

    async def _undo(
        self, permit: Permit, minted: Minted, journal: UpstreamJournal, *, may_be_starting: bool
    ) -> None:
        """Stop the session that a failed start may have left running."""
        stopper = self.account.stopper
        try:
            stopped = await stopper.stop(minted.session_id, STOP_REASON, may_be_starting=may_be_starting)
            if stopped is Stopped.BEFORE:
                await journal.not_started(minted.session_id)
            else:
                await journal.stopped(minted.session_id)
        finally:
            self.account.remove_session(minted.session_id)
            permit.release(settle=True)

    def _close_unwanted(self, task: asyncio.Task[UpstreamSession]) -> None:
        if not task.cancelled() and task.exception() is None:
            self.run(task.result().close(), name="unwanted/close")

    def _arm(self) -> None:
        """Start the single timer of all keep-alives."""
        if self._timer is None and (next_s := self._keep_alive.next_s()) is not None:
            delay_s = max(0.0, next_s - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._keep_alive.run(time.monotonic())
        self._arm()
