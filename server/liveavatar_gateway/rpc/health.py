"""Service of gRPC health: status of the process and of single services."""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as p
from grpc_health.v1 import health_pb2_grpc

_Context = grpc.aio.ServicerContext[Any, Any]


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Statuses, and streams that report their changes.

    A watcher that reads nothing delays nobody: gRPC's own servicer writes to each watcher under a lock, which a
    change of the status needs too, so that one watcher can keep a process from draining.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, p.HealthCheckResponse.ServingStatus] = {}
        self._changed = asyncio.Event()

    def set(self, service: str, status: p.HealthCheckResponse.ServingStatus) -> None:
        """Set the status of a service, and report it to its watchers."""
        self._statuses[service] = status
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(  # noqa: N802, D102 - named and described by gRPC
        self, request: p.HealthCheckRequest, context: _Context
    ) -> p.HealthCheckResponse:
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return p.HealthCheckResponse(status=status)

    async def List(  # noqa: N802, D102
        self, request: p.HealthListRequest, context: _Context
    ) -> p.HealthListResponse:
        del request, context
        known = self._statuses.items()
        return p.HealthListResponse(
            statuses={service: p.HealthCheckResponse(status=status) for service, status in known}
        )

    async def Watch(  # noqa: N802, D102
        self, request: p.HealthCheckRequest, context: _Context
    ) -> None:
        sent = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, p.HealthCheckResponse.SERVICE_UNKNOWN)
            if status != sent:
                sent = status
                await context.write(p.HealthCheckResponse(status=status))
            else:
                await changed.wait()
