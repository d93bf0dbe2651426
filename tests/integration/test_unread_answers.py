"""Callers whose windows stay closed lose their calls; their sessions live for the grace, and a drain continues."""

import asyncio
import signal
import struct
import time
from collections.abc import Iterator

import httpx
import pytest

from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from testkit import http2, processes
from testkit.caller import STEP_TIMEOUT_S, make_spec
from testkit.caller import caller as connect

SERVICE = "/liveavatar.gateway.v1.SessionService"
NO_WINDOW = struct.pack(">HI", 0x4, 0)
"""Setting INITIAL_WINDOW_SIZE of 0 bytes."""
WINDOW_UPDATE = 0x8


@pytest.fixture(scope="module")
def gateway(shared_emulator) -> Iterator[processes.Gateway]:
    with processes.gateway(shared_emulator.url, metrics_port=0, write_timeout_s=1) as found:
        yield found


@pytest.fixture
def unreading(gateway) -> Iterator[http2.Connection]:
    """Connection on which the gateway may send no message."""
    with http2.Connection(gateway.address) as connection:
        connection.socket.sendall(http2.frame(http2.SETTINGS, 0, 0, NO_WINDOW))
        yield connection


def _count(gateway, name: str) -> float:
    lines = httpx.get(gateway.metrics).text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def _unread(gateway) -> float:
    return _count(gateway, "gateway_answers_unread_total")


def _read_on(connection: http2.Connection) -> None:
    while True:
        connection.read()


async def _ended(gateway, count: float) -> None:
    async with asyncio.timeout(STEP_TIMEOUT_S):
        while await asyncio.to_thread(_unread, gateway) < count:
            await asyncio.sleep(0.1)


async def test_a_call_whose_answer_is_not_read_ends(gateway, unreading):
    before = _unread(gateway)
    unreading.call(f"{SERVICE}/GetServerInfo", b"")
    await _ended(gateway, before + 1)


async def test_a_stream_that_is_not_read_is_detached_from_its_session(gateway, unreading):
    before = _unread(gateway)
    labels = {"test": "unread"}
    spec = make_spec(labels=labels, detach_grace={"nanos": 500_000_000})
    opening = sessions.AttachRequest(open=sessions.OpenSession(spec=spec)).SerializeToString()
    unreading.call(f"{SERVICE}/Attach", opening, end=False)
    await _ended(gateway, before + 1)
    async with connect(gateway.address) as caller, asyncio.timeout(STEP_TIMEOUT_S):
        listing = sessions.ListSessionsRequest(labels=labels)
        while True:
            (session,) = (await caller.sessions.ListSessions(listing)).sessions
            if session.state == session_pb2.SESSION_STATE_ENDED:
                break
            await asyncio.sleep(0.1)
    assert session.end_reason == session_pb2.END_REASON_CALLER_LOST


def test_a_connection_that_reads_nothing_is_closed_and_a_larger_one_that_reads_some_calls_is_not(shared_emulator):
    with (
        processes.gateway(
            shared_emulator.url, metrics_port=0, write_timeout_s=600, max_unread_bytes=1024 * 1024
        ) as gateway,
        http2.Connection(gateway.address) as silent,
        http2.Connection(gateway.address) as shared,
    ):
        for connection, count in ((silent, 50), (shared, 60)):
            connection.socket.sendall(http2.frame(http2.SETTINGS, 0, 0, NO_WINDOW))
            for _ in range(count):
                connection.call(f"{SERVICE}/GetServerInfo", b"")
        deadline_s = time.monotonic() + STEP_TIMEOUT_S
        while _count(gateway, "gateway_connections_closed_total") == 0:
            assert time.monotonic() < deadline_s
            stream = shared.call(f"{SERVICE}/GetServerInfo", b"")
            shared.socket.sendall(http2.frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 65535)))
            assert shared.answer(stream)[-1].ends_stream
            time.sleep(0.2)
        with pytest.raises((EOFError, ConnectionResetError)):
            _read_on(silent)
        assert _count(gateway, "gateway_connections_closed_total") == 1
        stream = shared.call(f"{SERVICE}/GetServerInfo", b"")
        shared.socket.sendall(http2.frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 65535)))
        assert shared.answer(stream)[-1].ends_stream


def test_a_health_watcher_that_reads_nothing_does_not_keep_a_process_from_its_exit(shared_emulator):
    with (
        processes.gateway(shared_emulator.url, write_timeout_s=600, drain_grace_s=1) as gateway,
        http2.Connection(gateway.address) as connection,
    ):
        connection.socket.sendall(http2.frame(http2.SETTINGS, 0, 0, NO_WINDOW))
        connection.call("/grpc.health.v1.Health/Watch", b"", end=True)
        # An answered ping shows that the watch has arrived.
        connection.socket.sendall(http2.frame(http2.PING, 0, 0, b"12345678"))
        while connection.read().kind != http2.PING:
            pass
        gateway.process.send(signal.SIGTERM)
        assert gateway.process.wait(STEP_TIMEOUT_S) == 0
