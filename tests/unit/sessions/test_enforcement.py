"""Sessions end when their tenant may not have them any more."""

import asyncio
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest

from liveavatar_gateway.auth.quotas import Quotas
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.sessions.enforcement import CHECK_S, Enforcer
from liveavatar_gateway.sessions.services import utc_now
from testkit.actors import Process


@pytest.fixture
async def process():
    found = Process()
    yield found
    await found.close()


class Tenants:
    """State of the only tenant, set by the test."""

    def __init__(self) -> None:
        self.active = True
        self.found: Quotas | None = None

    def is_active(self, _tenant: str) -> bool:
        return self.active

    def quotas(self, _tenant: str) -> Quotas | None:
        return self.found


async def test_the_sessions_of_a_suspended_tenant_end(process):
    session, tenants = await process.ready(), Tenants()
    enforcer = Enforcer(lambda: [session], tenants)
    enforcer.check()
    assert not session.over
    tenants.active = False
    enforcer.check()
    assert session.end_reason is EndReason.TENANT_SUSPENDED
    enforcer.check()
    assert session.end_reason is EndReason.TENANT_SUSPENDED


async def test_a_session_ends_at_the_longest_time_of_its_tenant(process):
    session, tenants, now_s = await process.ready(), Tenants(), time.monotonic()
    tenants.found = Quotas(max_session_s=60)
    enforcer = Enforcer(lambda: [session], tenants, clock=lambda: now_s)
    enforcer.check()
    assert not session.over
    now_s += 61
    enforcer.check()
    assert session.end_reason is EndReason.MAX_DURATION


async def test_a_step_of_the_wall_clock_makes_no_session_older(process):
    session, tenants = await process.ready(), Tenants()
    tenants.found = Quotas(max_session_s=60)
    session._core.created_at = utc_now() - timedelta(hours=1)
    Enforcer(lambda: [session], tenants).check()
    assert not session.over


async def test_the_wait_for_a_permit_makes_no_session_older(process):
    session, tenants = await process.ready(), Tenants()
    tenants.found = Quotas(max_session_s=60)
    session.lifecycle.began_s = None
    Enforcer(lambda: [session], tenants, clock=lambda: time.monotonic() + 61).check()
    assert not session.over


async def test_a_session_that_cannot_be_checked_keeps_no_other_from_its_check(process):
    session, tenants = await process.ready(), Tenants()
    tenants.active = False
    broken = SimpleNamespace(id="broken")
    Enforcer(lambda: [broken, session], tenants).check()
    assert session.over


async def test_sessions_are_checked_regularly(process):
    session, tenants = await process.ready(), Tenants()
    tenants.active = False
    watching = asyncio.create_task(Enforcer(lambda: [session], tenants).watch())
    async with asyncio.timeout(30 * CHECK_S):
        while not session.over:
            await asyncio.sleep(0.01)
    watching.cancel()


def test_reservations_are_checked_with_the_present_tenants():
    asked, tenants = [], Tenants()
    reservations = SimpleNamespace(end_suspended=lambda is_active: asked.append(is_active("acme")))
    enforcer = Enforcer(list, tenants, reservations=reservations)
    enforcer.check()
    tenants.active = False
    enforcer.check()
    assert asked == [True, False]
