"""An account that LiveAvatar calls full: one search for what dead processes left, each caller's own deadline."""

import asyncio
import contextlib

import pytest

from liveavatar_gateway.core.errors import CapacityExhausted, UpstreamProtocol
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.model import AvatarRequest, Started
from liveavatar_gateway.upstream.permits import PermitsConfig
from liveavatar_gateway.upstream.pool import Pool, PoolConfig
from liveavatar_gateway.upstream.rest import Rest, RestConfig
from testkit.answering import Answering, answering, envelope, http

REQUEST = AvatarRequest(avatar_id="avatar")
FULL = http(403, envelope(None, code=4032, message="Session concurrency limit reached"))
MINTED = http(200, envelope({"session_id": "s-1", "session_token": "t"}))
STARTED = http(201, envelope({"session_id": "s-1", "ws_url": "ws://127.0.0.1:9/"}))


class Ledger:
    async def minted(self, upstream_session_id: str) -> None:
        """Nothing outlives the test."""

    async def started(self, started: Started) -> None:
        """Nothing outlives the test."""

    async def stopped(self, upstream_session_id: str) -> None:
        """Nothing outlives the test."""


@contextlib.asynccontextmanager
async def pool_before(*starts: bytes, limit: int = 5):
    async with answering() as server:
        server.answers = {"/v1/sessions/token": MINTED, "/v1/sessions/start": list(starts)}
        rest = Rest(RestConfig(base_url=server.url), "key")
        pool = Pool(PoolConfig(places=PermitsConfig(limit=limit, settle_s=0)), rest, Metrics())
        try:
            yield pool, server
        finally:
            await pool.close(5)
            await rest.aclose()


def starts(server: Answering) -> int:
    return server.asked.count("/v1/sessions/start")


async def test_callers_share_one_search_and_are_refused_when_it_finds_nothing():
    async with pool_before(FULL) as (pool, _):
        searches = 0

        async def find() -> int:
            nonlocal searches
            searches += 1
            await asyncio.sleep(0.3)
            return 0

        pool.find_orphans = find
        calls = [asyncio.create_task(pool.start(REQUEST, Ledger(), wait_s=30)) for _ in range(4)]
        await asyncio.wait(calls)
        assert all(isinstance(call.exception(), CapacityExhausted) for call in calls)
        assert (searches, pool.places.used) == (1, 0)


async def test_what_a_search_stopped_makes_room():
    async with pool_before(FULL, STARTED) as (pool, server):
        found = [1]
        pool.find_orphans = lambda: asyncio.sleep(0, found.pop())
        session = await pool.start(REQUEST, Ledger(), wait_s=30)
        assert starts(server) == 2
        await session.leave()


async def test_a_fault_of_the_search_hides_no_refusal():
    async with pool_before(FULL) as (pool, _):

        async def find() -> int:
            raise RuntimeError("a fault")

        pool.find_orphans = find
        with pytest.raises(CapacityExhausted) as refused:
            await pool.start(REQUEST, Ledger(), wait_s=30)
        assert refused.value.metadata["upstream_code"] == "4032"


async def test_a_search_without_end_holds_a_caller_no_longer_than_it_is_willing_to_wait():
    async with pool_before(FULL) as (pool, _):
        forever = asyncio.Event()
        pool.find_orphans = forever.wait
        async with asyncio.timeout(10):
            with pytest.raises(CapacityExhausted):
                await pool.start(REQUEST, Ledger(), wait_s=0.2)
        forever.set()


async def test_a_caller_whose_time_is_over_is_told_what_liveavatar_said():
    async with pool_before(FULL, limit=1) as (pool, server):
        held = await pool.places.take()
        call = asyncio.create_task(pool.start(REQUEST, Ledger(), wait_s=1.0))
        await asyncio.sleep(0.05)
        held.release(settle=True)
        with pytest.raises(CapacityExhausted) as refused:
            await call
        assert refused.value.metadata["upstream_code"] == "4032"
        assert starts(server) > 1, "it was tried again"
        assert pool.places.waiting == 0


async def test_a_refusal_by_somebody_else_keeps_the_place_until_the_stop_is_confirmed():
    async with pool_before(http(403, b"<html>blocked</html>"), limit=1) as (pool, server):
        server.answers["/v1/sessions/stop"] = [http(404, b"<html>no</html>"), http(200, envelope(None))]
        with pytest.raises(UpstreamProtocol):
            await pool.start(REQUEST, Ledger(), wait_s=1.0)
        assert pool.places.used == 1
        assert "s-1" in pool.held
        async with asyncio.timeout(10):
            while pool.places.used:
                await asyncio.sleep(0.02)
        assert server.asked.count("/v1/sessions/stop") == 2
        assert "s-1" not in pool.held
