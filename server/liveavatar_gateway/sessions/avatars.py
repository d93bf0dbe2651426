"""The avatars of one session, one after the other: which one speaks, until when, and what all were billed for."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import structlog

from liveavatar_gateway.core.events import Room
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.rooms.access import LiveKitAccess
from liveavatar_gateway.sessions.journal import SessionJournal
from liveavatar_gateway.sessions.restore import RestoredSession
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.sessions.standby import Standby
from liveavatar_gateway.upstream.model import Started
from liveavatar_gateway.upstream.pool import Pool
from liveavatar_gateway.upstream.session import UpstreamSession

_log = structlog.get_logger(__name__)

_SUCCESSOR_WAIT_S = 5.0
"""Longest wait for a place for an avatar that is to follow another, before its callers are told."""


class Avatars:
    """Starts them, and knows which one speaks."""

    def __init__(
        self,
        spec: SessionSpec,
        core: Session,
        pool: Pool,
        ledger: SessionJournal,
        left: RestoredSession | None,
    ) -> None:
        """Begin with none, or with the one that another process left.

        Args:
            spec: What the caller asked for.
            core: The state machine.
            pool: Where sessions at LiveAvatar come from.
            ledger: What the registry is told.
            left: What another process left; None for a new session.
        """
        self._spec = spec
        self._core = core
        self._pool = pool
        self._ledger = ledger
        self.started: Started | None = None if left is None else left.started
        """How the one that speaks is reached."""
        self.started_at: datetime | None = None if left is None else left.started_at
        """Since when LiveAvatar bills it."""
        core.expires_at = self.expires_at
        self.turn_count = 1 if left is None else left.turn_count
        """Avatars that were asked for."""
        self.retired_s = 0.0 if left is None else left.retired_s
        """What those were billed for that are no more."""

    async def start(self, wait_s: float | None) -> UpstreamSession:
        """Start the first.

        Args:
            wait_s: Longest wait for a place on the account, seconds; None is the pool's own limit.

        Raises:
            GatewayError: it could not be started.
        """
        return await self._pool.start(self._spec.avatar_request(1), self._ledger, wait_s=wait_s)

    def speaks(self, upstream: UpstreamSession) -> None:
        """The first, or one in place of another, is started."""
        self.started, self.started_at = upstream.started, datetime.now(UTC)
        self._core.expires_at = self.expires_at

    async def start_next(self) -> UpstreamSession:
        """Start one that is to follow.

        Raises:
            GatewayError: it could not be started.
        """
        self.turn_count += 1
        # Before anybody has the identity that goes with it.
        await self._ledger.save()
        return await self._pool.start(
            self._spec.avatar_request(self.turn_count), self._ledger, wait_s=_SUCCESSOR_WAIT_S
        )

    async def succeed(self, successor: Standby, old: UpstreamSession | None) -> None:
        """A fresh avatar speaks from now on. That is in the registry before it does so, and the old one goes."""
        fresh = successor.upstream.started
        self._retire_this()
        self.started, self.started_at = fresh, successor.started_at
        now_s = time.monotonic()
        access = self.viewer_access()
        self._core.take_over(
            upstream_session_id=fresh.session_id,
            max_duration_s=fresh.max_duration_s,
            expires_at=self.expires_at,
            # Kept as it is now: another avatar may be in another room by the time this is told again.
            room=None if access is None else Room(url=access.url, token=access.token),
            age_s=now_s - successor.started_mono_s,
            now_s=now_s,
        )
        try:
            await self._ledger.save()
            _log.info("session.rotated", session=self._core.id, upstream_session=fresh.session_id)
        finally:
            # Whatever ends this task. Where another process has the session, the old one may be what it drives.
            if old is not None:
                going = old.leave() if self._ledger.closed else old.close()
                self._pool.run(going, name=f"session-{self._core.id}/retire")

    async def replace(self, old: UpstreamSession | None) -> UpstreamSession:
        """One that cannot be reached any more goes, and another comes into the caller's room in its place.

        Raises:
            GatewayError: none could be started.
        """
        if old is not None:
            closing = self._pool.run(old.close(), name=f"session-{self._core.id}/replace")
            await asyncio.wait([closing], timeout=_SUCCESSOR_WAIT_S)
        self._retire_this()
        upstream = await self.start_next()
        self.speaks(upstream)
        try:
            await self._ledger.save()
        except asyncio.CancelledError:
            # The session ends meanwhile, and nobody else knows of this one yet.
            self._pool.run(upstream.close(), name=f"session-{self._core.id}/unwanted")
            raise
        return upstream

    def _retire_this(self) -> None:
        if self.started_at is not None:
            self.retire((datetime.now(UTC) - self.started_at).total_seconds())

    def retire(self, billed_s: float) -> None:
        """An avatar is no more that was billed for so long."""
        self.retired_s += billed_s

    def viewer_access(self) -> LiveKitAccess | None:
        """Return what a browser needs to join; None before the room exists, or without a token for an own room.

        LiveAvatar's own token, if it gives one for such a room, may do more than watch.
        """
        if self.started is None:
            return None
        if (own := self._spec.livekit_room) is not None:
            return None if self._pool.rooms is None else self._pool.rooms.viewer(own.name)
        return LiveKitAccess(url=self.started.room_url, room="", token=self.started.viewer_token)

    @property
    def expires_at(self) -> datetime | None:
        """When LiveAvatar will end the one that speaks; None before the start, or when LiveAvatar did not say."""
        if self.started is None or self.started_at is None or self.started.max_duration_s is None:
            return None
        return self.started_at + timedelta(seconds=self.started.max_duration_s)

    @property
    def billed(self) -> timedelta:
        """What LiveAvatar bills: from the start of each to its end, or to now."""
        retired = timedelta(seconds=self.retired_s)
        if self.started_at is None:
            return retired
        return retired + (self._core.ended_at or datetime.now(UTC)) - self.started_at
