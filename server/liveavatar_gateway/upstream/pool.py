"""All upstream sessions of this process: starting, adopting, keeping alive and closing them.

A session starts on the account of its permit. The order in which callers get permits is that of `permits.py`;
`accounts.py` knows which accounts a caller may use, and which of them work.
"""

import asyncio
import functools
import random
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import structlog

from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    GatewayError,
    InvalidField,
    UpstreamAddressRefused,
    UpstreamRateLimited,
    UpstreamUnauthenticated,
)
from liveavatar_gateway.core.messages import Event
from liveavatar_gateway.pool.account_health import PASSING, Trouble, may_differ_elsewhere
from liveavatar_gateway.rooms.access import LiveKitAccess
from liveavatar_gateway.rooms.servers import RoomServers
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.account import Account
from liveavatar_gateway.upstream.accounts import Accounts
from liveavatar_gateway.upstream.early_token import EarlyToken, Token
from liveavatar_gateway.upstream.egress import Egress, EgressConfig
from liveavatar_gateway.upstream.errors import is_answered, is_denied
from liveavatar_gateway.upstream.journal import UpstreamJournal
from liveavatar_gateway.upstream.keepalive import KeepAliveConfig, KeepAlives, KeepAliveTarget
from liveavatar_gateway.upstream.model import AvatarRequest, Minted, Started
from liveavatar_gateway.upstream.permits import ANYTHING, Permit, Permits, PermitWish, QueuePlace
from liveavatar_gateway.upstream.session import STOP_REASON, UpstreamSession
from liveavatar_gateway.upstream.socket import CommandSocket
from liveavatar_gateway.upstream.standstill import EXTRA_WAIT_S, STOOD_STILL_S
from liveavatar_gateway.upstream.stopper import Stopped

_Result = TypeVar("_Result")

_log = structlog.get_logger(__name__)

_SEARCH_WAIT_S: Final = 10.0
"""Longest wait of a caller for a search for orphaned sessions."""
_NO_DESCRIPTORS_RETRY_S: Final = 5.0
_MAX_RATE_WAIT_S: Final = 10.0
"""Longest wait of a caller for a rate limit of LiveAvatar."""
_LEAST_PAUSE_S: Final = 0.02
_MAX_PAUSE_S: Final = 0.25
_CHECK_WAIT_S: Final = 5.0
"""Longest wait of a caller for the check whether LiveAvatar's refusal of an account stands."""
_LOOK_S: Final = 0.5
"""Period in which a waiting caller's accounts are looked at."""
_FULL: Final = ""
"""Key of a refusal by a full account, which may be tried again; no account has this name."""
_SEARCH_LIMIT_S: Final = 30.0
"""Longest duration of such a search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """Command sockets and keep-alives of all sessions."""

    keep_alive: KeepAliveConfig = field(default_factory=KeepAliveConfig)
    connect_timeout_s: float = 10.0
    """Longest wait for the command socket to open, including the resolution of its host."""
    wait_s: float = 30.0
    """Longest wait of a caller without a deadline of its own."""
    egress: EgressConfig = field(default_factory=EgressConfig)
    """Hosts that LiveAvatar may name."""


def _release_unwanted(acquiring: asyncio.Task[Permit]) -> None:
    if not acquiring.cancelled() and acquiring.exception() is None:
        acquiring.result().release(settle=False)


def always() -> bool:
    """Return True: nothing keeps a process from connecting."""
    return True


async def no_orphans() -> int:
    """Return 0: no registry that could name orphaned sessions."""
    return 0


class _Turn:
    """Turn of a caller in the queue, which it keeps when it waits again."""

    def __init__(self, request: AvatarRequest, on_wait: Callable[[QueuePlace], object], early: EarlyToken) -> None:
        self.request = request
        self._on_wait = on_wait
        self.early = early
        """Token that is minted meanwhile."""
        self.of: Permit | QueuePlace | None = None
        """Last permit or place; None for a newcomer."""
        self.place: QueuePlace | None = None
        """Last place in the queue."""

    def note(self, place: QueuePlace) -> None:
        """Take note of a place in the queue."""
        self.place = place
        if place.number:
            self.of = place
        self._on_wait(place)


class Pool:
    """All sessions of this process, on all accounts. The creator closes the pool, after the sessions."""

    def __init__(
        self,
        config: PoolConfig,
        accounts: Accounts,
        permits: Permits,
        metrics: Metrics,
        *,
        stop_orphans: Callable[[], Awaitable[int]] = no_orphans,
        may_connect: Callable[[], bool] = always,
        rooms: RoomServers | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare; nothing runs before the first `start` or `adopt`.

        Args:
            config: Command sockets and keep-alives.
            accounts: Accounts that pay for the sessions.
            permits: Permits of these accounts.
            metrics: Counts failures of LiveAvatar.
            stop_orphans: Stops sessions that dead processes left on the accounts, and returns their number. Called
                when LiveAvatar reports a full account although a permit was free.
            may_connect: Returns whether the process can open another socket; without one, no session is started.
            rooms: Signs tokens for rooms of the callers' own; None without a LiveKit server.
            rng: Source of jitter.
        """
        self.accounts = accounts
        self.permits = permits
        self.rooms = rooms or RoomServers(None)
        self.metrics = metrics
        self.egress = Egress(config.egress)
        self._config = config
        self._stop_orphans = stop_orphans
        self._may_connect = may_connect
        self._keep_alives = KeepAlives(config.keep_alive, rng or random.Random())  # noqa: S311 - jitter
        self._search: asyncio.Task[int] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def wait_s(self) -> float:
        """Longest wait of a caller without a deadline of its own."""
        return self._config.wait_s

    async def start(
        self,
        request: AvatarRequest,
        journal: UpstreamJournal,
        *,
        wait_s: float | None,
        wish: PermitWish = ANYTHING,
        on_wait: Callable[[QueuePlace], object] = lambda _place: None,
    ) -> UpstreamSession:
        """Wait for a permit, then mint and start a session on its account.

        When the account itself fails, the next one is tried, each at most once and within the wait.

        Args:
            request: Avatar and limits.
            journal: Record of the session.
            wait_s: Longest wait, seconds; None for the configured one.
            wish: Tenant and session of the caller; the pool chooses among its accounts.
            on_wait: See `Permits.acquire`.

        Raises:
            CapacityExhausted: no permit in time, or no descriptor for a socket.
            RegistryUnavailable: the journal cannot be written; nothing was started.
            UpstreamError: LiveAvatar refused or failed; a session that may run regardless is being stopped.
        """
        until_s = time.monotonic() + (self._config.wait_s if wait_s is None else wait_s)
        early = EarlyToken(lambda account: account.rest.mint(request, retries=False))
        try:
            return await self._start_in_turn(request, journal, until_s, wish, _Turn(request, on_wait, early))
        finally:
            early.drop()

    async def _start_in_turn(
        self,
        request: AvatarRequest,
        journal: UpstreamJournal,
        until_s: float,
        wish: PermitWish,
        turn: _Turn,
    ) -> UpstreamSession:
        failures: dict[str, GatewayError] = {}
        has_searched = False
        while True:
            names = await self._usable(request, wish, failures, until_s, has_waited=turn.of is not None)
            last = next(reversed(failures.values()), None)
            more = functools.partial(self._are_more, request, wish, failures, frozenset(names), until_s)
            permit = await self._permit(replace(wish, accounts=names), until_s, turn, last, are_more=more)
            if permit is None:
                continue
            account = self.accounts.of_session(permit.account)
            turn.of = permit
            if account.health.trouble(time.monotonic(), sandbox=request.sandbox) is not None:
                # It failed for others while this caller waited, or another caller's start is its trial.
                permit.release(settle=False)
                await asyncio.sleep(_LEAST_PAUSE_S)
                continue
            try:
                others = {*failures, *self._unwished(wish), account.id}
                is_last = not self.accounts.usable(request, wish.tenant, without=others, now_s=time.monotonic())
                return await self._start_with(account, permit, request, journal, turn.early, is_last=is_last)
            except GatewayError as failure:
                error = failure
            if not may_differ_elsewhere(error):
                raise error
            if isinstance(error, CapacityExhausted):
                # The account is full although a permit was free: orphans of a dead process, or other programs.
                self.accounts.look_for_foreign(account.id)
                may_retry = permit.may_retry
                if not has_searched:
                    has_searched = True
                    may_retry = await self._stopped_orphans(until_s) or may_retry
                if may_retry and time.monotonic() < until_s:
                    failures[_FULL] = error
                    continue
            failures[account.id] = error
            if time.monotonic() >= until_s:
                raise error

    async def _usable(
        self,
        request: AvatarRequest,
        wish: PermitWish,
        failures: dict[str, GatewayError],
        until_s: float,
        *,
        has_waited: bool,
    ) -> Sequence[str]:
        """Return the accounts that may serve a request, once a rate limit allows it.

        Newcomers do not wait for an open breaker: they may try elsewhere. Callers that waited for a permit do.

        Raises:
            GatewayError: none can serve it, and none will within the caller's wait.
        """
        passing = PASSING if has_waited and not failures else (Trouble.RATE_LIMITED,)
        tenant = wish.tenant
        now_s = time.monotonic()
        if not failures and not self.accounts.usable(request, tenant, now_s=now_s):
            # A refusal of a moment ago may prove to be a mistake.
            await self.accounts.checked(request, tenant, timeout_s=min(_CHECK_WAIT_S, until_s - now_s))
        while True:
            now_s, without = time.monotonic(), {*failures, *self._unwished(wish)}
            if names := self.accounts.usable(request, tenant, without=without, now_s=now_s):
                return names
            left_s = self.accounts.retry_in_s(request, tenant, passing, without=without, now_s=now_s)
            if left_s is None or left_s > _MAX_RATE_WAIT_S or now_s + left_s >= until_s:
                raise next(reversed(failures.values()), None) or self.accounts.refusal(request, tenant, now_s)
            await asyncio.sleep(min(max(left_s, _LEAST_PAUSE_S), _MAX_PAUSE_S))

    def _are_more(
        self,
        request: AvatarRequest,
        wish: PermitWish,
        failures: Collection[str],
        names: Collection[str],
        until_s: float,
    ) -> bool:
        """Return whether an account may serve a request now that could not when the caller began to wait.

        False once the caller's time is over: it does not wait again.
        """
        now_s, without = time.monotonic(), {*failures, *self._unwished(wish)}
        return now_s < until_s and self.accounts.are_more(
            request, wish.tenant, names, without=without, now_s=now_s
        )

    def _unwished(self, wish: PermitWish) -> Collection[str]:
        """Return the accounts that a wish leaves out."""
        if wish.accounts is None:
            return ()
        return {account.id for account in self.accounts if account.id not in wish.accounts}

    async def _permit(
        self,
        wish: PermitWish,
        until_s: float,
        turn: _Turn,
        error: GatewayError | None,
        *,
        are_more: Callable[[], bool],
    ) -> Permit | None:
        """Wait for a permit; None if the caller should wait again, since more accounts can serve it now.

        A caller that waited before keeps its place, and is told of an earlier refusal if it waits in vain.
        """
        names, sandbox = wish.accounts or (), turn.request.sandbox
        left_s = max(0.0, until_s - time.monotonic())
        acquiring = asyncio.create_task(
            self.permits.acquire(wish, wait_s=left_s, refused=turn.of, on_wait=turn.note), name="pool/acquire"
        )
        are_hopeless = functools.partial(self.accounts.are_hopeless, names, sandbox=sandbox)
        look_s = _LEAST_PAUSE_S
        try:
            while not acquiring.done() and not are_hopeless() and not are_more():
                self._prepare(turn, names)
                await asyncio.wait([acquiring], timeout=look_s)
                look_s = _LOOK_S
        except asyncio.CancelledError:
            acquiring.cancel()
            acquiring.add_done_callback(_release_unwanted)
            raise
        if not acquiring.done():
            # A key was revoked, credits are used up, an operator has paused the accounts, or more work again.
            acquiring.cancel()
            await asyncio.wait([acquiring])
            if acquiring.cancelled():
                if are_more() or not are_hopeless():
                    return None
                raise error or self.accounts.refusal_of(names, sandbox=sandbox)
        try:
            permit = acquiring.result()
        except CapacityExhausted as in_vain:
            if error is None:
                raise
            raise error from in_vain
        try:
            self._require_descriptor()
        except BaseException:
            permit.release(settle=False)
            raise
        return permit

    def _prepare(self, turn: _Turn, names: Sequence[str]) -> None:
        """Let the token be minted on the account that a caller in the queue will most likely get."""
        # The token for a room of the caller's own is signed, and its right to the room checked, at the start.
        if turn.place is None or turn.request.participant is not None:
            return
        now_s = time.monotonic()
        for account in map(self.accounts.of_session, names):
            if account.health.trouble(now_s, sandbox=turn.request.sandbox) is None:
                turn.early.prepare(account, turn.place)
                return

    def adopt(
        self, started: Started, journal: UpstreamJournal, *, account: str = "", wish: PermitWish = ANYTHING
    ) -> UpstreamSession:
        """Take over a session that another process started, even if all permits are used.

        Args:
            started: The session.
            journal: Its record.
            account: Name of its account in the registry.
            wish: Tenant and session of the caller.
        """
        own = self.accounts.of_session(account)
        own.add_session(started.session_id)
        permit = self.permits.adopt(replace(wish, accounts=(own.id,)), started.session_id)
        return UpstreamSession(self, own, permit, started, journal)

    async def open_socket(self, started: Started, on_event: Callable[[Event], None]) -> CommandSocket:
        """Open the command socket of a session, see `SessionHost`."""
        try:
            until_s = time.monotonic() + self._config.connect_timeout_s
            route = await self.egress.route(started, timeout_s=self._config.connect_timeout_s)
            return await CommandSocket.open(route, on_event, timeout_s=max(0.0, until_s - time.monotonic()))
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
        """Keep a session alive until `remove_keep_alive`; again after another avatar has taken over."""
        self._keep_alives.add(target)

    def remove_keep_alive(self, target: KeepAliveTarget) -> None:
        """Stop keeping a session alive."""
        self._keep_alives.remove(target)

    async def close(self, timeout_s: float) -> list[str]:
        """Wait for all pending starts and stops; return LiveAvatar's ids of sessions that may still run.

        A start that was sent is awaited, and stopped when it succeeds. Work that begins meanwhile is awaited too.
        Work that is not done in time is cancelled: the process ends, and LiveAvatar ends sessions without a
        socket.
        """
        self._keep_alives.close()
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
        left = sorted(self.accounts.session_ids | self.accounts.pending_stop_ids)
        await self.accounts.give_up_stops()
        for task in self._tasks:
            task.cancel()
        return left

    def _require_descriptor(self) -> None:
        if not self._may_connect():
            raise CapacityExhausted(
                "this process may open no further files, so the session's socket could not be opened",
                scope="replica",
                retry_after_s=_NO_DESCRIPTORS_RETRY_S,
            )

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
                await asyncio.sleep(self.permits.settling.pause_s)
        except Exception:  # noqa: BLE001 - root of its task: a fault of the search refuses no caller
            _log.exception("pool.search_crashed")
        finally:
            self._search = None
        return stopped

    async def _start_with(
        self,
        account: Account,
        permit: Permit,
        request: AvatarRequest,
        journal: UpstreamJournal,
        early: EarlyToken,
        *,
        is_last: bool,
    ) -> UpstreamSession:
        account.health.begin_start(time.monotonic())
        try:
            token = await early.take(account)
            minted = await self._mint(account, permit, request, journal, token, retries=is_last)
        except CapacityExhausted as error:
            account.fail(error)
            permit.refuse()
            raise
        except GatewayError as error:
            self._fail(account, error)
            permit.release(settle=False)
            raise
        except BaseException:
            account.health.abandon_start(time.monotonic())
            permit.release(settle=False)
            raise
        # Shielded: a start that was sent has to be awaited, or a session would run that nobody knows.
        starting = self._start(account, permit, request, minted, journal)
        task = self.run(starting, name=f"session-{minted.session_id}/start")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._close_unwanted)
            raise

    async def _mint(
        self,
        account: Account,
        permit: Permit,
        request: AvatarRequest,
        journal: UpstreamJournal,
        token: Token | None,
        *,
        retries: bool,
    ) -> Minted:
        """Mint a token, if there is none yet, and write its session into the journal.

        A token that grows old meanwhile is not used. A key that changes meanwhile is tried too.
        """
        while True:
            key = account.spec.api_key
            try:
                if token is None:
                    minted = await account.rest.mint(request, self._livekit_room(request), retries=retries)
                    token = Token(minted, key)
            except UpstreamUnauthenticated:
                if account.spec.api_key == key:
                    raise
                # The refusal is of the former key, and says nothing about the new one.
                continue
            session_id = token.minted.session_id
            await self._note_minted(session_id, permit, journal)
            if token.is_fresh:
                return token.minted
            _log.warning("pool.token_too_old", upstream_session=session_id)
            token = None
            await journal.not_started(session_id)

    async def _note_minted(self, session_id: str, permit: Permit, journal: UpstreamJournal) -> None:
        """Write the session into the journal before its start; undo the entry if the caller is cancelled."""
        permit.pays_for(session_id)
        work = journal.minted(session_id, account=permit.account, permit_id=permit.id)
        noting = self.run(work, name=f"session-{session_id}/note")
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
        if request.brought_room is not None:
            return request.brought_room.avatar_access
        if request.participant is None:
            return None
        rooms = self.rooms.of_room(request.participant.room, tenant=request.participant.tenant)
        if rooms is None:
            # Another process, with other settings, accepted the request, or the room is the tenant's no more.
            raise InvalidField(
                "this gateway has no LiveKit server for the session's own room", field="livekit_room"
            )
        return rooms.avatar(request.participant, max_duration_s=request.max_duration_s)

    async def _check_addresses(self, started: Started) -> None:
        """Refuse a session whose addresses are not allowed, before anybody is told of it."""
        try:
            await self.egress.check(started, timeout_s=self._config.connect_timeout_s)
        except UpstreamAddressRefused as error:
            self.metrics.upstream_failed(error.reason)
            raise

    async def _start(
        self,
        account: Account,
        permit: Permit,
        request: AvatarRequest,
        minted: Minted,
        journal: UpstreamJournal,
    ) -> UpstreamSession:
        account.add_session(minted.session_id)
        try:
            started = await account.rest.start(minted, has_socket=request.connector is None)
            if request.has_own_room:
                # Tokens for own rooms are signed here or by the caller, whatever LiveAvatar says of them.
                brought = request.brought_room
                started = replace(
                    started,
                    room_url="" if brought is None else brought.url,
                    viewer_token="" if brought is None else brought.viewer_token,
                    agent_token="" if brought is None else brought.listener_token,
                )
            elif request.connector is not None:
                # The agent's seat is the hosted agent's: a second participant with its identity would put it out.
                started = replace(started, agent_token="")
            await self._check_addresses(started)
        except Exception as error:
            self._learn(account, request, error)
            # Only LiveAvatar's own refusal proves that no session runs; a fault of the gateway proves nothing.
            if not isinstance(error, GatewayError) or not is_denied(error):
                # In the background: the caller gets the error at once, and the permit stays in use until
                # LiveAvatar confirms the stop.
                undoing = self._undo(account, permit, minted, journal, error)
                self.run(undoing, name=f"session-{minted.session_id}/undo")
                raise
            account.remove_session(minted.session_id)
            if isinstance(error, CapacityExhausted):
                permit.refuse()
            else:
                permit.release(settle=False)
            await journal.not_started(minted.session_id)
            raise
        account.succeed()
        permit.accept()
        await journal.started(started)
        return UpstreamSession(self, account, permit, started, journal)

    def _fail(self, account: Account, error: GatewayError) -> None:
        account.fail(error)
        self.accounts.check(account, error)

    def _learn(self, account: Account, request: AvatarRequest, error: Exception) -> None:
        # LiveAvatar also answers with 500 for a token of the caller's own room that it does not like. A start is
        # made with the session's token, so that a refusal of it, and its rate limit, say nothing about the key.
        of_room = request.has_own_room and is_answered(error)
        of_token = isinstance(error, UpstreamUnauthenticated | UpstreamRateLimited)
        if not isinstance(error, GatewayError) or of_room or of_token:
            account.health.abandon_start(time.monotonic())
        else:
            self._fail(account, error)

    async def _undo(
        self, account: Account, permit: Permit, minted: Minted, journal: UpstreamJournal, error: Exception
    ) -> None:
        """Stop the session that a start left running, or may have left running, when it failed with `error`."""
        ran = isinstance(error, UpstreamAddressRefused)
        may_be_starting = not (ran or is_answered(error))
        return_permit: Callable[[], object] = permit.abandon
        try:
            stopped = await account.stopper.stop(minted.session_id, STOP_REASON, may_be_starting=may_be_starting)
            return_permit = functools.partial(permit.release, settle=True)
            if stopped is Stopped.BEFORE and not ran:
                await journal.not_started(minted.session_id)
            else:
                await journal.stopped(minted.session_id)
        finally:
            account.remove_session(minted.session_id)
            # See `UpstreamSession`: a stop that was given up confirms nothing.
            return_permit()

    def _close_unwanted(self, task: asyncio.Task[UpstreamSession]) -> None:
        if not task.cancelled() and task.exception() is None:
            self.run(task.result().close(), name="unwanted/close")
