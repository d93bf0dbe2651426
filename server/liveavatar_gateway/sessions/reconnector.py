"""Opening of the command socket: retries within a budget, and replacement of an avatar that stays out of reach."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import UpstreamError, UpstreamUnreachable
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.states import SessionState
from liveavatar_gateway.sessions.avatars import Avatars
from liveavatar_gateway.sessions.journal import SessionJournal
from liveavatar_gateway.sessions.standby import StandbyManager
from liveavatar_gateway.upstream.backoff import Backoff
from liveavatar_gateway.upstream.session import UpstreamSession
from liveavatar_gateway.upstream.socket import CommandSocket, SocketClosed, read_what_arrived

_log = structlog.get_logger(__name__)

Listener = Callable[[m.Event], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconnectConfig:
    """Retries after the loss of a command socket. Seconds."""

    budget_s: float = 30.0
    """Longest time without the avatar, sockets that open and do not last included. Higher survives longer outages
    of LiveAvatar and pays for them; 0 tries only once at the beginning, and ends a session with its socket."""
    first_wait_s: float = 0.2
    """Longest wait before the first try. Lower comes back sooner, and together with every other session."""
    max_wait_s: float = 5.0
    """Longest wait between two tries."""
    stable_s: float = 1.0
    """Shortest life of a socket after which the next loss starts with the shortest wait again. After the same time
    with a ready avatar, the next loss starts with the whole budget."""


class SessionGone(Exception):
    """LiveAvatar has ended the session. `upstream_reason` is LiveAvatar's reason; empty if it gave none."""

    def __init__(self, upstream_reason: str) -> None:
        super().__init__(upstream_reason)
        self.upstream_reason = upstream_reason


class Reconnector:
    """Opener of the command socket of one session.

    The budget counts from the loss of a ready avatar, whatever number of sockets opened and closed since then.
    In a room of the caller's own, an avatar that stays out of reach is replaced by a fresh one, once.
    """

    def __init__(
        self,
        core: Session,
        config: ReconnectConfig,
        *,
        journal: SessionJournal,
        avatars: Avatars,
        standbys: StandbyManager,
    ) -> None:
        self._core = core
        self._config = config
        self._journal = journal
        self._avatars = avatars
        self._standbys = standbys
        self._backoff = Backoff(first_s=config.first_wait_s, max_s=config.max_wait_s, rng=random.Random())  # noqa: S311 - jitter
        self._deadline_s: float | None = None
        """End of the budget; None before the first try for an avatar."""
        self._attempt_count = 0
        self._stood_still = False
        """True if the process stood still since the latest try began."""
        self._replaced = False
        """True if the present avatar is a replacement that was not ready for `stable_s` yet."""

    def note_standstill(self) -> None:
        """Grant another try: the process stood still, so part of the budget passed without one."""
        self._stood_still = True

    def note_lost(self, *, opened_s: float, ready_s: float | None, now_s: float) -> None:
        """Take note of the loss of a socket.

        Args:
            opened_s: Monotonic time at which the socket was open.
            ready_s: Monotonic time at which its avatar became ready; None if it never did.
            now_s: Monotonic time.
        """
        if ready_s is not None and now_s - ready_s >= self._config.stable_s:
            # Only then: a socket that is lost over and over spends one budget.
            self._start_budget(now_s)
            self._replaced = False
        if now_s - opened_s >= self._config.stable_s:
            self._backoff.reset()

    async def open(
        self, listen: Callable[[UpstreamSession], Listener], lost: SocketClosed | None
    ) -> tuple[CommandSocket, int]:
        """Open a socket; return it and the number of tries.

        Args:
            listen: Returns the listener for events of an upstream session.
            lost: Reason for which the previous socket was closed; None for the first socket.

        Raises:
            SessionGone: LiveAvatar has ended the session.
            UpstreamUnreachable: the budget is spent.
            GatewayError: no replacement could be started.
        """
        try:
            return await self._open(listen, lost, again=self._core.state is SessionState.RECONNECTING)
        except UpstreamUnreachable:
            # Each replacement is billed, so a replacement that is out of reach as well is not replaced.
            if self._replaced or not self._avatars.are_replaceable:
                raise
            self._standbys.close()
            fresh = await self._avatars.replace()
        self._replaced = True
        self._deadline_s = None
        self._core.replaced(
            max_duration_s=fresh.started.max_duration_s,
            expires_at=self._avatars.expires_at,
            now_s=time.monotonic(),
        )
        self._backoff.reset()
        return await self._open(listen, lost, again=False)

    async def _open(
        self, listen: Callable[[UpstreamSession], Listener], lost: SocketClosed | None, *, again: bool
    ) -> tuple[CommandSocket, int]:
        upstream = self._avatars.current
        deadline_s = self._deadline_s or self._start_budget(time.monotonic())
        count = 0
        wait_s = self._backoff.next_s() if again else 0.0
        failure: UpstreamError | None = None
        while (not again and count == 0) or await self._may_try(wait_s, deadline_s):
            await asyncio.sleep(wait_s)
            await self._journal.confirm_lease()
            self._stood_still = False
            count += 1
            self._attempt_count += 1
            try:
                socket = await upstream.connect(listen(upstream))
            except UpstreamUnreachable as error:
                failure = error
                status = error.metadata.get("http_status", "")
                _log.info("upstream.connect_failed", session=self._core.id, attempt=count, http_status=status)
                if status.startswith("4"):
                    await self._raise_if_gone(upstream)
            else:
                if not again:
                    # Tries to open the first socket of an avatar do not count as reconnection.
                    self._attempt_count = 0
                return socket, count
            wait_s = self._backoff.next_s()
        raise self._unreachable(lost) from failure

    async def _may_try(self, wait_s: float, deadline_s: float) -> bool:
        """Return whether another try is due: within the budget, or after the process stood still."""
        if time.monotonic() + wait_s <= deadline_s:
            return True
        # After this, tasks that notice a standstill have run too.
        await read_what_arrived()
        return self._stood_still and self._config.budget_s > 0

    def _start_budget(self, now_s: float) -> float:
        """Start a whole budget and return its end."""
        self._attempt_count = 0
        self._deadline_s = now_s + self._config.budget_s
        return self._deadline_s

    async def _raise_if_gone(self, upstream: UpstreamSession) -> None:
        """Ask LiveAvatar's API: a refused socket may mean that the session is over."""
        status = await upstream.remote_status()
        if status.over:
            session_id = upstream.started.session_id
            _log.info("upstream.gone", session=self._core.id, upstream_session=session_id, reason=status.reason)
            raise SessionGone(status.reason)

    def _unreachable(self, lost: SocketClosed | None) -> UpstreamUnreachable:
        budget_s = self._config.budget_s
        if lost is None:
            return UpstreamUnreachable(
                f"LiveAvatar's command socket could not be opened within {budget_s:g} s; try again",
                retry_after_s=1.0,
                attempt_count=self._attempt_count,
            )
        return UpstreamUnreachable(
            f"the connection to the avatar was lost ({lost}) and could not be made again within "
            f"{budget_s:g} s; create a new session",
            close_code=lost.code,
            attempt_count=self._attempt_count,
        )
