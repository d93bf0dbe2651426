"""Sessions for lists: each with as many labels as it may have, in the largest characters."""

import asyncio
import contextlib

import grpc
from google.protobuf import duration_pb2

from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar.gateway.v1.session_service_pb2_grpc import SessionServiceStub
from testkit.caller import AVATAR

_COUNT = 16
"""The log has three lines for each."""


async def fill(address: str) -> None:
    """Create sessions, which end at once and stay in the list."""
    labels = {f"{number}-{'k' * 50}": "\U0001f600" * 128 for number in range(16)}
    grace = duration_pb2.Duration(nanos=1_000_000)
    spec = session_pb2.SessionSpec(avatar_id=AVATAR, labels=labels, detach_grace=grace)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = SessionServiceStub(channel)

        async def create() -> None:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await stub.CreateSession(p.CreateSessionRequest(spec=spec), timeout=10)

        await asyncio.gather(*[create() for _ in range(_COUNT)])
