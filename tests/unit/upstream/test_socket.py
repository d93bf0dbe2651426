"""The command socket against servers that fragment messages, send too much, or read nothing."""

import asyncio
import contextlib

import pytest
import websockets
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import UpstreamAddressRefused, UpstreamUnreachable
from liveavatar_gateway.core.messages import PongReceived, Speak
from liveavatar_gateway.upstream.egress import Route
from liveavatar_gateway.upstream.socket import CommandSocket
from testkit.answering import http
from testkit.tcp import route_to, tcp_server


@contextlib.asynccontextmanager
async def socket_of(handler):
    events: list[m.Event] = []
    async with serve(handler, "127.0.0.1", 0, compression=None, ping_interval=None, close_timeout=0.1) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        opened = await CommandSocket.open(route_to(url), events.append, timeout_s=5)
        try:
            yield opened, events
        finally:
            opened.abort()


def state(name: str) -> bytes:
    return b'{"type":"session.state_updated","state":"%b"}' % name.encode()


def put(server: ServerConnection, opcode: Opcode, data: bytes, *, fin: bool = True) -> None:
    server.transport.write(Frame(opcode, data, fin).serialize(mask=False))


async def test_messages_come_in_order_however_they_are_cut():
    async def handler(server: ServerConnection) -> None:
        put(server, Opcode.TEXT, state("one")[:5], fin=False)
        put(server, Opcode.CONT, b"", fin=False)
        put(server, Opcode.CONT, state("one")[5:])
        put(server, Opcode.TEXT, state("two"))
        put(server, Opcode.TEXT, b"", fin=False)
        put(server, Opcode.CONT, state("three"))
        put(server, Opcode.BINARY, state("four"))
        put(server, Opcode.BINARY, state("five")[:9], fin=False)
        put(server, Opcode.PING, b"between")
        put(server, Opcode.CONT, state("five")[9:])
        put(server, Opcode.TEXT, state("six"))
        await server.wait_closed()

    async with socket_of(handler) as (_, events):
        async with asyncio.timeout(5):
            while len(events) < 6:
                await asyncio.sleep(0.01)
        assert [event.state for event in events] == ["one", "two", "three", "four", "five", "six"]


async def test_a_pong_to_no_ping_of_ours_confirms_nothing():
    async def handler(server: ServerConnection) -> None:
        await server.recv()
        for payload in (b"p2", b"p99999999999999", b"p", b"pp", b"", b"p-1", b"p\xb2", b"p1"):
            put(server, Opcode.PONG, payload)
        await server.wait_closed()

    async with socket_of(handler) as (opened, events), asyncio.timeout(5):
        await opened.send(m.KeepAlive("k"), ping=1)
        while not events:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert set(events) == {m.PongReceived(1)}


async def test_a_message_that_grows_in_pieces_has_a_limit():
    async def handler(server: ServerConnection) -> None:
        put(server, Opcode.TEXT, b"[", fin=False)
        for _ in range(40):
            put(server, Opcode.CONT, b"x" * 60_000, fin=False)
        await server.wait_closed()

    async with socket_of(handler) as (opened, events), asyncio.timeout(5):
        await opened.closed()
        assert events == []


async def test_a_server_that_says_goodbye_and_stays_is_left():
    left = asyncio.Event()

    async def handler(server: ServerConnection) -> None:
        put(server, Opcode.CLOSE, b"\x03\xe9bye")
        await left.wait()

    async with socket_of(handler) as (opened, _), asyncio.timeout(10):
        assert (await opened.closed()).code == 1001
        left.set()


async def test_a_server_that_reads_nothing_does_not_hold_up_the_end_of_its_socket():
    async def handler(server: ServerConnection) -> None:
        server.transport.pause_reading()
        await server.wait_closed()

    async with socket_of(handler) as (opened, _):
        speech = asyncio.create_task(_speak_until_full(opened))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(5):
            await opened.close()
            await opened.closed()
        speech.cancel()
        await asyncio.wait([speech])


async def _speak_until_full(opened: CommandSocket) -> None:
    for number in range(1, 100):
        await opened.send(m.Speak("u", b"\0" * 480_000), ping=number)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["another host", "itself"])
async def test_a_redirect_is_followed_nowhere(status, where):
    asked = 0

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        target = f"ws://{address}/again" if where == "itself" else f"ws://{other}/"
        writer.write(http(status, Location=target))

    async with tcp_server(reply) as other, tcp_server(reply) as address:
        with pytest.raises(UpstreamAddressRefused) as refused:
            await CommandSocket.open(route_to(f"ws://{address}/secret"), lambda _: None, timeout_s=5)
        assert refused.value.metadata == {"address": "ws_url", "cause": "redirect"}
        assert asked == 1


async def test_the_address_that_was_checked_is_connected_to_whatever_the_name_is():
    heads: list[bytes] = []

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http(503))

    async with tcp_server(reply) as address:
        port = int(address.rpartition(":")[2])
        route = Route(url="ws://name.invalid/path", port=port, addresses=("127.0.0.1",))
        with pytest.raises(UpstreamUnreachable, match="503"):
            await CommandSocket.open(route, lambda _: None, timeout_s=5)
    assert b"Host: name.invalid\r\n" in heads[0]


async def test_the_next_address_of_a_host_is_tried():
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http(503))

    async with tcp_server(reply) as address:
        port = int(address.rpartition(":")[2])
        route = Route(url="ws://name.invalid/", port=port, addresses=("127.0.0.2", "127.0.0.1"))
        with pytest.raises(UpstreamUnreachable, match="503"):
            await CommandSocket.open(route, lambda _: None, timeout_s=5)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 abc\r\n\r\n", b"\0\0\0\0", b"", b"SSH-2.0-OpenSSH\r\n"])
async def test_a_server_of_another_protocol_is_out_of_reach(answer):
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with tcp_server(reply) as address:
        with pytest.raises(UpstreamUnreachable):
            await CommandSocket.open(route_to(f"ws://{address}/"), lambda _: None, timeout_s=5)


# --- a peer that reads nothing


class Connection(ServerConnection):
    """Remembers how its transport was lost."""

    lost_by: Exception | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost_by = exc
        super().connection_lost(exc)


@pytest.fixture
async def served():
    """A server that reads nothing of what it is sent before it is told to, and the address of its socket."""
    connections: asyncio.Queue[Connection] = asyncio.Queue()

    async def handle(connection: ServerConnection) -> None:
        assert isinstance(connection, Connection)
        connection.transport.pause_reading()
        connections.put_nowait(connection)
        await connection.wait_closed()

    async with serve(handle, "127.0.0.1", 0, create_connection=Connection) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}", connections


async def test_a_socket_that_is_given_up_is_reset(served):
    """An end in good order would deliver all that the operating system still has of it."""
    address, connections = served
    socket = await CommandSocket.open(route_to(address), lambda _: None, timeout_s=5)
    connection = await connections.get()
    await socket.send(Speak("u", bytes(48_000)), ping=1)
    socket.abort()
    await asyncio.sleep(0)
    connection.transport.resume_reading()
    with contextlib.suppress(websockets.ConnectionClosed):
        async with asyncio.timeout(5):
            while True:
                await connection.recv()
    async with asyncio.timeout(5):
        await connection.wait_closed()
    assert isinstance(connection.lost_by, ConnectionResetError)


async def test_a_socket_tells_that_its_other_end_takes_nothing(served):
    address, connections = served
    heard: asyncio.Queue[object] = asyncio.Queue()
    socket = await CommandSocket.open(route_to(address), heard.put_nowait, timeout_s=5)
    connection = await connections.get()
    assert not socket.takes_nothing
    sending = asyncio.create_task(socket.send(Speak("u", bytes(600_000)), ping=1))
    for number in range(2, 40):
        if sending.done():
            sending = asyncio.create_task(socket.send(Speak("u", bytes(600_000)), ping=number))
        await asyncio.sleep(0.01)
    assert socket.takes_nothing
    connection.transport.resume_reading()
    async with asyncio.timeout(10):
        await sending
        while not isinstance(await heard.get(), PongReceived) or socket.takes_nothing:
            pass
    socket.abort()
