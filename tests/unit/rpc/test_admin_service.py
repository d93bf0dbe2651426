"""Calls of operators."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from types import SimpleNamespace

import pytest

from liveavatar.gateway.v1 import admin_service_pb2 as p
from liveavatar.gateway.v1 import session_pb2
from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.registry.usage import UsageRow
from liveavatar_gateway.rpc.admin_service import AdminConfig, AdminService
from testkit.actors import Context, Process

AT = datetime(2026, 1, 1, tzinfo=UTC)


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


@pytest.fixture
def service(session, usage):
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
    return AdminService(config, directory, Drain(), permits, inventory, usage=usage)


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
