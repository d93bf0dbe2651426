"""Floods of credentials that are wrong."""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Callable

import grpc

from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar.gateway.v1.session_service_pb2_grpc import SessionServiceStub
from security.counts import Counts
from testkit.tokens import TokenIssuer


async def wrong_keys(address: str, seconds: float) -> Counts:
    """Guess API keys, each of the right form."""
    return await _guess(address, seconds, lambda: f"lag_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}")


async def forged_tokens(address: str, seconds: float) -> Counts:
    """Show tokens that somebody else signed, in the name of an issuer that the gateway knows."""
    issuer = TokenIssuer()
    tokens = [issuer.token(tenant="victim", roles="admin") for _ in range(50)]
    return await _guess(address, seconds, lambda: secrets.choice(tokens))


async def unsigned_tokens(address: str, seconds: float) -> Counts:
    """Show tokens with the algorithm "none", as long as metadata may be."""
    payload = {"iss": "https://issuer.example", "aud": "gateway", "tenant": "victim", "filling": "x" * 10_000}
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=") for one in ({"alg": "none"}, payload)]
    token = (b".".join(parts) + b".").decode()
    return await _guess(address, seconds, lambda: token)


async def _guess(address: str, seconds: float, credential: Callable[[], str]) -> Counts:
    counts = Counts()
    until_s = time.monotonic() + seconds
    async with grpc.aio.insecure_channel(address) as channel:
        stub = SessionServiceStub(channel)

        async def guess() -> None:
            while time.monotonic() < until_s:
                counts.sent += 1
                try:
                    metadata = (("authorization", f"Bearer {credential()}"),)
                    await stub.GetServerInfo(p.GetServerInfoRequest(), metadata=metadata, timeout=30)
                    counts.outcomes["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    counts.refused(error)

        await asyncio.gather(*(guess() for _ in range(32)))
    return counts
