"""Watch over the viewers of sessions in callers' own rooms, from one task for all sessions.

It ends sessions that nobody sees, and puts viewers out that were removed and have come back.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog

from liveavatar_gateway.rooms.audience import AudienceUnknown, Occupant
from liveavatar_gateway.sessions.bulkhead import bulkhead
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.sessions.viewers import RoomControl
from liveavatar_gateway.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

ROUND_S: Final = 1.0
"""Pause between two rounds."""
_OFTEN_S: Final = 2.0
"""Interval of looks into a room whose session is about to end or keeps viewers out, and the shortest otherwise."""
_RARELY_S: Final = 10.0
"""Longest interval of looks into a room. Lower finds the last viewer's departure sooner, and asks LiveKit more."""
_FOR_EVENTS_S: Final = 5.0
"""Interval of looks for events alone, without a limit."""
_LOOKS_PER_LIMIT: Final = 6
_AT_ONCE: Final = 8
"""Looks at once."""
_BRIDGED_S: Final = 15.0
"""Time without an answer after which nothing is known of a room any more, and its countdown is cancelled."""
_MAX_FAILURES: Final = 3
"""Failures of one tenant's server in a round, after which it is left alone until the next."""

_Room = tuple[str, str]
"""Tenant and name."""


class ViewerWatch:
    """Looks into the rooms of sessions that want an end without viewers, or that keep some out."""

    def __init__(
        self,
        living: Callable[[], Iterable[SessionActor]],
        rooms: RoomControl,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            living: Returns the sessions of this process that have not ended.
            rooms: Rooms of callers; the creator closes their connections.
            metrics: Counts the looks.
            clock: Monotonic clock, seconds.
        """
        self._living = living
        self._rooms = rooms
        self._metrics = metrics
        self._clock = clock
        self._due_s: dict[_Room, float] = {}
        self._answered_s: dict[_Room, float] = {}
        self._failures: dict[str, int] = {}
        """Failures in the present round, by tenant."""

    async def run(self) -> None:
        """Look into all rooms again and again, until cancelled."""
        while True:
            await asyncio.sleep(ROUND_S)
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - root of its task: a fault ends no watch
                _log.exception("viewers.watch_crashed")

    async def look(self) -> None:
        """Look into the rooms that are due, each once for all of its sessions."""
        rooms = self._watched()
        for times in (self._due_s, self._answered_s):
            for gone in times.keys() - rooms.keys():
                del times[gone]
        now_s = self._clock()
        due = [room for room in rooms if self._is_due(room, rooms[room], now_s)]
        self._failures.clear()
        slots = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for room in due:
                tasks.create_task(self._look_into(room, rooms[room], slots), name="viewers/look")

    def _is_due(self, room: _Room, sessions: Iterable[SessionActor], now_s: float) -> bool:
        # A viewer may be removed long before the next look that was planned without it.
        longest_s = min(map(_interval_s, sessions))
        return self._due_s.get(room, now_s) <= now_s or self._due_s[room] - now_s > longest_s

    def _watched(self) -> Mapping[_Room, list[SessionActor]]:
        rooms: dict[_Room, list[SessionActor]] = {}
        for session in self._living():
            own = session.spec.livekit_room
            if own is not None and (session.watches_viewers or session.kept_out):
                rooms.setdefault((own.tenant, own.name), []).append(session)
        return rooms

    async def _look_into(self, room: _Room, sessions: list[SessionActor], slots: asyncio.Semaphore) -> None:
        async with slots:
            occupants = await self._occupants(room)
            if occupants is not None:
                await self._put_out(room, occupants, sessions)
        present = None if occupants is None else _has_viewer(occupants, sessions)
        now_s = self._clock()
        if present is None:
            self._metrics.looked_into_room("failed")
        else:
            self._metrics.looked_into_room("viewers" if present else "nobody")
            self._answered_s[room] = now_s
        if present is not None or now_s - self._answered_s.get(room, -_BRIDGED_S) >= _BRIDGED_S:
            for session in sessions:
                if session.watches_viewers:
                    with bulkhead("session.end_failed", session.id):
                        session.note_viewers(present)
        self._due_s[room] = now_s + min(map(_interval_s, sessions))

    async def _occupants(self, room: _Room) -> Sequence[Occupant] | None:
        """Return the participants of a room; None if they cannot be found out now."""
        tenant, name = room
        if self._failures.get(tenant, 0) >= _MAX_FAILURES:
            return None
        try:
            return await self._rooms.occupants(name, tenant=tenant)
        except AudienceUnknown:
            self._failures[tenant] = self._failures.get(tenant, 0) + 1
            return None

    async def _put_out(self, room: _Room, occupants: Sequence[Occupant], sessions: Iterable[SessionActor]) -> None:
        """Put viewers out that were removed and have come back; what fails is tried again with the next look."""
        tenant, name = room
        for session in sessions:
            back = [one for one in occupants if one.identity in session.kept_out and not one.is_agent]
            for occupant in back:
                try:
                    await self._rooms.remove(name, occupant.identity, tenant=tenant)
                except AudienceUnknown:
                    return
                _log.info("viewer.put_out", session=session.id)


def _has_viewer(occupants: Iterable[Occupant], sessions: Iterable[SessionActor]) -> bool:
    """Return whether anybody in a room can see the avatar; avatars and those who are put out do not count."""
    others = frozenset(
        identity for session in sessions for identity in (*session.avatar_identities, *session.kept_out)
    )
    return any(one.can_see and one.identity not in others for one in occupants)


def _interval_s(session: SessionActor) -> float:
    if session.is_absence_announced or session.kept_out:
        return _OFTEN_S
    limit_s = session.spec.viewer_absence_s
    if limit_s is None:
        return _FOR_EVENTS_S
    return min(max(limit_s / _LOOKS_PER_LIMIT, _OFTEN_S), _RARELY_S)
