"""Connections of callers, closed by the names that gRPC gives them."""

import asyncio
import resource
import socket

import grpc
import pytest

from liveavatar_gateway.rpc.connections import close_connections


def _pair(family: int, host: str) -> tuple[socket.socket, socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((host, 0))
        listener.listen()
        caller = socket.create_connection((host, listener.getsockname()[1]))
        return caller, listener.accept()[0]


@pytest.mark.parametrize(
    ("family", "host", "form"),
    [(socket.AF_INET, "127.0.0.1", "ipv4:127.0.0.1:{}"), (socket.AF_INET6, "::1", "ipv6:%5B::1%5D:{}")],
)
def test_the_connection_of_a_peer_is_closed_and_no_other(family, host, form):
    caller, accepted = _pair(family, host)
    other, other_accepted = _pair(family, host)
    with caller, accepted, other, other_accepted:
        peer = form.format(caller.getsockname()[1])
        assert close_connections([peer, "ipv4:127.0.0.1:1"]) == {peer}
        assert caller.recv(1) == b""
        other_accepted.sendall(b"x")
        assert other.recv(1) == b"x"


async def _closed_by_its_own_call(host: str) -> tuple[str, set[str], grpc.StatusCode]:
    """Call a gRPC server that closes the connection of the call; return peer, closed peers and status."""
    found: list[tuple[str, set[str]]] = []

    async def close(_request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        peer = context.peer()
        found.append((peer, close_connections([peer])))
        await asyncio.Event().wait()
        return b""

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers = {"Close": grpc.unary_unary_rpc_method_handler(close)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Test", handlers)])
    port = server.add_insecure_port(f"{host}:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await channel.unary_unary("/Test/Close")(b"", timeout=10)
        return *found[0], ended.value.code()
    finally:
        await server.stop(0)


@pytest.mark.parametrize(("host", "start"), [("127.0.0.1", "ipv4:127.0.0.1:"), ("[::1]", "ipv6:%5B::1%5D:")])
async def test_the_connection_of_a_grpc_call_is_found_by_the_peer_of_the_call(host, start):
    peer, closed, status = await _closed_by_its_own_call(host)
    assert peer.startswith(start)
    assert closed == {peer}
    assert status is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("port", ["127.0.0.1:{}", "[::ffff:127.0.0.1]:{}"])
def test_a_peer_of_a_socket_for_both_families_is_found_by_its_ipv4_address(port):
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::ffff:127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as caller:
            accepted = listener.accept()[0]
            with accepted:
                peer = f"ipv{6 if '[' in port else 4}:" + port.format(caller.getsockname()[1])
                assert accepted.getpeername()[0] == "::ffff:127.0.0.1"
                assert close_connections([peer]) == {peer}
                assert caller.recv(1) == b""


@pytest.mark.parametrize(
    "peer",
    [
        "unix:",
        "ipv4:127.0.0.1:1",
        "ipv4:nothing",
        "",
        "ipv4:127.0.0.1:port",
        "ipv4:127.0.0.1:\u00b2",
        "ipv4:no address:1",
        "ipv6:%5Bfe80::1%252%5D:1",
    ],
)
def test_a_peer_without_a_connection_is_not_found(peer):
    assert close_connections([peer]) == set()


def test_without_a_free_descriptor_no_connection_is_found():
    caller, accepted = _pair(socket.AF_INET, "127.0.0.1")
    peer = f"ipv4:127.0.0.1:{caller.getsockname()[1]}"
    with socket.socket() as probe:
        lowest = probe.fileno()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with caller, accepted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            found = close_connections([peer])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert found == set()
        assert close_connections([peer]) == {peer}


def test_descriptors_are_not_kept():
    def lowest() -> int:
        with socket.socket() as probe:
            return probe.fileno()

    before = lowest()
    close_connections(["ipv4:127.0.0.1:1"])
    assert lowest() == before
