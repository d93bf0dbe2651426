"""Avatars that follow each other: whatever interrupts a change of them, none is left that is paid for."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.errors import AgentHosted, AgentSeatTaken, RoomTokenMissing, RoomUnreachable
from liveavatar_gateway.core.events import Expiring, Rotated
from liveavatar_gateway.core.outputs import Send
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.rooms.access import AgoraRoom, BroughtRoom, LiveKitAccess, Participant
from liveavatar_gateway.rooms.servers import RoomServers
from liveavatar_gateway.rpc import mapping
from liveavatar_gateway.sessions.avatars import Avatars
from liveavatar_gateway.sessions.billed_journal import BilledJournal
from liveavatar_gateway.sessions.billing import Payer
from liveavatar_gateway.sessions.spec import AgentSeat, LiveKitRoom, SessionSpec
from liveavatar_gateway.upstream.connectors import Connector, ConnectorKind
from liveavatar_gateway.upstream.egress import Egress, EgressConfig
from liveavatar_gateway.upstream.model import AvatarRequest, Started
from liveavatar_gateway.upstream.permits import PermitWish
from testkit import actors
from testkit.avatar import audio_input_of

STARTED = Started(session_id="old", ws_url="ws://old", room_url="", viewer_token="", max_duration_s=60)

TAIL_S = 0.2


class Upstream:
    """A session at LiveAvatar that notes what became of it."""

    def __init__(self, session_id: str) -> None:
        self.started = replace(STARTED, session_id=session_id)
        self.fate = "runs"

    async def close(self) -> str:
        self.fate = "closed"
        return ""

    async def leave(self) -> None:
        self.fate = "left"


class Pool:
    """Starts one upstream session after the other."""

    rooms = RoomServers(None)

    def __init__(self) -> None:
        self.upstreams: list[Upstream] = []
        self.tasks: set[asyncio.Task] = set()

    async def start(self, *_: object, **__: object) -> Upstream:
        self.upstreams.append(Upstream(f"fresh-{len(self.upstreams) + 1}"))
        return self.upstreams[-1]

    def run(self, work, *, name: str) -> asyncio.Task:
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


class Journal:
    """Writes as long as `slow` is not set, which is forever otherwise; `closed` when another process has it."""

    def __init__(self) -> None:
        self.closed = False
        self.slow = False
        self.stuck = asyncio.Event()

    async def save(self) -> None:
        if self.slow:
            self.stuck.set()
            await asyncio.Event().wait()


class Rooms:
    """Gives a token of its own to each who asks."""

    def __init__(self) -> None:
        self._count = 0

    def viewer(self, room: str) -> LiveKitAccess:
        self._count += 1
        return LiveKitAccess(url="wss://rooms", room=room, token=f"token-{self._count}")

    def listener(self, participant: Participant) -> LiveKitAccess:
        return LiveKitAccess(url="wss://rooms", room=participant.room, token=participant.identity)


class Standby:
    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.started_at = datetime.now(UTC)
        self.started_mono_s = 0.0
        self.last_command_at_s = 0.0


@pytest.fixture
def journal():
    return Journal()


@pytest.fixture
def pool():
    return Pool()


@pytest.fixture
def avatars(pool, journal):
    request = AvatarRequest(avatar_id="avatar")
    spec = SessionSpec(
        avatar=request, detach_grace_s=1, livekit_room=LiveKitRoom(name="desk-7", avatar_identity="avatar")
    )
    core = Session(
        "session",
        SessionConfig(end_tail_s=TAIL_S),
        new_id=lambda: "id",
        utc_now=lambda: datetime.now(UTC),
        auto_rotate=True,
    )
    core.started(max_duration_s=60, now_s=0)
    payer = Payer(session_id="session", tenant="", label="", free=False)
    billed = BilledJournal(journal, actors.Billing(), payer)
    return Avatars(spec, core, pool, journal, None, billed=billed, take_warm=lambda: None, wish=PermitWish())


async def _cancel(work, stuck: asyncio.Event) -> None:
    task = asyncio.create_task(work)
    await stuck.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)


async def test_one_that_was_started_in_place_of_another_is_closed_when_the_session_ends_meanwhile(
    avatars, pool, journal, monkeypatch
):
    old = Upstream("old")
    # The identity is saved before the start; what is slow is the save after it.
    start = pool.start

    async def started(*arguments, **options):
        journal.slow = True
        return await start(*arguments, **options)

    monkeypatch.setattr(pool, "start", started)
    avatars.upstream = old
    await _cancel(avatars.replace(), journal.stuck)
    assert [one.fate for one in (old, *pool.upstreams)] == ["closed", "closed"]


async def test_one_whose_turn_is_over_is_closed_although_the_session_ends_in_that_moment(avatars, journal):
    journal.slow = True
    old = Upstream("old")
    avatars.upstream = old
    await _cancel(avatars.take_over(Standby(Upstream("fresh"))), journal.stuck)
    await asyncio.wait(avatars._pool.tasks)
    assert old.fate == "closed"


async def test_a_replaced_avatar_is_closed_once_its_last_sound_is_in_the_room(avatars):
    old = Upstream("old")
    avatars.upstream = old
    began_s = time.monotonic()
    await avatars.take_over(Standby(Upstream("fresh")))
    assert old.fate == "runs"
    await asyncio.wait(avatars._pool.tasks)
    assert old.fate == "closed"
    assert time.monotonic() - began_s >= TAIL_S


async def test_an_avatar_that_is_replaced_in_the_middle_of_an_utterance_is_closed_at_once(avatars):
    """The new one repeats what was not heard: both would speak at once."""
    core, old = avatars._core, Upstream("old")
    core.socket_opened(0.0)
    core.on_event(m.StateUpdated("connected"), 0.0)
    core.tick(0.0)
    core.speech.receive(core.begin("u", audio_input_of(None)), None, bytes(96_000), 0.0)
    assert any(isinstance(output, Send) for output in core.drain(0.0))
    avatars.upstream = old
    await avatars.take_over(Standby(Upstream("fresh")))
    await asyncio.sleep(0)
    assert old.fate == "closed"


async def test_one_that_another_process_drives_by_now_is_left_to_it(avatars, journal):
    journal.closed = True
    old = Upstream("old")
    avatars.upstream = old
    await avatars.take_over(Standby(Upstream("fresh")))
    await asyncio.sleep(0)
    assert old.fate == "left"


async def test_what_happened_is_told_the_same_way_after_other_avatars_have_followed(avatars, pool):
    """Times and rooms are those of the event, whoever speaks by the time it is told again."""
    pool.rooms = RoomServers(Rooms())
    core = avatars._core
    await avatars.start(None)
    core.socket_opened(0.0)
    core.on_event(m.StateUpdated("connected"), 0.0)
    core.tick(50.0)
    await avatars.take_over(Standby(Upstream("second")))
    entries = core.log.after(0)
    kinds = {type(entry.event) for entry in entries}
    assert {Expiring, Rotated} <= kinds
    sent = [mapping.event_message(entry, None) for entry in entries]
    await avatars.take_over(Standby(Upstream("third")))
    assert [mapping.event_message(entry, None) for entry in entries] == sent


def _in_liveavatars_room(avatars: Avatars, egress: Egress, **addresses: str) -> Avatars:
    avatars._spec = replace(avatars._spec, livekit_room=None)
    avatars._pool.egress = egress
    avatars.started = replace(STARTED, **addresses)
    return avatars


async def test_the_gateway_hears_a_callers_room_under_the_same_name_in_each_process(avatars, pool):
    assert avatars.listener_room == ""
    avatars.started = STARTED
    with pytest.raises(RoomUnreachable):
        await avatars.listener_access()
    pool.rooms = RoomServers(Rooms())
    access = await avatars.listener_access()
    assert (access.room, access.token) == ("desk-7", "liveavatar-gateway-session")
    assert avatars.listener_room == "/desk-7"
    assert list(avatars.identities) == ["avatar"]


async def test_the_gateway_hears_a_room_of_liveavatar_with_the_agents_token(avatars):
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["8.8.8.8"]

    found = _in_liveavatars_room(
        avatars, Egress(EgressConfig(), resolve=resolve), room_url="wss://rooms.example.com", agent_token="seat"
    )
    access = await found.listener_access()
    assert (access.url, access.token) == ("wss://rooms.example.com", "seat")
    assert found.listener_room == "old"
    assert list(found.identities) == ["heygen"]


@pytest.mark.parametrize("addresses", [{"room_url": "wss://rooms"}, {"agent_token": "seat"}])
async def test_without_a_seat_in_liveavatars_room_nobody_is_heard(avatars, addresses):
    found = _in_liveavatars_room(avatars, Egress(EgressConfig()), **addresses)
    with pytest.raises(RoomTokenMissing):
        await found.listener_access()


async def test_the_gateway_does_not_take_the_seat_that_is_the_callers(avatars):
    found = _in_liveavatars_room(
        avatars, Egress(EgressConfig()), room_url="wss://rooms.example.com", agent_token="seat"
    )
    found._spec = replace(found._spec, agent_seat=AgentSeat.CALLER)
    with pytest.raises(AgentSeatTaken):
        await found.listener_access()


async def test_a_room_whose_host_is_unknown_is_tried_again(avatars):
    async def resolve(_host: str, _port: int) -> list[str]:
        raise OSError("unknown name")

    found = _in_liveavatars_room(
        avatars, Egress(EgressConfig(), resolve=resolve), room_url="wss://rooms.example.com", agent_token="seat"
    )
    with pytest.raises(RoomUnreachable):
        await found.listener_access()


@pytest.mark.parametrize(("seat", "token"), [(AgentSeat.CALLER, "for-the-agent"), (AgentSeat.GATEWAY, "")])
async def test_only_a_caller_that_asked_for_the_seat_gets_its_token(avatars, seat, token):
    avatars._spec = replace(avatars._spec, livekit_room=None, agent_seat=seat)
    avatars._pool.egress = Egress(EgressConfig())
    avatars.started = Started(
        session_id="up",
        ws_url="wss://x",
        room_url="",
        viewer_token="for-a-viewer",
        agent_token="for-the-agent",
        max_duration_s=60,
    )
    access = avatars.room_access()
    assert access is not None
    assert (access.viewer_token, access.agent_token) == ("for-a-viewer", token)


async def test_an_agora_channel_has_no_access(avatars):
    agora = AgoraRoom(app_id="app", channel="desk", uid="7", token="secret")
    avatars._spec = replace(avatars._spec, livekit_room=None, agora_room=agora)
    avatars.started = Upstream("up").started
    assert avatars.room_access() is None


async def test_a_room_on_a_server_of_the_callers_is_heard_with_the_callers_token(avatars):
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["8.8.8.8"]

    found = _in_liveavatars_room(
        avatars, Egress(EgressConfig(), resolve=resolve), room_url="wss://rooms.example.com", agent_token="ear"
    )
    found._spec = replace(
        found._spec, brought_room=BroughtRoom(url="wss://rooms.example.com", name="desk", identity="ada")
    )
    assert list(found.identities) == ["ada"]
    assert not found.are_replaceable
    assert (await found.listener_access()).token == "ear"
    room = found.room_access()
    assert room is not None
    assert (room.url, room.agent_token) == ("wss://rooms.example.com", "")


async def test_the_seat_beside_a_hosted_agent_is_not_taken(avatars):
    agent = Connector(kind=ConnectorKind.CARTESIA_AGENT, secret_id="7f1d0f9e-8a3c-4b7e-9d55-0c2f6a1e4b22")
    avatars._spec = replace(avatars._spec, livekit_room=None, connector=agent)
    avatars.started = replace(Upstream("up").started, agent_token="for-the-agent")
    with pytest.raises(AgentHosted):
        await avatars.listener_access()
