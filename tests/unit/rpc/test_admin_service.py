"""Calls of operators."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from types import SimpleNamespace

import pytest

from liveavatar.gateway.v1 import admin_service_pb2 as p
from liveavatar.gateway.v1 import session_pb2
from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.pool.breaker import BreakerState
from liveavatar_gateway.pool.overview import AccountStatus, AccountUse, PoolOverview, PoolStatus
from liveavatar_gateway.registry.usage import UsageRow
from liveavatar_gateway.rpc.admin_service import AdminConfig, AdminService
from liveavatar_gateway.upstream.operations import PoolReload
from testkit.actors import Context, Process

AT = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNT = AccountStatus(
    name="main",
    state="active",
    use=AccountUse(name="id", limit=5, allowed=5),
    configured_limit=5,
    trouble="",
    retry_in_s=None,
    breaker=BreakerState.CLOSED,
    last_error="",
    credits=None,
    budget=None,
    cost=1.0,
)


class Drain:
    """Notes its grace."""

    deadline = AT

    async def begin(self, grace_s: float) -> datetime:
        self.grace_s = grace_s
        return AT

    async def cancel(self) -> bool:
        return True


class Usage:
    """Has one row, and notes what is asked for."""

    asked: Mapping[str, object]

    async def page(self, **asked: object) -> tuple[list[UsageRow], str]:
        self.asked = asked
        row = UsageRow(day=20_787, tenant="acme", label="desk", minutes=7, session_count=2, played_s=61.5)
        return [row], "next"


@pytest.fixture
async def session():
    process = Process()
    yield await process.ready()
    await process.close()


@pytest.fixture
def usage():
    return Usage()


class Operations:
    """Notes the verbs."""

    def __init__(self) -> None:
        self.verbs: list[tuple[object, ...]] = []

    def knows(self, name: str) -> bool:
        return name == "main"

    async def fresh(self) -> PoolStatus:
        return PoolStatus(accounts=[ACCOUNT], overview=PoolOverview(waiting=4))

    async def pause(self, name: str) -> AccountStatus:
        self.verbs.append(("pause", name))
        return ACCOUNT

    async def resume(self, name: str) -> tuple[AccountStatus, bool]:
        self.verbs.append(("resume", name))
        return ACCOUNT, True

    async def drain(self, name: str, grace_s: float | None) -> AccountStatus:
        self.verbs.append(("drain", name, grace_s))
        return ACCOUNT

    async def set_limit(self, name: str, limit: int | None) -> AccountStatus:
        self.verbs.append(("limit", name, limit))
        return ACCOUNT

    async def reload(self) -> PoolReload:
        return PoolReload(failed=["file: no"])


@pytest.fixture
def operations():
    return Operations()


@pytest.fixture
def service(session, usage, operations):
    async def end(_: str, reason: EndReason, *, tenant: None, wait_s: float | None):
        session.end(reason)
        return session.view()

    async def page(_token: str, size: int):
        owned = SimpleNamespace(session=session.view(), owner="me", epoch=3, lease_left_s=-1.0)
        return [owned][:size], "next"

    directory = SimpleNamespace(living=lambda: [session], end=end)
    inventory = SimpleNamespace(page=page, owner="me", adopted_count=1, swept_count=2)
    permits = SimpleNamespace(limit=9, used=2, waiting=1)
    config = AdminConfig(drain_grace_s=12.0)
    return AdminService(config, directory, Drain(), permits, inventory, usage=usage, pool=operations)


async def test_a_drain_without_a_grace_has_the_configured_one(service):
    response = await service.Drain(p.DrainRequest(), Context())
    assert service._drain.grace_s == 12.0
    assert (response.deadline.ToDatetime(tzinfo=UTC), response.session_count) == (AT, 1)


async def test_a_grace_out_of_range_is_refused(service):
    request = p.DrainRequest()
    request.grace.FromSeconds(3601)
    with pytest.raises(InvalidField):
        await service.Drain(request, Context())


async def test_a_drain_can_be_cancelled(service):
    assert (await service.Undrain(p.UndrainRequest(), Context())).was_draining


async def test_the_status_counts_permits_and_sessions(service):
    status = await service.GetProcessStatus(p.GetProcessStatusRequest(), Context())
    assert (status.owner, status.session_count) == ("me", 1)
    assert (status.permit_count, status.used_permit_count, status.waiting_count) == (9, 2, 1)
    assert (status.adopted_count, status.swept_count) == (1, 2)


async def test_owned_sessions_come_with_their_owner_and_a_lease_that_is_never_negative(service, session):
    response = await service.ListOwnedSessions(p.ListOwnedSessionsRequest(), Context())
    (owned,) = response.sessions
    assert (owned.session.id, owned.owner, owned.epoch) == (session.id, "me", 3)
    assert owned.lease_left.ToTimedelta().total_seconds() == 0
    assert response.next_page_token == "next"


async def test_an_ejected_session_ends_for_the_operator(service, session):
    response = await service.EjectSession(p.EjectSessionRequest(session_id=session.id), Context())
    assert response.session.end_reason == session_pb2.END_REASON_OPERATOR


async def test_usage_comes_by_day_tenant_and_label(service, usage):
    request = p.GetUsageRequest(
        tenant="", first_day="2026-11-01", last_day="2026-11-30", page_token="t", page_size=9
    )
    response = await service.GetUsage(request, Context())
    assert usage.asked == {
        "tenant": "",
        "first_day": date(2026, 11, 1),
        "last_day": date(2026, 11, 30),
        "token": "t",
        "size": 9,
    }
    (row,) = response.rows
    assert (row.day, row.tenant, row.label, row.session_count) == ("2026-11-30", "acme", "desk", 2)
    assert (row.billed_minutes, row.played.ToTimedelta().total_seconds()) == (7, 61.5)
    assert response.next_page_token == "next"


async def test_usage_of_all_tenants_up_to_today_is_the_default(service, usage):
    await service.GetUsage(p.GetUsageRequest(), Context())
    assert usage.asked["tenant"] is None
    assert usage.asked["first_day"] < date(2000, 1, 1)
    assert usage.asked["last_day"] <= datetime.now(UTC).date()


@pytest.mark.parametrize("day", ["2026-02-30", "20261130", "2026-W49-1", "yesterday", "2026-11-3x"])
@pytest.mark.parametrize("field", ["first_day", "last_day"])
async def test_a_day_that_is_none_is_refused(service, field, day):
    with pytest.raises(InvalidField) as refused:
        await service.GetUsage(p.GetUsageRequest(**{field: day}), Context())
    assert refused.value.field == field


async def test_the_pool_is_shown(service):
    answer = await service.GetPool(p.GetPoolRequest(), Context())
    assert ([one.name for one in answer.accounts], answer.waiting_count, answer.owner) == (["main"], 4, "me")


async def test_an_account_is_paused_resumed_and_drained(service, operations):
    await service.PauseAccount(p.PauseAccountRequest(account="main"), Context())
    resumed = await service.ResumeAccount(p.ResumeAccountRequest(account="main"), Context())
    assert (resumed.account.name, resumed.was_stopped) == ("main", True)
    request = p.DrainAccountRequest(account="main")
    await service.DrainAccount(request, Context())
    request.grace.FromSeconds(60)
    await service.DrainAccount(request, Context())
    assert operations.verbs == [
        ("pause", "main"),
        ("resume", "main"),
        ("drain", "main", None),
        ("drain", "main", 60.0),
    ]


async def test_a_limit_is_set_and_taken_back(service, operations):
    await service.SetAccountLimit(p.SetAccountLimitRequest(account="main", limit=7), Context())
    await service.SetAccountLimit(p.SetAccountLimitRequest(account="main"), Context())
    assert operations.verbs == [("limit", "main", 7), ("limit", "main", None)]


@pytest.mark.parametrize("limit", [0, -1, 10_001])
async def test_a_limit_out_of_range_is_refused(service, operations, limit):
    with pytest.raises(InvalidField):
        await service.SetAccountLimit(p.SetAccountLimitRequest(account="main", limit=limit), Context())
    assert not operations.verbs


async def test_the_grace_of_an_account_out_of_range_is_refused(service, operations):
    request = p.DrainAccountRequest(account="main")
    request.grace.FromSeconds(86_401)
    with pytest.raises(InvalidField):
        await service.DrainAccount(request, Context())
    assert not operations.verbs


async def test_a_reload_says_what_cannot_be_used(service):
    assert list((await service.ReloadPool(p.ReloadPoolRequest(), Context())).failed) == ["file: no"]
