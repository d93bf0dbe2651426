"""`AdminService`: what operators do, on a port of its own."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import grpc

from liveavatar.gateway.v1 import admin_service_pb2 as p
from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceServicer
from liveavatar_gateway import __version__
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.rpc import mapping as convert
from liveavatar_gateway.rpc.errors import answered
from liveavatar_gateway.rpc.lists import readable
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.drain import Drain
from liveavatar_gateway.sessions.inventory import Inventory, OwnedSession
from liveavatar_gateway.upstream.permits import Permits

_MAX_GRACE_S: Final = 3600.0
_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """What operators need not say."""

    drain_grace_s: float = 30.0
    """Until the deadline of a drain that names none."""


class AdminService(AdminServiceServicer):
    """Operates this process."""

    def __init__(
        self, config: AdminConfig, directory: Directory, drain: Drain, places: Permits, ownership: Inventory
    ) -> None:
        self._config = config
        self._directory = directory
        self._drain = drain
        self._places = places
        self._ownership = ownership
        self._started_at = datetime.now(UTC)

    async def Drain(  # noqa: N802, D102 - named and described in the contract
        self, request: p.DrainRequest, context: _Context
    ) -> p.DrainResponse:
        async with answered(context):
            deadline = await self._drain.begin(self._grace_s(request))
            return p.DrainResponse(
                deadline=convert.timestamp(deadline), session_count=len(self._directory.living())
            )
        raise AssertionError("unreachable: answered raises or the body returns")

    def _grace_s(self, request: p.DrainRequest) -> float:
        if not request.HasField("grace"):
            return self._config.drain_grace_s
        return convert.seconds_of(request.grace, "grace", least_s=0, most_s=_MAX_GRACE_S)

    async def Undrain(  # noqa: N802, D102
        self,
        request: p.UndrainRequest,  # noqa: ARG002 - it has no fields yet
        context: _Context,
    ) -> p.UndrainResponse:
        async with answered(context):
            return p.UndrainResponse(was_draining=await self._drain.take_back())
        raise AssertionError("unreachable: answered raises or the body returns")

    async def GetProcessStatus(  # noqa: N802, D102
        self,
        request: p.GetProcessStatusRequest,  # noqa: ARG002 - it has no fields yet
        context: _Context,
    ) -> p.GetProcessStatusResponse:
        async with answered(context):
            return p.GetProcessStatusResponse(
                owner=self._ownership.owner,
                version=__version__,
                started_at=convert.timestamp(self._started_at),
                drain_deadline=convert.timestamp(self._drain.deadline),
                permit_count=self._places.limit,
                used_permit_count=self._places.used,
                waiting_count=self._places.waiting,
                session_count=len(self._directory.living()),
                adopted_count=self._ownership.adopted_count,
                swept_count=self._ownership.swept_count,
            )
        raise AssertionError("unreachable: answered raises or the body returns")

    async def ListOwnedSessions(  # noqa: N802, D102
        self, request: p.ListOwnedSessionsRequest, context: _Context
    ) -> p.ListOwnedSessionsResponse:
        async with answered(context):
            size = convert.page_size(request.page_size)
            found, next_token = await self._ownership.page(request.page_token, size)
            return p.ListOwnedSessionsResponse(sessions=readable(found, _owned), next_page_token=next_token)
        raise AssertionError("unreachable: answered raises or the body returns")

    async def EjectSession(  # noqa: N802, D102
        self, request: p.EjectSessionRequest, context: _Context
    ) -> p.EjectSessionResponse:
        async with answered(context):
            session = await self._directory.end(
                convert.checked_id(request.session_id, "session_id", required=True),
                EndReason.OPERATOR,
                wait_s=convert.patience_s(context.time_remaining()),
            )
            return p.EjectSessionResponse(session=convert.session_message(session))
        raise AssertionError("unreachable: answered raises or the body returns")


def _owned(one: OwnedSession) -> p.OwnedSession:
    left = None if one.lease_left_s is None else convert.duration(max(0.0, one.lease_left_s))
    return p.OwnedSession(
        session=convert.session_message(one.session), owner=one.owner, epoch=one.epoch, lease_left=left
    )
