"""HTTP port for operators: `/metrics`, `/healthz`, `/readyz`, `/readyz/create`."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Final, Self

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from liveavatar_gateway.addresses import family
from liveavatar_gateway.telemetry.metrics import Metrics, Snapshot

_CLOSE_WITHIN_S: Final = 1
_SERVICE_UNAVAILABLE: Final = 503


class _Server(uvicorn.Server):
    """uvicorn server that leaves signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _readiness(refusal: str) -> Response:
    if refusal:
        return Response(f"{refusal}\n", _SERVICE_UNAVAILABLE, media_type="text/plain")
    return Response("ready\n", media_type="text/plain")


class Endpoint:
    """HTTP server on the gateway's own event loop, which answers only while the loop runs. Context manager."""

    def __init__(
        self,
        metrics: Metrics,
        snapshot: Callable[[], Snapshot],
        create_refusal: Callable[[], str],
        *,
        host: str,
        port: int,
    ) -> None:
        """Prepare the server.

        Args:
            metrics: Metrics to serve.
            snapshot: Returns current values at each scrape.
            create_refusal: Returns the reason for which a create would be refused now; empty if it can succeed.
            host: Listen address.
            port: TCP port; 0 selects a free port.
        """
        self._metrics = metrics
        self._snapshot = snapshot
        self._create_refusal = create_refusal
        self._host = host
        self._port = port
        self._task: asyncio.Task[None] | None = None
        self._server = _Server(
            uvicorn.Config(
                self._app(),
                http="h11",
                ws="none",
                lifespan="off",
                access_log=False,
                log_level="warning",
                server_header=False,
                timeout_graceful_shutdown=_CLOSE_WITHIN_S,
            )
        )
        self.port = 0

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            OSError: the address cannot be bound.
        """
        listener = socket.create_server(
            (self._host, self._port),
            family=family(self._host),
            backlog=128,
            # Like gRPC: `::` covers IPv4 and IPv6.
            dualstack_ipv6=self._host == "::" and socket.has_dualstack_ipv6(),
        )
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="metrics")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._server.should_exit = True
            await self._task

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/metrics", self._show),
                Route("/healthz", self._health),
                Route("/readyz", self._readiness),
                Route("/readyz/create", self._create_readiness),
            ]
        )

    async def _show(self, request: Request) -> Response:
        """Return all metrics in the format that the scraper accepts."""
        self._metrics.update(self._snapshot())
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # Several hundred lines of text are rendered outside the event loop.
        body = await asyncio.to_thread(encode, self._metrics.registry)
        return Response(body, headers={"Content-Type": content_type})

    async def _health(self, _: Request) -> Response:
        """Answer while the event loop runs, whatever LiveAvatar's state, which a restart would not improve."""
        return Response("ok\n", media_type="text/plain")

    async def _readiness(self, _: Request) -> Response:
        """Return 503 only while the process drains; otherwise it accepts streams and resumes."""
        return _readiness("draining" if self._snapshot().draining else "")

    async def _create_readiness(self, _: Request) -> Response:
        """Return 503 with the reason if a create would be refused."""
        return _readiness(self._create_refusal())
