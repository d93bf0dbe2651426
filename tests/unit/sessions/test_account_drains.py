"""Drains of accounts: their sessions are announced the deadline, and end at it; others are left alone."""

from types import SimpleNamespace

import pytest

from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.pool.book import PermitKind
from liveavatar_gateway.registry.pool import MemoryPool
from liveavatar_gateway.sessions.account_drains import AccountDrains
from liveavatar_gateway.upstream.account import AccountSpec
from liveavatar_gateway.upstream.operations import PoolOperations
from liveavatar_gateway.upstream.permits import Permits, PermitsConfig, PermitWish
from testkit.actors import Process
from testkit.pools import accounts_at


@pytest.fixture
async def stage():
    process = Process()
    session = await process.ready()
    accounts = accounts_at("http://127.0.0.1:9", AccountSpec(name="a", id="a", api_key="k", max_sessions=3))
    permits = Permits(PermitsConfig(settle_s=0), MemoryPool(), accounts=accounts.limits)
    permit = await permits.acquire(PermitWish(session_id=session.id))
    drains = AccountDrains(accounts, permits, lambda: [session])
    yield SimpleNamespace(
        session=session,
        drains=drains,
        operations=PoolOperations(accounts, permits),
        permit=permit,
        account=accounts.first,
        permits=permits,
    )
    await permits.close()
    await accounts.aclose()
    await process.close()


async def test_a_drain_without_a_deadline_lets_sessions_end_by_themselves(stage):
    await stage.operations.drain("a", None)
    stage.drains.check()
    assert (stage.session.over, stage.session.draining_until) == (False, None)


async def test_sessions_are_announced_the_deadline_and_end_at_it(stage):
    await stage.operations.drain("a", 60)
    stage.drains.check()
    deadline = stage.session.draining_until
    assert deadline is not None
    stage.drains.check()
    assert stage.session.draining_until == deadline
    await stage.operations.drain("a", 0)
    stage.drains.check()
    assert stage.session.view().end_reason is EndReason.DRAINED


async def test_an_announcement_is_withdrawn_when_the_account_is_resumed(stage):
    await stage.operations.drain("a", 60)
    stage.drains.check()
    await stage.operations.resume("a")
    stage.drains.check()
    assert stage.session.draining_until is None
    assert not stage.session.over


async def test_the_drain_of_the_process_keeps_its_own_deadline(stage):
    await stage.operations.drain("a", 60)
    stage.drains.check()
    announced = stage.session.draining_until
    stage.session.go_away(announced.replace(year=announced.year + 1), takes_speech=True)
    await stage.operations.resume("a")
    stage.drains.check()
    assert stage.session.draining_until.year == announced.year + 1


async def test_a_session_on_another_account_goes_on(stage):
    stage.permit.transfer(session_id="another")
    await stage.operations.drain("a", 0)
    stage.drains.check()
    assert not stage.session.over


async def test_a_drain_that_another_process_began_refuses_callers_here(stage):
    def drain(book, now_s: float) -> None:
        book.accounts["a"] = book.account("a").drain(now_s + 60)

    await stage.permits._shared._store.pool(drain)
    await stage.permits.refresh()
    stage.drains.check()
    assert stage.account.health.draining


class WithoutCaller:
    """Notes what is ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def end_drained(self, warm_id: str) -> bool:
        self.ended.append(warm_id)
        return True


async def test_warm_sessions_end_at_the_begin_and_prepared_ones_at_the_deadline(stage):
    warm, reserved = WithoutCaller(), WithoutCaller()
    accounts = accounts_at("http://127.0.0.1:9", AccountSpec(name="a", id="a", api_key="k", max_sessions=3))
    drains = AccountDrains(accounts, stage.permits, list, warm=warm, reserved=reserved)
    await stage.permits.acquire(PermitWish(session_id="w", kind=PermitKind.WARM))
    await stage.permits.acquire(PermitWish(session_id="r", kind=PermitKind.RESERVED))
    drains.check()
    assert (warm.ended, reserved.ended) == ([], [])
    await stage.operations.drain("a", 60)
    drains.check()
    assert (warm.ended, reserved.ended) == (["w"], [])
    await stage.operations.drain("a", 0)
    drains.check()
    assert reserved.ended == ["r"]
    await accounts.aclose()
