"""Wishes for sessions: within the quotas and rooms of a tenant, and whatever they like without limits."""

import time
from dataclasses import replace

import pytest
from google.protobuf import duration_pb2

from liveavatar.gateway.v1 import session_pb2
from liveavatar_gateway.auth.auth_file import AuthConfig, Rooms, Tenant
from liveavatar_gateway.auth.quotas import Quotas
from liveavatar_gateway.core.errors import AvatarNotAllowed, InvalidField, QuotaExceeded, RoomNotAllowed
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.wishes import Wishes
from liveavatar_gateway.sessions.spec import AgentSeat
from liveavatar_gateway.upstream.avatars import Avatar
from testkit.actors import AVATAR_ID
from testkit.room_tokens import unsigned

CONFIG = RpcConfig(speech=SpeechConfig(), detach_grace_s=60.0, livekit_rooms=True, viewer_absence_s=90.0)


class Tenants:
    """Limits of the tenant "acme"; other tenants have none."""

    def __init__(self, *, rooms: Rooms | None = None, avatars=None, **quotas) -> None:
        self._avatars = avatars
        self._quotas = Quotas(**quotas)
        self._rooms = rooms or Rooms()

    def quotas(self, tenant):
        return self._quotas if tenant == "acme" else None

    def avatars(self, tenant):
        return self._avatars if tenant == "acme" else None

    def rooms(self, tenant):
        return self._rooms if tenant == "acme" else None

    def may_use_room(self, tenant, room):
        return AuthConfig(tenants={"acme": Tenant(rooms=self._rooms)}).may_use_room(tenant, room)


def spec_of(tenants, tenant="acme", **spec):
    message = session_pb2.SessionSpec(avatar_id=AVATAR_ID, **spec)
    return Wishes(CONFIG, tenants, may_use_room_url=lambda _: True).spec_of(message, field="spec", tenant=tenant)


def test_a_default_is_cut_to_the_quota_and_a_wish_above_it_is_refused():
    tenants = Tenants(max_detach_grace_s=10.0, max_session_s=60.0)
    assert spec_of(tenants).detach_grace_s == 10.0
    assert spec_of(tenants, tenant="").detach_grace_s == 60.0
    for name, scope in (("detach_grace", "max_detach_grace_s"), ("max_duration", "max_session_s")):
        with pytest.raises(QuotaExceeded) as refused:
            spec_of(tenants, **{name: duration_pb2.Duration(seconds=61)})
        assert (refused.value.field, refused.value.metadata["scope"]) == (f"spec.{name}", scope)
        spec_of(tenants, tenant="", **{name: duration_pb2.Duration(seconds=61)})
    assert spec_of(tenants, max_duration=duration_pb2.Duration(seconds=60)).avatar.max_duration_s == 60


def test_the_operators_limit_without_viewers_is_the_default():
    room = session_pb2.LiveKitRoom(name="acme-1")
    assert spec_of(Tenants(), livekit_room=room).viewer_absence_s == 90.0
    assert spec_of(Tenants()).viewer_absence_s is None


@pytest.mark.parametrize(
    ("rooms", "allowed", "refused"),
    [
        (Rooms(), ["acme-1", "acme-"], ["other-1", "acme", "xacme-1"]),
        (Rooms(prefix="a."), ["a.1"], ["acme-1"]),
        (Rooms(names=["one", "two"]), ["one", "two"], ["acme-1", "one-2"]),
        (Rooms(prefix="a.", names=["one"]), ["a.1", "one"], ["two"]),
    ],
)
def test_a_tenant_has_rooms_of_its_own(rooms, allowed, refused):
    tenants = Tenants(rooms=rooms)
    for name in allowed:
        assert spec_of(tenants, livekit_room={"name": name}).livekit_room.name == name
    for name in refused:
        with pytest.raises(RoomNotAllowed) as error:
            spec_of(tenants, livekit_room={"name": name})
        assert error.value.field == "spec.livekit_room.name"
        assert spec_of(tenants, tenant="", livekit_room={"name": name}).livekit_room.name == name


@pytest.mark.parametrize(
    ("wished", "got"),
    [("", "avatar"), ("avatar", "avatar"), ("avatar-2", "avatar-2"), ("user-7", "avatar-user-7")],
)
def test_an_avatar_cannot_take_the_identity_of_another_participant(wished, got):
    room = {"name": "acme-1", "avatar_identity": wished}
    assert spec_of(Tenants(), livekit_room=room).livekit_room.avatar_identity == got
    assert spec_of(Tenants(), tenant="", livekit_room=room).livekit_room.avatar_identity == (wished or got)


def test_a_tenant_has_all_avatars_or_those_of_its_list():
    listed = [Avatar(id=AVATAR_ID, name="a"), Avatar(id="other", name="b")]
    for allowed, names in ((None, ["a", "b"]), ((AVATAR_ID, "unknown"), ["a"]), ((), [])):
        found = Wishes(CONFIG, Tenants(avatars=allowed), may_use_room_url=lambda _: True).avatars(
            listed, tenant="acme"
        )
        assert [avatar.name for avatar in found] == names
    spec_of(Tenants(avatars=(AVATAR_ID,)))
    none = Tenants(avatars=())
    with pytest.raises(AvatarNotAllowed) as refused:
        spec_of(none)
    assert refused.value.field == "spec.avatar_id"
    assert refused.value.metadata == {"avatar_id": AVATAR_ID, "tenant": "acme"}
    spec_of(none, tenant="")
    assert len(Wishes(CONFIG, none, may_use_room_url=lambda _: True).avatars(listed, tenant="")) == 2


def test_an_avatar_of_an_account_for_some_tenants_is_shown_to_them_alone():
    listed = [Avatar(id=AVATAR_ID, name="a", tenants=frozenset({"acme"})), Avatar(id="other", name="b")]
    for tenant, names in (("acme", ["a", "b"]), ("beta", ["b"]), ("", ["b"])):
        found = Wishes(CONFIG, Tenants(), may_use_room_url=lambda _: True).avatars(listed, tenant=tenant)
        assert [avatar.name for avatar in found] == names


def test_a_viewer_must_not_have_the_identity_that_the_avatar_gets_in_a_tenants_room():
    room = session_pb2.LiveKitRoom(name="acme-1", avatar_identity="ada")
    tenants = Tenants(rooms=Rooms(prefix="acme-"))
    with pytest.raises(InvalidField) as refused:
        spec_of(tenants, livekit_room=room, viewers=[session_pb2.Viewer(identity="avatar-ada-2")])
    assert refused.value.field == "spec.viewers[0].identity"
    found = spec_of(tenants, livekit_room=room, viewers=[session_pb2.Viewer(identity="ada")])
    assert [viewer.identity for viewer in found.viewers] == ["ada"]


def test_seat_and_channel_are_read_for_every_tenant():
    agora = session_pb2.AgoraRoom(app_id="app", token="secret", channel="desk", uid="7")
    assert spec_of(Tenants(), agora_room=agora).agora_room is not None
    assert spec_of(Tenants(), tenant="", agent_seat=session_pb2.AGENT_SEAT_CALLER).agent_seat is AgentSeat.CALLER


def test_a_room_on_the_callers_server_is_no_room_of_the_tenant_and_needs_no_server_of_the_gateway():
    room = session_pb2.LiveKitRoom(
        name="desk-7", url="wss://rooms.example.com", avatar_token=unsigned(time.time())
    )
    message = session_pb2.SessionSpec(avatar_id=AVATAR_ID, livekit_room=room)
    wishes = Wishes(replace(CONFIG, livekit_rooms=False), Tenants(), may_use_room_url=lambda _: True)
    found = wishes.spec_of(message, field="spec", tenant="acme")
    assert found.brought_room is not None
    assert (found.livekit_room, found.brought_room.identity, found.viewer_absence_s) == (None, "ada", None)
    closed = Wishes(CONFIG, Tenants(), may_use_room_url=lambda _: False)
    with pytest.raises(InvalidField) as error:
        closed.spec_of(message, field="spec", tenant="acme")
    assert error.value.field == "spec.livekit_room.url"


def test_a_room_on_the_callers_server_and_an_agora_channel_exclude_each_other():
    room = session_pb2.LiveKitRoom(name="desk-7", url="wss://rooms.example.com")
    message = session_pb2.SessionSpec(
        avatar_id=AVATAR_ID, livekit_room=room, agora_room=session_pb2.AgoraRoom(app_id="app")
    )
    with pytest.raises(InvalidField) as error:
        Wishes(CONFIG, Tenants(), may_use_room_url=lambda _: True).spec_of(message, field="spec", tenant="")
    assert error.value.field == "spec.agora_room"


def test_a_token_for_a_room_on_the_gateways_server_is_refused():
    room = session_pb2.LiveKitRoom(name="acme-7", viewer_token="x")
    with pytest.raises(InvalidField) as error:
        Wishes(CONFIG, Tenants(), may_use_room_url=lambda _: True).spec_of(
            session_pb2.SessionSpec(avatar_id=AVATAR_ID, livekit_room=room), field="spec", tenant="acme"
        )
    assert error.value.field == "spec.livekit_room.viewer_token"
