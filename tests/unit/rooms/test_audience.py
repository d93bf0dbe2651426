"""Looks into rooms: who counts as a viewer, who is put out, and answers that say nothing."""

import contextlib

import pytest
from livekit.protocol.models import ParticipantInfo, ParticipantPermission
from livekit.protocol.room import ListParticipantsResponse

from liveavatar_gateway.rooms.audience import Audience, AudienceUnknown
from liveavatar_gateway.rooms.servers import RoomServers
from liveavatar_gateway.rooms.tokens import LiveKitConfig, LiveKitRooms
from testkit.answering import answering, http

_PATH = "/twirp/livekit.RoomService/ListParticipants"
_SEES = ParticipantPermission(can_subscribe=True)


def participant(identity: str = "somebody", permission: ParticipantPermission | None = _SEES, **fields):
    return ParticipantInfo(identity=identity, state=ParticipantInfo.ACTIVE, permission=permission, **fields)


@contextlib.asynccontextmanager
async def audience(**options):
    async with answering() as server:
        config = LiveKitConfig(url=server.url.replace("http", "ws"), api_key="key", api_secret="s" * 32)
        found = Audience(RoomServers(LiveKitRooms(config)), **options)
        try:
            yield found, server
        finally:
            await found.aclose()
            await found.aclose()


async def looked(found: Audience, server, *participants: ParticipantInfo) -> set[str]:
    """Return the identities of those who can see the avatar."""
    answer = ListParticipantsResponse(participants=participants).SerializeToString()
    server.answers[_PATH] = http(200, answer, Content_Type="application/protobuf")
    occupants = await found.occupants("desk-7", tenant="")
    assert [one.identity for one in occupants] == [participant.identity for participant in participants]
    return {one.identity for one in occupants if one.can_see}


@pytest.mark.parametrize(
    "present",
    [
        participant(),
        participant(permission=None),
        participant(kind=ParticipantInfo.SIP),
        participant(kind=ParticipantInfo.EGRESS),
        participant(permission=ParticipantPermission(can_subscribe=True, hidden=True)),
    ],
    ids=["viewer", "permission unknown", "phone caller", "recording", "hidden"],
)
async def test_whoever_can_see_the_avatar_is_a_viewer(present):
    async with audience() as (found, server):
        seeing = await looked(found, server, participant("avatar", kind=ParticipantInfo.AGENT), present)
        assert seeing == {"somebody"}


async def test_avatars_agents_sources_and_the_blind_are_no_viewers():
    async with audience() as (found, server):
        gone = participant("gone")
        gone.state = ParticipantInfo.DISCONNECTED
        assert not await looked(
            found,
            server,
            participant("avatar", kind=ParticipantInfo.AGENT),
            participant("agent", kind=ParticipantInfo.AGENT),
            participant("camera", kind=ParticipantInfo.INGRESS),
            participant("blind", ParticipantPermission(can_publish=True)),
            gone,
        )
        assert server.asked == [_PATH]


async def test_a_room_that_does_not_exist_has_no_viewer():
    async with audience() as (found, server):
        assert not await looked(found, server)
        server.answers[_PATH] = http(
            404, {"code": "not_found", "msg": "no such room"}, Content_Type="application/json"
        )
        assert await found.occupants("desk-7", tenant="") == ()


@pytest.mark.parametrize(
    "answer",
    [
        http(401, {"code": "unauthenticated", "msg": "invalid token"}),
        http(404, b"a page of a proxy"),
        http(200, b"\xff no message"),
        http(503, b""),
        http(307, b"", Location=f"http://127.0.0.1:1{_PATH}"),
        http(200, bytes(5 * 2**20)),
        b"no HTTP at all\r\n\r\n",
    ],
    ids=["refused", "no LiveKit", "unreadable", "unavailable", "redirect", "flood", "no HTTP"],
)
async def test_an_answer_that_says_nothing_is_no_answer(answer):
    async with audience() as (found, server):
        server.answers[_PATH] = answer
        with pytest.raises(AudienceUnknown):
            await found.occupants("desk-7", tenant="")


async def test_an_answer_that_does_not_come_is_not_waited_for():
    async def silence(writer) -> None:
        await writer.wait_closed()

    async with audience(deadline_s=0.2) as (found, server):
        server.answers[_PATH] = silence
        with pytest.raises(AudienceUnknown, match="TimeoutError"):
            await found.occupants("desk-7", tenant="")


async def test_without_a_server_for_the_room_nothing_is_known():
    found = Audience(RoomServers(None))
    with pytest.raises(AudienceUnknown):
        await found.occupants("desk-7", tenant="acme")
    await found.aclose()


_REMOVE = "/twirp/livekit.RoomService/RemoveParticipant"


async def test_agents_are_told_from_viewers():
    async with audience() as (found, server):
        answer = ListParticipantsResponse(
            participants=[participant("a", kind=ParticipantInfo.AGENT), participant()]
        )
        server.answers[_PATH] = http(200, answer.SerializeToString(), Content_Type="application/protobuf")
        occupants = await found.occupants("desk-7", tenant="")
        assert [one.is_agent for one in occupants] == [True, False]


@pytest.mark.parametrize(
    "answer",
    [
        http(200, b"", Content_Type="application/protobuf"),
        http(404, {"code": "not_found", "msg": "no such participant"}, Content_Type="application/json"),
    ],
    ids=["there", "not there"],
)
async def test_a_participant_is_put_out_or_is_not_there(answer):
    async with audience() as (found, server):
        server.answers[_REMOVE] = answer
        await found.remove("desk-7", "ann", tenant="")
        assert server.asked == [_REMOVE]


async def test_a_removal_that_is_refused_is_not_done():
    async with audience() as (found, server):
        server.answers[_REMOVE] = http(401, {"code": "unauthenticated", "msg": "invalid token"})
        with pytest.raises(AudienceUnknown):
            await found.remove("desk-7", "ann", tenant="")
