"""Unary calls about sessions."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar_gateway.auth.authenticator import NoAuthenticator
from liveavatar_gateway.core.errors import InvalidField, RoomNotAllowed, RoomNotOwn
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.rooms.audience import Occupant
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.session_service import SessionService
from liveavatar_gateway.rpc.wishes import Wishes
from liveavatar_gateway.sessions.spec import LiveKitRoom
from liveavatar_gateway.upstream.avatars import Avatar
from testkit.actors import AVATAR_ID, Context, Process
from testkit.avatar import audio_input_of

CONFIG = RpcConfig(speech=SpeechConfig(), detach_grace_s=7.0)
SPEC = session_pb2.SessionSpec(avatar_id=AVATAR_ID)


class Directory:
    """Sessions of one process."""

    draining = False

    def __init__(self, process: Process) -> None:
        self._process = process
        self.sessions: dict = {}

    async def open(self, spec, request_id, *, tenant, wait_s, reservation_id):
        session = self._process.session(detach_grace_s=spec.detach_grace_s, labels=spec.labels)
        self.sessions[session.id] = session
        self._process.run(session)
        return session

    async def get(self, session_id, *, tenant):
        return self.sessions[session_id]

    async def view(self, session_id, *, tenant):
        return self.sessions[session_id].view()

    async def end(self, session_id, reason, *, tenant, wait_s):
        session = self.sessions[session_id]
        session.end(reason)
        await session.finished.wait()
        return session.view()

    def newest(self, *, tenant):
        return list(reversed(self.sessions.values()))


class Reservations:
    """Prepares an avatar for every caller."""

    def __init__(self):
        self.asked = []

    async def prepare(self, spec, request_id, *, tenant, hold_s, wait_s):
        self.asked.append((spec, request_id, hold_s))
        return SimpleNamespace(id="r-1", expires_at=datetime(2026, 11, 30, 12, tzinfo=UTC))


class Avatars:
    """Catalog of three avatars."""

    async def avatars(self):
        return [Avatar(id=f"id-{name}", name=name, sandbox=name == "c") for name in "bca"]


class Rooms:
    """Rooms in which Ann is."""

    def __init__(self):
        self.removed = []

    async def occupants(self, room, *, tenant):
        return [Occupant(identity="ann", can_see=True, is_agent=False)]

    async def remove(self, room, identity, *, tenant):
        self.removed.append((room, identity))


@pytest.fixture
async def process():
    found = Process()
    yield found
    await found.close()


@pytest.fixture
def directory(process):
    return Directory(process)


@pytest.fixture
def service(directory):
    permits = SimpleNamespace(limit=9, used=2, waiting=1)
    return SessionService(
        CONFIG,
        directory,
        permits,
        Wishes(CONFIG, NoAuthenticator(), may_use_room_url=lambda _: True),
        avatars=Avatars(),
        reservations=Reservations(),
        rooms=Rooms(),
    )


async def test_a_created_session_is_ready_and_comes_with_its_room_and_a_handle(service):
    response = await service.CreateSession(p.CreateSessionRequest(spec=SPEC), Context())
    assert response.session.state == session_pb2.SESSION_STATE_READY
    assert (response.room.url, response.room.viewer_token) == ("wss://room", "viewer")
    assert response.handle.startswith(response.session.id)
    found = await service.GetSession(p.GetSessionRequest(session_id=response.session.id), Context())
    assert found.session.id == response.session.id


@pytest.mark.parametrize(("request_id", "ends"), [("", True), ("r-1", False)])
async def test_a_caller_that_gives_up_leaves_a_session_only_if_it_can_come_back(
    service, process, directory, request_id, ends
):
    process.pool.permit.clear()
    request = p.CreateSessionRequest(spec=SPEC, request_id=request_id)
    creating = asyncio.create_task(service.CreateSession(request, Context()))
    async with asyncio.timeout(10):
        while not directory.sessions:
            await asyncio.sleep(0)
    creating.cancel()
    await asyncio.wait([creating])
    (session,) = directory.sessions.values()
    assert session.over is ends
    assert session.end_reason is (EndReason.CALLER_LOST if ends else None)


async def test_a_list_has_the_sessions_with_all_labels_and_one_of_the_states(service, directory):
    for team in ("blue", "red"):
        spec = session_pb2.SessionSpec(avatar_id=AVATAR_ID, labels={"team": team})
        await service.CreateSession(p.CreateSessionRequest(spec=spec), Context())
    request = p.ListSessionsRequest(labels={"team": "blue"}, states=[session_pb2.SESSION_STATE_READY])
    response = await service.ListSessions(request, Context())
    assert [session.labels["team"] for session in response.sessions] == ["blue"]
    assert response.next_page_token == ""
    nothing = p.ListSessionsRequest(states=[session_pb2.SESSION_STATE_ENDED])
    assert not (await service.ListSessions(nothing, Context())).sessions


async def test_a_session_is_ended_for_its_caller(service):
    created = await service.CreateSession(p.CreateSessionRequest(spec=SPEC), Context())
    response = await service.EndSession(p.EndSessionRequest(session_id=created.session.id), Context())
    assert response.session.end_reason == session_pb2.END_REASON_CALLER_ENDED


async def test_an_interrupt_returns_what_it_ended(service, directory):
    created = await service.CreateSession(p.CreateSessionRequest(spec=SPEC), Context())
    directory.sessions[created.session.id].utterances.begin("u", audio_input_of(None))
    request = p.InterruptSessionRequest(session_id=created.session.id)
    response = await service.InterruptSession(request, Context())
    assert [one.utterance_id for one in response.result.interrupted] == ["u"]


async def test_viewers_are_named_and_removed_in_a_room_of_the_callers_own_alone(service, directory, process):
    own = process.session(livekit_room=LiveKitRoom(name="desk-7"))
    theirs = process.session()
    directory.sessions = {own.id: own, theirs.id: theirs}
    ann = session_pb2.Viewer(identity="ann")
    await service.RemoveViewer(p.RemoveViewerRequest(session_id=own.id, identity="ann"), Context())
    assert service._rooms.removed == [("desk-7", "ann")]
    assert set(own.kept_out) == {"ann"}
    with pytest.raises(RoomNotAllowed):
        # The pool of this test has no LiveKit server.
        await service.CreateViewerTokens(p.CreateViewerTokensRequest(session_id=own.id, viewers=[ann]), Context())
    for call in (
        service.CreateViewerTokens(p.CreateViewerTokensRequest(session_id=theirs.id, viewers=[ann]), Context()),
        service.RemoveViewer(p.RemoveViewerRequest(session_id=theirs.id, identity="ann"), Context()),
    ):
        with pytest.raises(RoomNotOwn):
            await call
    with pytest.raises(InvalidField):
        await service.RemoveViewer(p.RemoveViewerRequest(session_id=own.id), Context())


async def test_a_silent_session_is_paused_and_continues(service):
    created = await service.CreateSession(p.CreateSessionRequest(spec=SPEC), Context())
    session_id = created.session.id
    paused = await service.PauseSession(p.PauseSessionRequest(session_id=session_id), Context())
    assert (paused.result.paused, paused.result.utterance_id) == (True, "")
    found = await service.GetSession(p.GetSessionRequest(session_id=session_id), Context())
    assert found.session.paused
    for was_paused in (True, False):
        request = p.ContinueSessionRequest(session_id=session_id)
        continued = await service.ContinueSession(request, Context())
        assert continued.result.was_paused is was_paused


async def test_the_server_tells_its_limits(service):
    info = await service.GetServerInfo(p.GetServerInfoRequest(), Context())
    assert (info.permit_count, info.used_permit_count, info.waiting_count) == (9, 2, 1)
    assert info.detach_grace.ToTimedelta().total_seconds() == 7.0
    assert audio_pb2.AUDIO_ENCODING_MULAW in info.audio_encodings
    assert not info.draining


@pytest.mark.parametrize("session_id", ["", "x" * 129])
async def test_an_id_that_cannot_be_one_is_refused(service, session_id):
    with pytest.raises(InvalidField):
        await service.GetSession(p.GetSessionRequest(session_id=session_id), Context())


async def test_avatars_are_listed_by_name_in_pages(service):
    first = await service.ListAvatars(p.ListAvatarsRequest(page_size=2), Context())
    assert [(avatar.name, avatar.sandbox) for avatar in first.avatars] == [("a", False), ("b", False)]
    rest = await service.ListAvatars(p.ListAvatarsRequest(page_token=first.next_page_token), Context())
    assert [(avatar.id, avatar.sandbox) for avatar in rest.avatars] == [("id-c", True)]
    assert rest.next_page_token == ""
    with pytest.raises(InvalidField):
        await service.ListAvatars(p.ListAvatarsRequest(page_size=-1), Context())


@pytest.mark.parametrize(("seconds", "hold_s"), [(None, 60.0), (5, 5.0), (240, 240.0)])
async def test_a_prepared_session_is_a_reservation_with_its_end(service, seconds, hold_s):
    request = p.PrepareSessionRequest(spec=SPEC, request_id="r-1")
    if seconds is not None:
        request.hold.FromSeconds(seconds)
    response = await service.PrepareSession(request, Context())
    assert response.reservation.id == "r-1"
    assert response.reservation.expires_at.ToDatetime() == datetime(2026, 11, 30, 12)  # noqa: DTZ001 - as it is sent
    ((_, request_id, held_s),) = service._reservations.asked
    assert (request_id, held_s) == ("r-1", hold_s)


@pytest.mark.parametrize("seconds", [0, 4, 241])
async def test_a_hold_out_of_its_range_is_refused(service, seconds):
    request = p.PrepareSessionRequest(spec=SPEC)
    request.hold.FromSeconds(seconds)
    with pytest.raises(InvalidField) as refusal:
        await service.PrepareSession(request, Context())
    assert refusal.value.field == "hold"
