"""Avatars of one session, one after the other: the one that speaks, its limit, and the billed time of all."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from liveavatar_gateway.core.errors import (
    AgentHosted,
    AgentSeatTaken,
    RoomTokenMissing,
    RoomUnreachable,
    UpstreamUnreachable,
)
from liveavatar_gateway.core.events import Room
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.rooms.access import LiveKitAccess, Participant, RoomAccess
from liveavatar_gateway.sessions.billed_journal import BilledJournal
from liveavatar_gateway.sessions.journal import SessionJournal
from liveavatar_gateway.sessions.record import Usage
from liveavatar_gateway.sessions.restore import RestoredSession
from liveavatar_gateway.sessions.spec import LISTENER, AgentSeat, SessionSpec
from liveavatar_gateway.sessions.standby import Standby
from liveavatar_gateway.sessions.warm_session import WarmSession
from liveavatar_gateway.upstream.model import Started
from liveavatar_gateway.upstream.permits import PermitWish, QueuePlace
from liveavatar_gateway.upstream.pool import Pool
from liveavatar_gateway.upstream.session import UpstreamSession

TakeWarm = Callable[[], WarmSession | None]

_log = structlog.get_logger(__name__)

_IDENTITY: Final = "heygen"
"""Identity of the avatar in rooms of LiveAvatar. Source: LiveAvatar's SDK, and pipecat's transport."""
"""Begin of the gateway's own identity in rooms of callers. With the id of the session it is the same in each
process, so that LiveKit puts the connection of a dead process out when the session is adopted."""
_RESOLVE_TIMEOUT_S: Final = 5.0
_STANDBY_WAIT_S = 5.0
"""Longest wait for a permit for an avatar that follows another; callers of new sessions wait longer."""


class Avatars:
    """Starter and registrar of the avatars of one session. The session closes `upstream` when it is over."""

    def __init__(
        self,
        spec: SessionSpec,
        core: Session,
        pool: Pool,
        journal: SessionJournal,
        restored: RestoredSession | None,
        *,
        billed: BilledJournal,
        take_warm: TakeWarm,
        wish: PermitWish,
    ) -> None:
        """Begin without an avatar, or with the one of a process that is gone.

        Args:
            spec: The caller's wishes.
            core: State machine of the session.
            pool: Source of sessions at LiveAvatar.
            journal: Journal of the session.
            restored: State that another process left; None for a new session.
            billed: Journal of its LiveAvatar sessions, and of their minutes.
            take_warm: Returns a warm session that matches the wishes exactly; None without one.
            wish: Permits that the session asks for.
        """
        self._spec = spec
        self._core = core
        self._pool = pool
        self._journal = journal
        self._billed = billed
        self._take_warm = take_warm
        self._connected: Standby | None = None
        self.is_limit_enforced = False
        """True if the limit is below LiveAvatar's own, so that the gateway ends the session there."""
        self._wish = wish
        self.upstream: UpstreamSession | None = None
        """Session at LiveAvatar that speaks; None before the first is started."""
        self.started: Started | None = None if restored is None else restored.started
        """Addresses and limit of the avatar that speaks."""
        self.started_at: datetime | None = None if restored is None else restored.started_at
        """Start of LiveAvatar's billing of the avatar that speaks."""
        self.avatar_count = 1 if restored is None else restored.avatar_count
        """Number of avatars requested so far."""
        self.retired_s = 0.0 if restored is None else restored.retired_s
        """Billed time of the avatars before the one that speaks."""

    @property
    def current(self) -> UpstreamSession:
        """Session at LiveAvatar that speaks; only after the start of the first."""
        assert self.upstream is not None  # noqa: S101 - see above
        return self.upstream

    @property
    def are_replaceable(self) -> bool:
        """True if another avatar can join in place of one out of reach: in a room of the caller's own alone."""
        return self._spec.livekit_room is not None

    async def start(
        self,
        wait_s: float | None,
        *,
        on_wait: Callable[[QueuePlace], object] = lambda _place: None,
        take_reserved: TakeWarm | None = None,
    ) -> UpstreamSession:
        """Start the first avatar, or take one that is warm.

        Args:
            wait_s: Longest wait for a permit of the account, seconds; None is the pool's own limit.
            on_wait: Called when such a wait begins, and when the place in the queue changes. What it raises at
                first refuses the wait.
            take_reserved: Returns the avatar of a reservation, or None if it was lost; None without a reservation.

        Raises:
            GatewayError: it could not be started.
        """
        await self._billed.require_budget()
        warm = (None if take_reserved is None else take_reserved()) or self._take_warm()
        if warm is not None and (taken := await self._take(warm)) is not None:
            return taken
        request = self._spec.avatar_request(1)
        upstream = await self._pool.start(request, self._billed, wish=self._wish, wait_s=wait_s, on_wait=on_wait)
        self._set_current(upstream)
        self.upstream = upstream
        return upstream

    async def _take(self, warm: WarmSession) -> UpstreamSession | None:
        """Continue with a warm session; None if it was lost in this moment."""
        asked_s, left_s = self._spec.avatar.max_duration_s, warm.left_s(time.monotonic())
        limit_s = left_s if asked_s is None else asked_s
        # Shielded: a session that changes its owner has to end up with one.
        handing = self._pool.run(warm.hand_over(self._billed, limit_s), name=f"session-{self._core.id}/take")
        try:
            upstream = await asyncio.shield(handing)
        except asyncio.CancelledError:
            handing.add_done_callback(self._close_unwanted)
            raise
        if upstream is None:
            return None
        self.is_limit_enforced = asked_s is not None and (left_s is None or asked_s < left_s)
        self._connected = warm.avatar
        self._set_current(upstream)
        self.upstream = upstream
        return upstream

    def _close_unwanted(self, handing: asyncio.Task[UpstreamSession | None]) -> None:
        if not handing.cancelled() and handing.exception() is None and (upstream := handing.result()) is not None:
            self._pool.run(upstream.close(), name=f"session-{self._core.id}/unwanted")

    def take_connected(self) -> Standby | None:
        """Return the avatar of a warm session once, whose socket is open; None without one."""
        connected, self._connected = self._connected, None
        return connected if connected is not None and connected.has_socket and not connected.is_gone else None

    def adopt(self, started: Started, account: str) -> None:
        """Continue with the avatar of a process that is gone, which runs on an account."""
        self.upstream = self._pool.adopt(started, self._billed, account=account, wish=self._wish)
        self._billed.adopted(started, self.started_at)

    def _set_current(self, upstream: UpstreamSession) -> None:
        self.started, self.started_at = upstream.started, datetime.now(UTC)

    async def start_next(self) -> UpstreamSession:
        """Start an avatar that is to follow the one that speaks.

        Raises:
            GatewayError: it could not be started.
        """
        self.avatar_count += 1
        # Saved first: two avatars must not join a room under the same identity.
        await self._journal.save()
        return await self._pool.start(
            self._spec.avatar_request(self.avatar_count), self._billed, wish=self._wish, wait_s=_STANDBY_WAIT_S
        )

    async def take_over(self, standby: Standby) -> None:
        """Let a standby speak from now on, and close the avatar before it.

        The change is in the registry before the standby is sent anything.
        """
        replaced, self.upstream = self.upstream, standby.upstream
        fresh = standby.upstream.started
        self._retire_current()
        self.started, self.started_at = fresh, standby.started_at
        now_s = time.monotonic()
        access = self.room_access()
        inside = self._core.take_over(
            upstream_session_id=fresh.session_id,
            max_duration_s=fresh.max_duration_s,
            expires_at=self.expires_at,
            # Part of the event, since the avatar after this one may be in another room when it is sent again.
            room=None
            if access is None
            else Room(url=access.url, token=access.viewer_token, agent_token=access.agent_token),
            age_s=now_s - standby.started_mono_s,
            last_command_at_s=standby.last_command_at_s,
            now_s=now_s,
        )
        try:
            await self._journal.save()
            _log.info("session.rotated", session=self._core.id, upstream_session=fresh.session_id)
        finally:
            # Also if this task is cancelled. A process that owns the session by now may drive the replaced avatar.
            if replaced is not None:
                closing = (
                    replaced.leave() if self._journal.closed else self._close_replaced(replaced, inside=inside)
                )
                self._pool.run(closing, name=f"session-{self._core.id}/retire")

    async def _close_replaced(self, replaced: UpstreamSession, *, inside: bool) -> None:
        """Close an avatar once its last sound is in the room; at once when the new one repeats what it says."""
        if not inside:
            await asyncio.sleep(self._core.config.end_tail_s)
        await replaced.close()

    async def replace(self) -> UpstreamSession:
        """Close an avatar that is out of reach, and start another in the caller's room in its place.

        Raises:
            GatewayError: none could be started.
        """
        if self.upstream is not None:
            closing = self._pool.run(self.upstream.close(), name=f"session-{self._core.id}/replace")
            await asyncio.wait([closing], timeout=_STANDBY_WAIT_S)
        self._retire_current()
        upstream = await self.start_next()
        self._set_current(upstream)
        try:
            await self._journal.save()
        except asyncio.CancelledError:
            # The session ends meanwhile, and only this task knows the fresh avatar.
            self._pool.run(upstream.close(), name=f"session-{self._core.id}/unwanted")
            raise
        self.upstream = upstream
        return upstream

    def _retire_current(self) -> None:
        if self.started_at is not None:
            self.retire((datetime.now(UTC) - self.started_at).total_seconds())

    def retire(self, billed_s: float) -> None:
        """Add the billed time of an avatar that is closed."""
        self.retired_s += billed_s

    def usage(self) -> Usage:
        """Return the usage of the session up to now."""
        return Usage.of(self._core, avatar_count=self.avatar_count, retired_s=self.retired_s)

    def viewer_access(self) -> LiveKitAccess | None:
        """Return access to the room for a browser; None before the room exists, or if no token can be made.

        In a room of the caller's own the token is never LiveAvatar's, which may allow more than watching.
        """
        if self.started is None:
            return None
        if (own := self._spec.livekit_room) is not None:
            rooms = self._pool.rooms.of_room(own.name, tenant=own.tenant)
            return None if rooms is None else rooms.viewer(own.name)
        if self._spec.agora_room is not None:
            return None
        if not self._pool.egress.may_show_room(self.started.room_url):
            # From a registry that somebody changed; the session ends when its socket is opened.
            return None
        return LiveKitAccess(url=self.started.room_url, room="", token=self.started.viewer_token)

    def room_access(self) -> RoomAccess | None:
        """Return access to the room for a browser and the caller's agent, see `viewer_access`."""
        access = self.viewer_access()
        if access is None:
            return None
        return RoomAccess(url=access.url, viewer_token=access.token, agent_token=self._agent_token())

    def _agent_token(self) -> str:
        """Return the token of the caller's agent; empty if its caller has not asked for the seat."""
        if self.started is None or self._spec.agent_seat is not AgentSeat.CALLER:
            return ""
        if (own := self._spec.livekit_room) is None:
            return self.started.agent_token
        rooms = self._pool.rooms.of_room(own.name, tenant=own.tenant)
        limit_s = self._spec.avatar.max_duration_s
        return "" if rooms is None else rooms.agent(own.name, own.agent_identity, max_duration_s=limit_s)

    @property
    def identities(self) -> Sequence[str]:
        """Identities of all avatars that the session may have in its room."""
        if (brought := self._spec.brought_room) is not None:
            return (brought.identity,)
        if self._spec.livekit_room is None:
            return (_IDENTITY,)
        requests = (self._spec.avatar_request(ordinal) for ordinal in range(1, self.avatar_count + 1))
        return [request.participant.identity for request in requests if request.participant is not None]

    @property
    def listener_room(self) -> str:
        """Name of the present room, for comparison alone; empty before there is one."""
        if self.started is None:
            return ""
        own = self._spec.livekit_room
        return self.started.session_id if own is None else f"{own.tenant}/{own.name}"

    async def listener_access(self) -> LiveKitAccess:
        """Return the access with which the gateway joins the room to hear its users.

        Raises:
            RoomUnreachable: there is no LiveKit server for the room, or its host cannot be resolved.
            AgentSeatTaken: the only seat of a room of LiveAvatar's is the caller's.
            AgentHosted: the seat is the hosted agent's, whom LiveKit would disconnect.
            RoomTokenMissing: LiveAvatar or the caller gave no token for the room, as for an Agora channel.
            UpstreamAddressRefused: LiveAvatar named an address that the gateway does not use.
        """
        assert self.started is not None  # noqa: S101 - there is a `listener_room`
        if (own := self._spec.livekit_room) is not None:
            rooms = self._pool.rooms.of_room(own.name, tenant=own.tenant)
            if rooms is None:
                raise RoomUnreachable("no LiveKit server for the room")
            identity = f"{LISTENER}-{self._core.id[:13]}"
            return rooms.listener(Participant(room=own.name, identity=identity, tenant=own.tenant))
        if self._spec.connector is not None:
            raise AgentHosted(self._core.id, "ListenAudio")
        if self._spec.agent_seat is AgentSeat.CALLER:
            raise AgentSeatTaken(self._core.id)
        if not self.started.room_url or not self.started.agent_token:
            raise RoomTokenMissing(self._core.id)
        try:
            await self._pool.egress.check_room(self.started, timeout_s=_RESOLVE_TIMEOUT_S)
        except UpstreamUnreachable:
            raise RoomUnreachable("its host cannot be resolved") from None
        return LiveKitAccess(url=self.started.room_url, room="", token=self.started.agent_token)

    @property
    def expires_at(self) -> datetime | None:
        """End of the avatar that speaks by LiveAvatar's limit; None before the start, or without a limit."""
        if self.started is None or self.started_at is None:
            return None
        return self.started.expires_at(self.started_at)

    @property
    def billed(self) -> timedelta:
        """Billed time: from the start of each avatar to its end, or to now."""
        retired = timedelta(seconds=self.retired_s)
        if self.started_at is None:
            return retired
        return retired + (self._core.ended_at or datetime.now(UTC)) - self.started_at
