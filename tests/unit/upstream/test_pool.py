"""The pool on a full account and after failed starts: no permit is lost and no session is left running."""

import asyncio
import contextlib
import errno
import json
from dataclasses import replace

import httpx
import pytest

from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    UpstreamAddressRefused,
    UpstreamProtocol,
    UpstreamTimeout,
    UpstreamUnauthenticated,
    UpstreamUnreachable,
)
from liveavatar_gateway.pool.account_health import AccountState
from liveavatar_gateway.upstream import early_token
from liveavatar_gateway.upstream.account import AccountSpec
from liveavatar_gateway.upstream.egress import Egress, EgressConfig, Route
from liveavatar_gateway.upstream.model import AvatarRequest, Started
from liveavatar_gateway.upstream.permits import PermitWish
from liveavatar_gateway.upstream.pool import PoolConfig, always, no_orphans
from liveavatar_gateway.upstream.rest import RestConfig
from liveavatar_gateway.upstream.socket import CommandSocket
from testkit.answering import Answering, answering, envelope, http
from testkit.pools import accounts_at, pool_at

REQUEST = AvatarRequest(avatar_id="avatar")
FULL = http(403, envelope(None, code=4032, message="Session concurrency limit reached"))
MINTED = http(200, envelope({"session_id": "s-1", "session_token": "t"}))
STARTED = http(201, envelope({"session_id": "s-1", "ws_url": "ws://127.0.0.1:9/"}))


class Journal:
    async def minted(self, upstream_session_id: str, **_: str) -> None:
        """Do nothing: no session outlives the test."""

    async def started(self, started: Started) -> None:
        """Do nothing: no session outlives the test."""

    async def stopped(self, upstream_session_id: str) -> None:
        """Do nothing: no session outlives the test."""

    async def not_started(self, upstream_session_id: str) -> None:
        """Do nothing: no session outlives the test."""


@contextlib.asynccontextmanager
async def pool_before(*starts: bytes, limit: int = 5, stop_orphans=no_orphans, may_connect=always):
    async with answering() as server:
        server.answers = {"/v1/sessions/token": MINTED, "/v1/sessions/start": list(starts)}
        pool = pool_at(server.url, limit=limit, stop_orphans=stop_orphans, may_connect=may_connect)
        try:
            yield pool, server
        finally:
            await pool.close(5)
            await pool.accounts.aclose()


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
        assert (searches, pool.permits.used) == (1, 0)


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
        held = await pool.permits.acquire()
        call = asyncio.create_task(pool.start(REQUEST, Journal(), wait_s=1.0))
        await asyncio.sleep(0.05)
        held.release(settle=True)
        with pytest.raises(CapacityExhausted) as refused:
            await call
        assert refused.value.metadata["upstream_code"] == "4032"
        assert starts(server) > 1, "it was tried again"
        assert pool.permits.waiting == 0


async def test_a_refusal_by_somebody_else_keeps_the_permit_until_the_stop_is_confirmed():
    async with pool_before(http(403, b"<html>blocked</html>"), limit=1) as (pool, server):
        server.answers["/v1/sessions/stop"] = [http(404, b"<html>no</html>"), http(200, envelope(None))]
        with pytest.raises(UpstreamProtocol):
            await pool.start(REQUEST, Journal(), wait_s=1.0)
        assert pool.permits.used == 1
        assert "s-1" in pool.accounts.session_ids
        async with asyncio.timeout(10):
            while pool.permits.used:
                await asyncio.sleep(0.02)
        assert server.asked.count("/v1/sessions/stop") == 2
        assert "s-1" not in pool.accounts.session_ids


# --- a start that fails by a fault of the library beneath, which the emulator cannot produce


class RecordingJournal:
    """Records which sessions may run."""

    def __init__(self) -> None:
        self.running: set[str] = set()

    async def minted(self, upstream_session_id: str, **_: str) -> None:
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

    async def answer(_: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if request.url.path.endswith("/start"):
            raise fault
        data = {"session_id": "upstream", "session_token": "token"}
        body = json.dumps({"code": 1000, "data": data, "message": "Success"})
        return httpx.Response(200, stream=httpx.ByteStream(body.encode()))

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", answer)
    journal = RecordingJournal()
    spec = AccountSpec(api_key="key", max_sessions=1)
    pool = pool_at(
        "", accounts=accounts_at("http://127.0.0.1:9", spec, rest=RestConfig(backoff_s=0.01)), config=PoolConfig()
    )
    for _ in range(2):
        with pytest.raises(raised):
            await pool.start(REQUEST, journal, wait_s=1)
    # The stop runs in the background and frees the permit.
    await pool.close(5)
    assert asked.count("/v1/sessions/stop") == 2
    assert journal.running == set()
    assert pool.accounts.session_ids == set()
    await pool.accounts.aclose()


async def test_nothing_is_started_without_a_descriptor_for_its_socket():
    async with pool_before(STARTED, limit=1, may_connect=lambda: False) as (pool, server):
        for _ in range(2):
            with pytest.raises(CapacityExhausted) as refused:
                await pool.start(REQUEST, Journal(), wait_s=1)
            assert refused.value.scope == "replica"
        assert server.asked == []
        assert pool.permits.used == 0


async def test_a_failure_to_count_descriptors_keeps_no_permit():
    def fail() -> bool:
        raise OSError(errno.EMFILE, "too many open files")

    async with pool_before(STARTED, limit=1, may_connect=fail) as (pool, server):
        for _ in range(2):
            with pytest.raises(OSError, match="too many open files"):
                await pool.start(REQUEST, Journal(), wait_s=1)
        assert server.asked == []
        assert pool.permits.used == 0


async def test_the_wait_for_a_socket_includes_the_resolution_of_its_host(monkeypatch):
    async def slowly(host: str, port: int) -> list[str]:
        await asyncio.sleep(0.2)
        return ["127.0.0.1"]

    waits = []

    async def refuse(route: Route, on_event: object, *, timeout_s: float) -> CommandSocket:
        waits.append(timeout_s)
        raise UpstreamUnreachable("refused", retry_after_s=1)

    monkeypatch.setattr(CommandSocket, "open", refuse)
    egress = EgressConfig(api_url="http://127.0.0.1")
    async with pool_before() as (before, _):
        config = PoolConfig(connect_timeout_s=60, egress=egress)
        pool = pool_at("", accounts=before.accounts, config=config)
        pool.egress = Egress(egress, resolve=slowly)
        started = Started(session_id="s-1", ws_url="ws://named/", room_url="", viewer_token="", max_duration_s=60)
        with pytest.raises(UpstreamUnreachable):
            await pool.open_socket(started, lambda event: None)
    assert 0 < waits[0] < 59.9


@pytest.mark.parametrize("stop", [http(200, envelope(None)), http(404, envelope(None, code=404, message="gone"))])
async def test_a_session_with_a_refused_address_is_stopped_behind_and_counts_as_one_that_ran(stop):
    class Counted(Journal):
        def __init__(self) -> None:
            self.ended: list[str] = []

        async def started(self, started: Started) -> None:
            raise AssertionError("its addresses are not used")

        async def stopped(self, upstream_session_id: str) -> None:
            self.ended.append(upstream_session_id)

        async def not_started(self, upstream_session_id: str) -> None:
            raise AssertionError("it was billed")

    journal = Counted()
    bad = http(201, envelope({"session_id": "s-1", "ws_url": "ws://169.254.169.254/"}))
    async with pool_before(bad, limit=1) as (pool, server):
        server.answers["/v1/sessions/stop"] = stop
        with pytest.raises(UpstreamAddressRefused):
            await pool.start(REQUEST, journal, wait_s=1.0)
        assert pool.permits.used == 1
        async with asyncio.timeout(10):
            while pool.permits.used:
                await asyncio.sleep(0.02)
        assert (journal.ended, server.asked.count("/v1/sessions/stop")) == (["s-1"], 1)


# --- several accounts


@contextlib.asynccontextmanager
async def two_accounts(*starts: bytes, tokens: bytes | list[bytes] = MINTED):
    """A pool whose first account is the cheaper one; both get their answers from one server, in order."""
    async with answering() as server:
        server.answers = {
            "/v1/sessions/token": tokens,
            "/v1/sessions/start": list(starts),
            "/v1/sessions/stop": http(200, envelope(None)),
            "/v1/users/credits": http(200, envelope({"credits_left": "0.00"})),
        }
        specs = [AccountSpec(name=name, id=name, api_key=name, max_sessions=2, cost=cost) for name, cost in COSTS]
        pool = pool_at(server.url, accounts=accounts_at(server.url, *specs))
        try:
            yield pool, server
        finally:
            await pool.close(5)
            await pool.accounts.aclose()


COSTS = (("cheap", 1.0), ("dear", 2.0))
NO_CREDITS = http(403, envelope(None, code=4033, message="Insufficient credits for session"))
DOWN = http(503, envelope(None, code=503, message="down"))
UNKNOWN_KEY = http(401, envelope(None, code=401, message="Invalid API key"))


@pytest.mark.parametrize("first", [NO_CREDITS, DOWN, FULL], ids=["no credits", "down", "full"])
async def test_a_caller_continues_with_the_next_account_when_one_fails(first):
    async with two_accounts(first, STARTED) as (pool, server):
        session = await pool.start(REQUEST, Journal(), wait_s=5)
        assert (session.account.name, starts(server)) == ("dear", 2)
        await session.leave()


async def test_a_caller_tries_each_account_once_and_is_told_of_the_last():
    async with two_accounts(DOWN) as (pool, server):
        with pytest.raises(UpstreamUnreachable):
            await pool.start(REQUEST, Journal(), wait_s=5)
        assert starts(server) == 2


async def test_an_open_breaker_refuses_at_once_and_without_a_call():
    async with two_accounts(DOWN) as (pool, server):
        for _ in range(3):
            with pytest.raises(UpstreamUnreachable):
                await pool.start(REQUEST, Journal(), wait_s=5)
        asked = len(server.asked)
        with pytest.raises(UpstreamUnreachable) as refused:
            await pool.start(REQUEST, Journal(), wait_s=5)
        assert "/v1/sessions/start" not in server.asked[asked:]
        assert "down" in refused.value.message
        assert 0 < refused.value.retry_after_s <= 5


async def test_a_refused_key_is_confirmed_by_the_balance_and_then_left_alone():
    async with two_accounts(STARTED, tokens=[UNKNOWN_KEY, MINTED]) as (pool, server):
        server.answers["/v1/users/credits"] = UNKNOWN_KEY
        first = await pool.start(REQUEST, Journal(), wait_s=5)
        async with asyncio.timeout(10):
            while not pool.accounts.find("cheap").health.has_bad_key:
                await asyncio.sleep(0.01)
        minted = server.asked.count("/v1/sessions/token")
        second = await pool.start(REQUEST, Journal(), wait_s=5)
        assert {first.account.name, second.account.name} == {"dear"}
        assert server.asked.count("/v1/sessions/token") == minted + 1
        await first.leave()
        await second.leave()


async def test_callers_in_the_queue_are_told_when_no_account_will_serve_them():
    async with two_accounts(STARTED) as (pool, _):
        running = [await pool.start(REQUEST, Journal(), wait_s=5) for _ in range(4)]
        waiting = asyncio.create_task(pool.start(REQUEST, Journal(), wait_s=30))
        async with asyncio.timeout(10):
            while not pool.permits.waiting:
                await asyncio.sleep(0.01)
            for account in pool.accounts:
                account.refuse_key(UpstreamUnauthenticated("no"))
            with pytest.raises(UpstreamUnauthenticated):
                await waiting
        assert pool.permits.waiting == 0
        for session in running:
            await session.leave()


async def test_a_caller_in_the_queue_gets_an_account_that_works_again():
    async with two_accounts(STARTED) as (pool, _):
        cheap = pool.accounts.find("cheap")
        cheap.refuse_key(UpstreamUnauthenticated("no"))
        running = [await pool.start(REQUEST, Journal(), wait_s=5) for _ in range(2)]
        waiting = asyncio.create_task(pool.start(REQUEST, Journal(), wait_s=30))
        async with asyncio.timeout(10):
            while not pool.permits.waiting:
                await asyncio.sleep(0.01)
            cheap.health.renew_key()
            session = await waiting
        assert session.account.name == "cheap"
        for one in (*running, session):
            await one.leave()


async def test_a_wish_for_one_account_waits_for_it_and_no_longer_than_its_caller():
    async with two_accounts(STARTED) as (pool, _):
        running = [await pool.start(REQUEST, Journal(), wait_s=5) for _ in range(2)]
        assert {one.account.name for one in running} == {"cheap"}
        waits = []
        wish = PermitWish(accounts=("cheap",))
        async with asyncio.timeout(5):
            with pytest.raises(CapacityExhausted):
                await pool.start(REQUEST, Journal(), wait_s=0.3, wish=wish, on_wait=waits.append)
        assert len(waits) == 1, "it entered the queue once"
        for one in running:
            await one.leave()


async def test_a_caller_that_waits_again_for_more_accounts_keeps_its_place():
    async with two_accounts(STARTED) as (pool, _):
        held = [await pool.permits.acquire(PermitWish(accounts=("cheap", "dear"))) for _ in range(4)]
        dear, places = pool.accounts.find("dear"), []
        dear.health.decide(AccountState.PAUSED)
        waiting = asyncio.create_task(pool.start(REQUEST, Journal(), wait_s=30, on_wait=places.append))
        async with asyncio.timeout(10):
            while not places:
                await asyncio.sleep(0.01)
            later = asyncio.create_task(pool.permits.acquire(PermitWish(accounts=("dear",))))
            while pool.permits.waiting < 2:
                await asyncio.sleep(0.01)
            dear.health.decide(AccountState.ACTIVE)
            while len(places) < 2:
                await asyncio.sleep(0.01)
            held.pop().release(settle=False)
            session = await waiting
        assert (session.account.name, later.done()) == ("dear", False)
        await session.leave()
        await later


async def test_a_refusal_of_a_key_that_changed_meanwhile_is_tried_again_with_the_new_one():
    async with answering() as server:
        accounts = accounts_at(server.url, AccountSpec(api_key="former"))

        async def refuse(writer: asyncio.StreamWriter) -> None:
            account = accounts.first
            account.use(replace(account.spec, api_key="new"))
            writer.write(UNKNOWN_KEY)
            await writer.drain()

        server.answers = {"/v1/sessions/token": [refuse, MINTED], "/v1/sessions/start": STARTED}
        pool = pool_at(server.url, accounts=accounts)
        session = await pool.start(REQUEST, Journal(), wait_s=5)
        assert "/v1/users/credits" not in server.asked, "the new key is not suspected"
        await session.leave()
        await pool.close(5)
        await accounts.aclose()


async def test_a_token_that_grew_old_before_its_start_is_not_used(monkeypatch):
    monkeypatch.setattr(early_token, "_MAX_AGE_S", 0.0)

    class Slow(Journal):
        dropped = 0

        async def not_started(self, upstream_session_id: str) -> None:
            self.dropped += 1
            monkeypatch.setattr(early_token, "_MAX_AGE_S", 50.0)

    journal = Slow()
    async with pool_before(STARTED) as (pool, server):
        session = await pool.start(REQUEST, journal, wait_s=5)
        assert (journal.dropped, server.asked.count("/v1/sessions/token"), starts(server)) == (1, 2, 1)
        await session.leave()


async def test_the_token_of_a_caller_in_the_queue_is_minted_while_it_waits():
    async with pool_before(STARTED, limit=1) as (pool, server):
        held = await pool.permits.acquire()
        waiting = asyncio.create_task(pool.start(REQUEST, Journal(), wait_s=30))
        async with asyncio.timeout(10):
            while "/v1/sessions/token" not in server.asked:
                await asyncio.sleep(0.01)
            assert starts(server) == 0
            held.release(settle=False)
            session = await waiting
        assert (server.asked.count("/v1/sessions/token"), starts(server)) == (1, 1)
        await session.leave()
