"""Viewers of a session: whose tokens are issued, and who is kept out until when."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    InvalidField,
    RoomNotAllowed,
    RoomNotOwn,
    RoomUnreachable,
    SessionEnded,
)
from liveavatar_gateway.rooms.access import Viewer
from liveavatar_gateway.rooms.audience import AudienceUnknown, Occupant
from liveavatar_gateway.rooms.servers import RoomServers
from liveavatar_gateway.rooms.tokens import LiveKitConfig, LiveKitRooms
from liveavatar_gateway.sessions.spec import LiveKitRoom, SessionSpec
from liveavatar_gateway.sessions.viewers import MAX_REMOVED, SessionViewers, remove_viewer
from liveavatar_gateway.upstream.model import AvatarRequest
from testkit.actors import AVATAR_ID

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
ANN = Viewer(identity="ann")
BEN = Viewer(identity="ben")


class Bench:
    """Viewers of a session, with a clock that a test moves."""

    def __init__(self, *, own: bool = True, allowed: bool = True, viewers=(), removed=None) -> None:
        spec = SessionSpec(
            avatar=AvatarRequest(avatar_id=AVATAR_ID),
            detach_grace_s=1.0,
            livekit_room=LiveKitRoom(name="desk-7") if own else None,
            viewers=tuple(viewers),
        )
        signer = LiveKitRooms(LiveKitConfig(url="wss://r", api_key="k", api_secret="s" * 32))
        servers = RoomServers(signer, allows=lambda _tenant, _room: self.allowed)
        self.allowed = allowed
        self.now = NOW
        self.viewers = SessionViewers("s-1", spec, servers, removed=removed or {}, utc_now=lambda: self.now)


def test_the_viewers_of_the_spec_have_fresh_tokens_less_those_that_are_kept_out():
    bench = Bench(viewers=[ANN, BEN])
    assert [one.identity for one in bench.viewers.of_spec()] == ["ann", "ben"]
    bench.viewers.keep_out("ann")
    assert [one.identity for one in bench.viewers.of_spec()] == ["ben"]
    bench.allowed = False
    assert bench.viewers.of_spec() == ()


def test_a_viewer_is_kept_out_until_no_token_can_be_valid():
    bench = Bench()
    bench.viewers.keep_out("ann")
    bench.now += timedelta(hours=24)
    assert set(bench.viewers.removed) == {"ann"}
    bench.now += timedelta(minutes=11)
    assert not bench.viewers.removed


def test_those_kept_out_by_a_process_that_is_gone_stay_out():
    bench = Bench(removed={"ann": NOW + timedelta(hours=1), "ben": NOW - timedelta(seconds=1)})
    assert set(bench.viewers.removed) == {"ann"}


def test_a_new_token_lets_a_viewer_in_again():
    bench = Bench()
    bench.viewers.keep_out("ann")
    bench.viewers.keep_out("ben")
    (issued,) = bench.viewers.issue([ANN])
    assert issued.identity == "ann"
    assert set(bench.viewers.removed) == {"ben"}


@pytest.mark.parametrize("identity", ["avatar", "avatar-2", "avatar-agent"])
def test_avatars_and_agents_are_not_kept_out(identity):
    with pytest.raises(InvalidField) as refused:
        Bench().viewers.keep_out(identity)
    assert refused.value.field == "identity"


def test_few_viewers_are_kept_out_at_once():
    bench = Bench()
    for number in range(MAX_REMOVED):
        bench.viewers.keep_out(f"viewer {number}")
    bench.viewers.keep_out("viewer 0")
    with pytest.raises(CapacityExhausted) as refused:
        bench.viewers.keep_out("one more")
    assert (refused.value.scope, refused.value.metadata["limit"]) == ("session", str(MAX_REMOVED))


def test_in_a_room_of_liveavatars_there_are_no_viewers_to_name():
    bench = Bench(own=False)
    for act in (lambda: bench.viewers.issue([ANN]), lambda: bench.viewers.keep_out("ann")):
        with pytest.raises(RoomNotOwn):
            act()
    assert bench.viewers.of_spec() == ()


def test_a_room_that_is_the_tenants_no_more_has_no_tokens_and_keeps_its_removals():
    bench = Bench(allowed=False)
    bench.viewers.keep_out("ann")
    with pytest.raises(RoomNotAllowed):
        bench.viewers.issue([ANN])
    assert set(bench.viewers.removed) == {"ann"}


# --- removal


class Session:
    """Session that notes who is kept out."""

    def __init__(self, viewers: SessionViewers, *, over: bool = False) -> None:
        self.viewers = viewers
        self._over = over
        self.saved = 0

    def require_alive(self) -> None:
        if self._over:
            raise SessionEnded("s-1", "IDLE")

    async def keep_out(self, identity: str) -> None:
        self.viewers.keep_out(identity)
        self.saved += 1


class Rooms:
    """Room in which Ann watches and a program talks."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.down = False
        self.stuck = False
        self.removed: list[str] = []

    async def occupants(self, _room, *, tenant):
        if self.down:
            raise AudienceUnknown
        return [
            Occupant(identity="ann", can_see=True, is_agent=False),
            Occupant(identity="robot", can_see=False, is_agent=True),
        ]

    async def remove(self, _room, identity, *, tenant):
        assert self.session.saved, "what is to be kept out is saved first"
        if self.stuck:
            raise AudienceUnknown
        self.removed.append(identity)


def removal(**options) -> SimpleNamespace:
    session = Session(Bench().viewers, **options)
    return SimpleNamespace(session=session, rooms=Rooms(session))


async def test_a_viewer_is_kept_out_and_put_out():
    found = removal()
    await remove_viewer(found.session, "ann", found.rooms)
    assert found.rooms.removed == ["ann"]
    assert set(found.session.viewers.removed) == {"ann"}


async def test_a_viewer_that_is_not_there_is_kept_out():
    found = removal()
    await remove_viewer(found.session, "ben", found.rooms)
    assert found.rooms.removed == []
    assert set(found.session.viewers.removed) == {"ben"}


async def test_an_agent_of_others_is_not_removed():
    found = removal()
    with pytest.raises(InvalidField):
        await remove_viewer(found.session, "robot", found.rooms)
    assert not found.session.viewers.removed


@pytest.mark.parametrize("fault", ["down", "stuck"])
async def test_while_livekit_cannot_be_reached_the_caller_is_told_and_the_viewer_stays_listed(fault):
    found = removal()
    setattr(found.rooms, fault, True)
    with pytest.raises(RoomUnreachable):
        await remove_viewer(found.session, "ann", found.rooms)
    assert set(found.session.viewers.removed) == {"ann"}


async def test_a_session_that_is_over_puts_nobody_out():
    found = removal(over=True)
    with pytest.raises(SessionEnded):
        await remove_viewer(found.session, "ann", found.rooms)
