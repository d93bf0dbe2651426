"""The command socket against a real server on 127.0.0.1."""

import asyncio
import contextlib

import pytest
import websockets
from websockets.asyncio.server import ServerConnection, serve

from liveavatar_gateway.core.messages import PongReceived, Speak
from liveavatar_gateway.upstream.socket import CommandSocket


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
    socket = await CommandSocket.open(address, lambda _: None, timeout_s=5)
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
    socket = await CommandSocket.open(address, heard.put_nowait, timeout_s=5)
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
