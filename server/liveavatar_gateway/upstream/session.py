"""Started LiveAvatar session: its command socket, its permit, and its stop."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from liveavatar_gateway.core.messages import Event
from liveavatar_gateway.pool.book import PermitKind
from liveavatar_gateway.upstream.account import Account
from liveavatar_gateway.upstream.journal import UpstreamJournal
from liveavatar_gateway.upstream.model import RemoteStatus, Started
from liveavatar_gateway.upstream.permits import Permit
from liveavatar_gateway.upstream.socket import CommandSocket
from liveavatar_gateway.upstream.stopper import Stopped

_Result = TypeVar("_Result")

STOP_REASON: Final = "USER_CLOSED"
_SOCKET_LINGER_S: Final = 3.0
"""Time for which a socket stays open for the stop of its session before it is closed regardless."""


class SessionHost(Protocol):
    """Services of the pool that a session uses."""

    async def open_socket(self, started: Started, on_event: Callable[[Event], None]) -> CommandSocket:
        """Open the command socket of a session.

        Raises:
            UpstreamUnreachable: the socket cannot be opened.
        """

    def run(self, work: Coroutine[Any, Any, _Result], *, name: str) -> asyncio.Task[_Result]:
        """Run work to its end even if the task that awaits the result is cancelled."""


class UpstreamSession:
    """Started session with its permit. The owner closes it, which stops the session and returns the permit."""

    def __init__(
        self, host: SessionHost, account: Account, permit: Permit, started: Started, journal: UpstreamJournal
    ) -> None:
        self._host = host
        self.account = account
        """Account on which the session runs."""
        self._permit = permit
        self._journal = journal
        self._socket: CommandSocket | None = None
        self._closing: asyncio.Task[str] | None = None
        self.started = started

    async def connect(self, on_event: Callable[[Event], None]) -> CommandSocket:
        """Open the command socket; `on_event` is called with each of its events.

        Raises:
            UpstreamUnreachable: the socket cannot be opened; the session must still be closed.
        """
        self._socket = await self._host.open_socket(self.started, on_event)
        return self._socket

    async def remote_status(self) -> RemoteStatus:
        """Return LiveAvatar's record of the session; not over if LiveAvatar does not answer in time."""
        return await self.account.remote_status(self.started.session_id)

    async def ended_reason(self, *, max_age_s: float) -> str | None:
        """Return LiveAvatar's reason for the end of a session without a socket; None while it seems to run.

        Args:
            max_age_s: Age up to which an earlier list of active sessions is good enough.
        """
        session_id = self.started.session_id
        ids = await self.account.active.ids(
            lambda work: self._host.run(work, name="account/active-sessions"), max_age_s=max_age_s
        )
        if ids is None or session_id in ids:
            return None
        # A list that was read before the start, or a page of it that moved, proves nothing.
        status = await self.remote_status()
        return status.reason if status.over else None

    async def keep_alive(self) -> bool:
        """Keep the session alive by REST, while its socket is down; see `RestKeepAlives.send`."""
        return await self.account.keep_alives.send(self.started.session_id)

    async def close(self) -> str:
        """Stop the session, close its socket and return its permit; return LiveAvatar's reason if it ended first.

        The stop continues when the caller is cancelled, and the permit stays in use until the stop is confirmed.
        Idempotent: later calls return the first result, because a second stop would find the session ended by us.
        """
        if self._closing is None:
            self._closing = self._host.run(self._close(), name=f"session-{self.started.session_id}/close")
        return await asyncio.shield(self._closing)

    def transfer(self, journal: UpstreamJournal, started: Started, *, tenant: str, session_id: str) -> None:
        """Pass the session on to a caller, whose journal has it already.

        Args:
            journal: Journal of the caller's session.
            started: The session as the caller has it, with the limit that counts from now on.
            tenant: Tenant of the caller.
            session_id: Session of the caller.
        """
        self._journal = journal
        self.started = started
        self._permit.transfer(tenant=tenant, kind=PermitKind.CALLER, session_id=session_id)

    async def leave(self) -> None:
        """Release the session without stopping it, because another process drives it now."""
        self.account.remove_session(self.started.session_id)
        self._permit.abandon()
        if self._socket is not None:
            await self._socket.close()

    async def _close(self) -> str:
        account, session_id = self.account, self.started.session_id
        stopping = self._host.run(
            account.stopper.stop(session_id, STOP_REASON), name=f"session-{session_id}/await-stop"
        )
        return_permit: Callable[[], object] = self._permit.abandon
        try:
            # Stop first, so that the avatar leaves in order. A socket that stayed open would keep LiveAvatar's own
            # clean-up from ending a session that cannot be stopped.
            await asyncio.wait([stopping], timeout=_SOCKET_LINGER_S)
            if self._socket is not None:
                await self._socket.close()
            stopped = await stopping
            return_permit = functools.partial(self._permit.release, settle=True)
            await self._journal.stopped(session_id)
            return await self._foreign_reason(stopped)
        finally:
            account.remove_session(session_id)
            # A session whose stop was given up, as at the end of the process, may still run: its permit stays in
            # use until another process has confirmed the end.
            return_permit()

    async def _foreign_reason(self, stopped: Stopped) -> str:
        """Return LiveAvatar's reason if LiveAvatar or another program ended the session; empty otherwise."""
        if stopped not in (Stopped.BEFORE, Stopped.EITHER):
            return ""
        reason = (await self.remote_status()).reason
        return "" if stopped is Stopped.EITHER and reason == STOP_REASON else reason
