"""The pool on a full account and after failed starts: no permit is lost and no session is left running."""

import asyncio
import contextlib

import httpx
import pytest

from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    UpstreamProtocol,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.account import Account, AccountConfig
from liveavatar_gateway.upstream.model import AvatarRequest, Started
from liveavatar_gateway.upstream.permits import PermitsConfig
from liveavatar_gateway.upstream.pool import Pool, PoolConfig, no_orphans
from liveavatar_gateway.upstream.rest import Rest, RestConfig
from testkit.answering import Answering, answering, envelope, http

REQUEST = AvatarRequest(avatar_id="avatar")
FULL = http(403, envelope(None, code=4032, message="Session concurrency limit reached"))
MINTED = http(200, envelope({"session_id": "s-1", "session_token": "t"}))
STARTED = http(201, envelope({"session_id": "s-1", "ws_url": "ws://127.0.0.1:9/"}))


class Journal:
    async def minted(self, upstream_session_id: str) -> None:
        """Do nothing: no session outlives the test."""

    async def started(self, started: Started) -> None:
        """Do nothing: no session outlives the test."""

    async def stopped(self, upstream_session_id: str) -> None:
        """Do nothing: no session outlives the test."""

    async def not_started(self, upstream_session_id: str) -> None:
        """Do nothing: no session outlives the test."""


@contextlib.asynccontextmanager
async def pool_before(*starts: bytes, limit: int = 5, stop_orphans=no_orphans):
    async with answering() as server:
        server.answers = {"/v1/sessions/token": MINTED, "/v1/sessions/start": list(starts)}
        rest = Rest(RestConfig(base_url=server.url), "key")
        account = Account(AccountConfig(permits=PermitsConfig(limit=limit, settle_s=0)), rest)
        pool = Pool(PoolConfig(), account, Metrics(), stop_orphans=stop_orphans)
        try:
            yield pool, server
        finally:
            await pool.close(5)
            await rest.aclose()


def starts(server: Answering) -> int:
    return server.asked.count("/v1/sessions/start")


async def test_callers_share_one_search_and_are_refused_when_it_finds_nothing():
    searches = 0

    async def stop_orphans() -> int:
        nonlocal searches
        searches += 1
        await asyncio.sleep(0.3)
        return 0

    async with pool_before(FULL, stop_orphans=stop_orphans) as (pool, _):
        calls = [asyncio.create_task(pool.start(REQUEST, Journal(), wait_s=30)) for _ in range(4)]
        await asyncio.wait(calls)
        assert all(isinstance(call.exception(), CapacityExhausted) for call in calls)
        assert (searches, pool.account.permits.used) == (1, 0)


async def test_what_a_search_stopped_makes_room():
    found = [1]
    async with pool_before(FULL, STARTED, stop_orphans=lambda: asyncio.sleep(0, found.pop())) as (pool, server):
        session = await pool.start(REQUEST, Journal(), wait_s=30)
        assert starts(server) == 2
        await session.leave()


async def test_a_fault_of_the_search_hides_no_refusal():
    async def stop_orphans() -> int:
        raise RuntimeError("a fault")

    async with pool_before(FULL, stop_orphans=stop_orphans) as (pool, _):
        with pytest.raises(CapacityExhausted) as refused:
            await pool.start(REQUEST, Journal(), wait_s=30)
        assert refused.value.metadata["upstream_code"] == "4032"


async def test_a_search_without_end_holds_a_caller_no_longer_than_it_is_willing_to_wait():
    forever = asyncio.Event()
    async with pool_before(FULL, stop_orphans=forever.wait) as (pool, _):
        async with asyncio.timeout(10):
            with pytest.raises(CapacityExhausted):
                await pool.start(REQUEST, Journal(), wait_s=0.2)
        forever.set()


async def test_a_caller_whose_time_is_over_is_told_what_liveavatar_said():
    async with pool_before(FULL, limit=1) as (pool, server):
        held = await pool.account.permits.acquire()
        call = asyncio.create_task(pool.start(REQUEST, Journal(), wait_s=1.0))
        await asyncio.sleep(0.05)
        held.release(settle=True)
        with pytest.raises(CapacityExhausted) as refused:
            await call
        assert refused.value.metadata["upstream_code"] == "4032"
        assert starts(server) > 1, "it was tried again"
        assert pool.account.permits.waiting == 0


async def test_a_refusal_by_somebody_else_keeps_the_permit_until_the_stop_is_confirmed():
    async with pool_before(http(403, b"<html>blocked</html>"), limit=1) as (pool, server):
        server.answers["/v1/sessions/stop"] = [http(404, b"<html>no</html>"), http(200, envelope(None))]
        with pytest.raises(UpstreamProtocol):
            await pool.start(REQUEST, Journal(), wait_s=1.0)
        assert pool.account.permits.used == 1
        assert "s-1" in pool.account.session_ids
        async with asyncio.timeout(10):
            while pool.account.permits.used:
                await asyncio.sleep(0.02)
        assert server.asked.count("/v1/sessions/stop") == 2
        assert "s-1" not in pool.account.session_ids


# --- a start that fails by a fault of the library beneath, which the emulator cannot produce


class RecordingJournal:
    """Records which sessions may run."""

    def __init__(self) -> None:
        self.running: set[str] = set()

    async def minted(self, upstream_session_id: str) -> None:
        self.running.add(upstream_session_id)

    async def started(self, started: Started) -> None:
        raise AssertionError(f"{started.session_id} never started")

    async def stopped(self, upstream_session_id: str) -> None:
        self.running.discard(upstream_session_id)

    async def not_started(self, upstream_session_id: str) -> None:
        self.running.discard(upstream_session_id)


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (AttributeError("'NoneType' object has no attribute 'getpeername'"), UpstreamUnreachable),
        (RuntimeError("of a library"), RuntimeError),
        (TimeoutError(), UpstreamTimeout),
    ],
    ids=["reset while connecting", "anything", "no answer in time"],
)
async def test_what_may_have_been_started_is_stopped_and_its_permit_is_free_again(monkeypatch, fault, raised):
    asked = []

    @contextlib.asynccontextmanager
    async def answer(_: httpx.AsyncClient, method: str, path: str, **arguments: object):
        asked.append(path)
        if path.endswith("/start"):
            raise fault
        data = {"session_id": "upstream", "session_token": "token"}
        yield httpx.Response(200, json={"code": 1000, "data": data, "message": "Success"})

    monkeypatch.setattr(httpx.AsyncClient, "stream", answer)
    metrics, journal = Metrics(), RecordingJournal()
    rest = Rest(RestConfig(backoff_s=0.01), "key", metrics=metrics)
    pool = Pool(PoolConfig(), Account(AccountConfig(permits=PermitsConfig(limit=1, settle_s=0)), rest), metrics)
    for _ in range(2):
        with pytest.raises(raised):
            await pool.start(REQUEST, journal, wait_s=1)
    # The stop runs in the background and frees the permit.
    await pool.close(5)
    assert asked.count("/v1/sessions/stop") == 2
    assert journal.running == set()
    assert pool.account.session_ids == set()
    await rest.aclose()
