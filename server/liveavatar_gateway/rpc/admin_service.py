"""`AdminService`: calls of operators, on a port of its own."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import grpc

from liveavatar.gateway.v1 import admin_service_pb2 as p
from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceServicer
from liveavatar_gateway import __version__
from liveavatar_gateway.core.errors import InvalidField, id_or_nothing
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.registry.usage import UsageRow, date_of
from liveavatar_gateway.rpc import mapping, pool_messages
from liveavatar_gateway.rpc.interceptors.audit import audited
from liveavatar_gateway.rpc.lists import fitting
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.drain import Drain
from liveavatar_gateway.sessions.inventory import Inventory, OwnedSession
from liveavatar_gateway.sessions.usage_report import UsageReport, token_of
from liveavatar_gateway.upstream.operations import PoolOperations
from liveavatar_gateway.upstream.permits import Permits

_MAX_GRACE_S: Final = 3600.0
_MAX_ACCOUNT_GRACE_S: Final = 86_400.0
_MAX_LIMIT: Final = 10_000
_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """Defaults for operators."""

    drain_grace_s: float = 30.0
    """Time until the deadline of a drain that sets none."""


class AdminService(AdminServiceServicer):
    """Operation of this process."""

    def __init__(
        self,
        config: AdminConfig,
        directory: Directory,
        drain: Drain,
        permits: Permits,
        inventory: Inventory,
        *,
        usage: UsageReport,
        pool: PoolOperations,
    ) -> None:
        self._config = config
        self._directory = directory
        self._drain = drain
        self._permits = permits
        self._inventory = inventory
        self._usage = usage
        self._pool = pool
        self._started_at = datetime.now(UTC)

    async def Drain(  # noqa: N802, D102 - named and described in the contract
        self, request: p.DrainRequest, context: _Context
    ) -> p.DrainResponse:
        grace_s = self._grace_s(request)
        with audited("process.drain", grace_s=grace_s):
            deadline = await self._drain.begin(grace_s)
        return p.DrainResponse(deadline=mapping.timestamp(deadline), session_count=len(self._directory.living()))

    def _grace_s(self, request: p.DrainRequest) -> float:
        if not request.HasField("grace"):
            return self._config.drain_grace_s
        return mapping.seconds_of(request.grace, "grace", least_s=0, most_s=_MAX_GRACE_S)

    async def Undrain(  # noqa: N802, D102
        self,
        request: p.UndrainRequest,
        context: _Context,
    ) -> p.UndrainResponse:
        with audited("process.undrain"):
            was_draining = await self._drain.cancel()
        return p.UndrainResponse(was_draining=was_draining)

    async def GetProcessStatus(  # noqa: N802, D102
        self,
        request: p.GetProcessStatusRequest,
        context: _Context,
    ) -> p.GetProcessStatusResponse:
        return p.GetProcessStatusResponse(
            owner=self._inventory.owner,
            version=__version__,
            started_at=mapping.timestamp(self._started_at),
            drain_deadline=mapping.timestamp(self._drain.deadline),
            permit_count=self._permits.limit,
            used_permit_count=self._permits.used,
            waiting_count=self._permits.waiting,
            session_count=len(self._directory.living()),
            adopted_count=self._inventory.adopted_count,
            swept_count=self._inventory.swept_count,
        )

    async def ListOwnedSessions(  # noqa: N802, D102
        self, request: p.ListOwnedSessionsRequest, context: _Context
    ) -> p.ListOwnedSessionsResponse:
        size = mapping.page_size(request.page_size)
        found, next_token = await self._inventory.page(request.page_token, size)
        sessions, count = fitting(found, _owned)
        if count < len(found):
            next_token = found[count - 1].session.id
        return p.ListOwnedSessionsResponse(sessions=sessions, next_page_token=next_token)

    async def EjectSession(  # noqa: N802, D102
        self, request: p.EjectSessionRequest, context: _Context
    ) -> p.EjectSessionResponse:
        session_id = mapping.checked_id(request.session_id, "session_id", required=True)
        with audited("session.eject", session=id_or_nothing(session_id)):
            view = await self._directory.end(
                session_id,
                EndReason.OPERATOR,
                tenant=None,
                wait_s=mapping.permit_wait_s(context.time_remaining()),
            )
        return p.EjectSessionResponse(session=mapping.session_message(view))

    async def GetUsage(  # noqa: N802, D102
        self, request: p.GetUsageRequest, context: _Context
    ) -> p.GetUsageResponse:
        found, next_token = await self._usage.page(
            tenant=request.tenant if request.HasField("tenant") else None,
            first_day=mapping.day_of(request.first_day, "first_day", default=date(1970, 1, 1)),
            last_day=mapping.day_of(request.last_day, "last_day", default=datetime.now(UTC).date()),
            token=request.page_token,
            size=mapping.page_size(request.page_size),
        )
        rows, count = fitting(found, _usage_row)
        if count < len(found):
            next_token = token_of(found[count - 1])
        return p.GetUsageResponse(rows=rows, next_page_token=next_token)

    async def GetPool(  # noqa: N802, D102
        self, request: p.GetPoolRequest, context: _Context
    ) -> p.GetPoolResponse:
        return pool_messages.pool_message(await self._pool.fresh(), owner=self._inventory.owner)

    async def PauseAccount(  # noqa: N802, D102
        self, request: p.PauseAccountRequest, context: _Context
    ) -> p.PauseAccountResponse:
        with audited("account.pause", account=self._known(request.account)):
            status = await self._pool.pause(request.account)
        return p.PauseAccountResponse(account=pool_messages.account_message(status))

    async def ResumeAccount(  # noqa: N802, D102
        self, request: p.ResumeAccountRequest, context: _Context
    ) -> p.ResumeAccountResponse:
        with audited("account.resume", account=self._known(request.account)):
            status, was_stopped = await self._pool.resume(request.account)
        return p.ResumeAccountResponse(account=pool_messages.account_message(status), was_stopped=was_stopped)

    async def DrainAccount(  # noqa: N802, D102
        self, request: p.DrainAccountRequest, context: _Context
    ) -> p.DrainAccountResponse:
        grace_s = None
        if request.HasField("grace"):
            grace_s = mapping.seconds_of(request.grace, "grace", least_s=0, most_s=_MAX_ACCOUNT_GRACE_S)
        with audited("account.drain", account=self._known(request.account), grace_s=grace_s):
            status = await self._pool.drain(request.account, grace_s)
        return p.DrainAccountResponse(account=pool_messages.account_message(status))

    async def SetAccountLimit(  # noqa: N802, D102
        self, request: p.SetAccountLimitRequest, context: _Context
    ) -> p.SetAccountLimitResponse:
        limit = request.limit if request.HasField("limit") else None
        if limit is not None and not 1 <= limit <= _MAX_LIMIT:
            raise InvalidField(f"limit must be 1 to {_MAX_LIMIT}, got {limit}", field="limit", value=limit)
        with audited("account.limit", account=self._known(request.account), limit=limit):
            status = await self._pool.set_limit(request.account, limit)
        return p.SetAccountLimitResponse(account=pool_messages.account_message(status))

    async def ReloadPool(  # noqa: N802, D102
        self, request: p.ReloadPoolRequest, context: _Context
    ) -> p.ReloadPoolResponse:
        with audited("pool.reload") as target:
            reload = await self._pool.reload()
            target["failed"] = ", ".join(reload.failed)
        return pool_messages.reload_message(reload)

    def _known(self, account: str) -> str:
        """Return the name of an account for the audit log; empty for a text that may be anything."""
        return account if self._pool.knows(account) else ""


def _usage_row(row: UsageRow) -> p.UsageRow:
    return p.UsageRow(
        day=date_of(row.day).isoformat(),
        tenant=row.tenant,
        label=row.label,
        session_count=row.session_count,
        billed_minutes=row.minutes,
        played=mapping.duration(row.played_s),
    )


def _owned(owned: OwnedSession) -> p.OwnedSession:
    left = None if owned.lease_left_s is None else mapping.duration(max(0.0, owned.lease_left_s))
    session = mapping.session_message(owned.session)
    return p.OwnedSession(session=session, owner=owned.owner, epoch=owned.epoch, lease_left=left)
