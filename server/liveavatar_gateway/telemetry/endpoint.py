"""The HTTP port for operators: `/metrics`, `/healthz`, `/readyz`, `/readyz/create`."""

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
    """uvicorn as a part of a process whose signals are somebody else's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _readiness(refusal: str) -> Response:
    if refusal:
        return Response(f"{refusal}\n", _SERVICE_UNAVAILABLE, media_type="text/plain")
    return Response("ready\n", media_type="text/plain")


class Endpoint:
    """Serves metrics in the gateway's own loop, so that it answers only while that does. A context manager."""

    def __init__(
        self,
        metrics: Metrics,
        snapshot: Callable[[], Snapshot],
        create_refusal: Callable[[], str],
        *,
        host: str,
        port: int,
    ) -> None:
        """Prepare it.

        Args:
            metrics: What is shown.
            snapshot: Asked at each look.
            create_refusal: Gives the reason why a create would be refused now; empty when it can succeed.
            host: Address to listen on.
            port: TCP port; 0 takes a free one.
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
            # As gRPC does it: all addresses are those of both kinds.
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
        """All metrics, in the form that the scraper asks for."""
        self._metrics.look(self._snapshot())
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # Some hundred lines of text: they are written beside the loop, not in it.
        body = await asyncio.to_thread(encode, self._metrics.registry)
        return Response(body, headers={"Content-Type": content_type})

    async def _health(self, _: Request) -> Response:
        """The event loop turns. It says nothing about LiveAvatar: a restart here would not mend that."""
        return Response("ok\n", media_type="text/plain")

    async def _readiness(self, _: Request) -> Response:
        """Streams and resumes are taken: 503 only while the process drains."""
        return _readiness("draining" if self._snapshot().draining else "")

    async def _create_readiness(self, _: Request) -> Response:
        """A create can succeed: 503 with the reason when it cannot."""
        return _readiness(self._create_refusal())
