"""Attacks with messages: too large, too many values, and bytes that are no messages."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator

import grpc

from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from security.attacks.listed import fill
from security.attacks.raw import RawConnection, message
from security.counts import Counts
from testkit.http2 import DATA, END_STREAM, frame

_SERVICE = "/liveavatar.gateway.v1.SessionService"
_UNARY = ("GetSession", "ListSessions", "CreateSession", "EndSession", "InterruptSession", "ListAvatars")
_LARGE = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
_CALLS_PER_S = 500
"""The content is the attack here; floods of calls are in frames.py."""
_NO_MESSAGE = b"\xff\xff\xff\xff no message"


async def many_states(address: str, seconds: float) -> Counts:
    """List sessions with 300,000 states, which once took the event loop 9 s."""
    await fill(address)
    request = p.ListSessionsRequest(states=[session_pb2.SESSION_STATE_RECONNECTING] * 300_000).SerializeToString()
    return await _repeat(address, seconds, lambda channel: _unary(channel, "ListSessions", request), at_once=4)


async def many_states_in_bounds(address: str, seconds: float) -> Counts:
    """List sessions with as many states as fit into a request of 60 kB."""
    await fill(address)
    request = p.ListSessionsRequest(states=[session_pb2.SESSION_STATE_RECONNECTING] * 60_000).SerializeToString()
    return await _repeat(address, seconds, lambda channel: _unary(channel, "ListSessions", request), at_once=8)


async def many_labels(address: str, seconds: float) -> Counts:
    """List sessions by 20,000 labels."""
    labels = {f"key-{number}": "value" for number in range(20_000)}
    request = p.ListSessionsRequest(labels=labels).SerializeToString()
    return await _repeat(address, seconds, lambda channel: _unary(channel, "ListSessions", request), at_once=4)


async def undecodable(address: str, seconds: float) -> Counts:
    """Send bytes that are no messages, in calls and streams of all kinds."""

    methods = [f"{_SERVICE}/{name}" for name in (*_UNARY, "Attach", "WatchSessions")]
    methods += [
        "/liveavatar.gateway.v1.AudioService/StreamAudio",
        "/liveavatar.gateway.v1.AudioService/ListenAudio",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/liveavatar.gateway.v1.SessionService/NoSuchMethod",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ]

    def bodies() -> Iterator[bytes]:
        yield message(_NO_MESSAGE)
        # Compressed by a header that the call did not announce, by an unknown flag, and above gRPC's own limit.
        yield b"\x01" + message(_NO_MESSAGE)[1:]
        yield b"\x07" + message(_NO_MESSAGE)[1:]
        yield message(b"x" * 100, announced=2**31)
        yield message(b"x" * 100, announced=200)

    counts = Counts()
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        connection = await RawConnection.open(address)
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                for method in methods:
                    for body in bodies():
                        await connection.call(method, body, end=True)
                        counts.sent += 1
                    await asyncio.sleep(len(methods) / _CALLS_PER_S)
                if time.monotonic() >= until_s:
                    break
        await asyncio.sleep(0.2)
        counts.outcomes["closed"] += connection.ended
        await connection.aclose()
    return counts


async def broken_frames(address: str, seconds: float) -> Counts:
    """Send frames that break HTTP/2, each on a connection of its own."""
    broken = [
        b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
        frame(DATA, END_STREAM, 1, b"x"),
        frame(0x1, 0x4, 1, b"\xff" * 50),
        frame(0x8, 0, 0, b"\x00" * 4),
        frame(0x4, 0, 0, b"\x00" * 5),
        frame(0x1, 0x0, 1, b"\x00" * 10) + frame(DATA, 0, 1, b"x"),
        b"\xff" * 64,
    ]
    counts = Counts()
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        for data in broken:
            connection = await RawConnection.open(address)
            with contextlib.suppress(ConnectionError):
                await connection.send(data)
                counts.sent += 1
            await asyncio.sleep(0.005)
            counts.outcomes["closed"] += connection.is_closed
            await connection.aclose()
    return counts


async def refused_lines(address: str, seconds: float) -> Counts:
    """Make calls that are refused, each of which would be a line of the audit log."""
    request = p.CreateSessionRequest(spec=session_pb2.SessionSpec(avatar_id="none")).SerializeToString()
    return await _repeat(address, seconds, lambda channel: _unary(channel, "CreateSession", request), at_once=32)


async def _unary(channel: grpc.aio.Channel, name: str, request: bytes) -> None:
    await channel.unary_unary(f"{_SERVICE}/{name}")(request, timeout=30)


async def _repeat(
    address: str, seconds: float, call: Callable[[grpc.aio.Channel], Awaitable[None]], *, at_once: int
) -> Counts:
    """Repeat a call from several callers, and count its statuses."""
    counts = Counts()
    until_s = time.monotonic() + seconds

    async def caller() -> None:
        async with grpc.aio.insecure_channel(address, options=_LARGE) as channel:
            while time.monotonic() < until_s:
                try:
                    counts.sent += 1
                    await call(channel)
                    counts.outcomes["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    counts.refused(error)
                await asyncio.sleep(at_once / _CALLS_PER_S)

    await asyncio.gather(*[caller() for _ in range(at_once)])
    return counts
