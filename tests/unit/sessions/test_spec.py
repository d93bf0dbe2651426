"""Spec of a session: the identities of its avatars."""

from liveavatar_gateway.rooms.access import AgoraRoom, BroughtRoom
from liveavatar_gateway.sessions.spec import AgentSeat, LiveKitRoom, SessionSpec
from liveavatar_gateway.upstream.connectors import Connector, ConnectorKind
from liveavatar_gateway.upstream.model import AvatarRequest
from testkit.actors import AVATAR_ID


def spec(**fields) -> SessionSpec:
    return SessionSpec(avatar=AvatarRequest(avatar_id=AVATAR_ID), detach_grace_s=1.0, **fields)


def test_in_a_room_of_liveavatar_every_avatar_is_requested_the_same_way():
    assert spec().avatar_request(1) == spec().avatar_request(2) == spec().avatar


def test_two_avatars_that_meet_in_a_callers_room_have_an_identity_each():
    wishes = spec(livekit_room=LiveKitRoom(name="desk-7", avatar_identity="guide"))
    requests = [wishes.avatar_request(ordinal) for ordinal in (1, 2, 3)]
    assert len({repr(request) for request in requests}) == 3
    assert "'guide-3'" in repr(requests[2])
    assert "'guide'" in repr(requests[0])


AGORA = AgoraRoom(app_id="app", channel="desk", uid="7", token="a-secret")


def test_an_avatar_with_an_agent_publishes_on_its_behalf():
    own = LiveKitRoom(name="desk-7", avatar_identity="guide")
    with_agent = spec(livekit_room=own, agent_seat=AgentSeat.CALLER).avatar_request(2).participant
    assert with_agent is not None
    assert (with_agent.identity, with_agent.agent) == ("guide-2", "guide-agent")
    without = spec(livekit_room=own).avatar_request(1).participant
    assert without is not None
    assert without.agent == ""


def test_the_gateway_has_a_seat_unless_the_caller_took_the_only_one():
    own = LiveKitRoom(name="desk-7")
    assert spec().gateway_has_seat
    assert not spec(agent_seat=AgentSeat.CALLER).gateway_has_seat
    assert spec(livekit_room=own).gateway_has_seat
    assert spec(livekit_room=own, agent_seat=AgentSeat.CALLER).gateway_has_seat
    assert not spec(agora_room=AGORA).gateway_has_seat


def test_identities_of_avatars_and_agents_are_reserved_for_the_life_of_the_session():
    own = LiveKitRoom(name="desk-7", avatar_identity="guide")
    assert all(map(own.is_reserved, ["guide", "guide-2", "guide-17", "guide-agent"]))
    assert not any(map(own.is_reserved, ["", "ann", "guide-", "guide-two", "guided", "the-guide-2", "Guide"]))


def test_an_agora_channel_is_requested_and_its_token_is_not_stored():
    wishes = spec(agora_room=AGORA)
    assert wishes.has_own_room
    request = wishes.avatar_request(1)
    assert request.agora_room is not None
    assert request.agora_room.token == "a-secret"
    stored = wishes.without_secrets
    assert stored == wishes
    assert stored.agora_room is not None
    assert stored.agora_room.token == ""
    assert spec().without_secrets == spec()
    assert not spec().has_own_room


def test_a_room_on_the_callers_server_is_requested_with_its_token():
    brought = BroughtRoom(url="wss://rooms", name="desk", identity="ada", avatar_token="a-secret")
    wishes = spec(brought_room=brought)
    assert wishes.has_own_room
    assert wishes.gateway_has_seat
    request = wishes.avatar_request(1)
    assert request.has_own_room
    assert request.brought_room is not None
    access = request.brought_room.avatar_access
    assert (access.url, access.room, access.token) == ("wss://rooms", "desk", "a-secret")
    assert wishes.without_secrets.brought_room == brought
    assert "a-secret" not in repr(wishes)


def test_a_hosted_agent_is_requested_has_the_seat_and_its_variables_are_not_stored():
    agent = Connector(
        kind=ConnectorKind.ELEVENLABS_AGENT,
        secret_id="7f1d0f9e-8a3c-4b7e-9d55-0c2f6a1e4b22",
        agent_id="a",
        dynamic_variables={"name": "Ann"},
    )
    wishes = spec(connector=agent)
    assert not wishes.has_own_room
    assert not wishes.gateway_has_seat
    request = wishes.avatar_request(1)
    assert request.connector is not None
    assert request.connector.dynamic_variables == {"name": "Ann"}
    stored = wishes.without_secrets
    assert stored == wishes
    assert stored.connector is not None
    assert stored.connector.dynamic_variables == {}
