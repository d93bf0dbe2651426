"""Calls of operators."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from liveavatar.gateway.v1 import admin_service_pb2 as p
from liveavatar.gateway.v1 import session_pb2
from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.core.states import EndReason
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


@pytest.fixture
async def session():
    process = Process()
    yield await process.ready()
    await process.close()


@pytest.fixture
def service(session):
    async def end(_: str, reason: EndReason, *, tenant: None, wait_s: float | None):
        session.end(reason)
        return session.view()

    async def page(_token: str, size: int):
        owned = SimpleNamespace(session=session.view(), owner="me", epoch=3, lease_left_s=-1.0)
        return [owned][:size], "next"

    directory = SimpleNamespace(living=lambda: [session], end=end)
    inventory = SimpleNamespace(page=page, owner="me", adopted_count=1, swept_count=2)
    permits = SimpleNamespace(limit=9, used=2, waiting=1)
    return AdminService(AdminConfig(drain_grace_s=12.0), directory, Drain(), permits, inventory)


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
