"""LiveKit servers by tenant: a tenant's own goes before that of everybody, and may change."""

import jwt

from liveavatar_gateway.rooms.servers import RoomServers
from liveavatar_gateway.rooms.tokens import LiveKitConfig, LiveKitRooms

COMMON = LiveKitConfig(url="wss://common", api_key="common", api_secret="c" * 32)
OWN = LiveKitConfig(url="wss://own", api_key="own", api_secret="o" * 32)


def issuer(rooms: LiveKitRooms) -> tuple[str, str]:
    access = rooms.viewer("room")
    return access.url, jwt.decode(access.token, options={"verify_signature": False})["iss"]


def test_a_tenant_with_a_server_of_its_own_uses_it_and_others_the_common_one():
    servers = RoomServers(LiveKitRooms(COMMON), {"acme": OWN}.get)
    assert issuer(servers.of("acme")) == ("wss://own", "own")
    assert issuer(servers.of("beta")) == issuer(servers.of("")) == ("wss://common", "common")


def test_a_signer_is_kept_until_its_server_changes():
    servers = {"acme": OWN}
    found = RoomServers(None, servers.get)
    first = found.of("acme")
    assert found.of("acme") is first
    servers["acme"] = LiveKitConfig(url="wss://own", api_key="next", api_secret="n" * 32)
    assert issuer(found.of("acme")) == ("wss://own", "next")
    del servers["acme"]
    assert found.of("acme") is None


def test_no_token_is_signed_for_a_room_that_is_the_tenants_no_more():
    allowed = {("acme", "acme-1")}
    servers = RoomServers(LiveKitRooms(COMMON), allows=lambda *room: room in allowed)
    assert servers.of_room("acme-1", tenant="acme") is servers.of("acme")
    assert servers.of_room("acme-1", tenant="beta") is None
    allowed.clear()
    assert servers.of_room("acme-1", tenant="acme") is None
