"""HTTP port for operators: `/metrics`, `/healthz`, `/readyz`, `/readyz/create`."""

import asyncio
import contextlib
import itertools
import math
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Self

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from liveavatar_gateway.addresses import family
from liveavatar_gateway.telemetry.metrics import Metrics, Snapshot

_CLOSE_WITHIN_S: Final = 1
_SERVICE_UNAVAILABLE: Final = 503
_MAX_CONNECTIONS: Final = 32
"""Most connections at once; their descriptors are a part of the reserve."""
_CONNECTION_LIFE_S: Final = 30.0
_PERIOD_S: Final = 0.02
"""Least time between two answers."""
_RENDER_PERIOD_S: Final = 0.25
"""Least time between two renderings of all metrics; scrapes that wait for the same one share it."""


_Answer = Callable[[Request], Awaitable[Response]]


class _Server(uvicorn.Server):
    """uvicorn server that leaves signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


_numbers = itertools.count()


class _Connection(H11Protocol):
    """Connection of bounded life, one of a bounded number; a scrape takes milliseconds.

    A connection too many displaces the oldest without a request in progress, so that silent ones keep no scraper
    out. uvicorn itself waits forever for the first request of a connection.
    """

    _deadline: asyncio.TimerHandle | None = None
    number = 0
    """Place in the order of all connections."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.number = next(_numbers)
        self._deadline = self.loop.call_later(_CONNECTION_LIFE_S, transport.abort)
        # Aborted connections leave the set a moment later.
        present = [
            connection
            for connection in self.connections
            if isinstance(connection, _Connection) and not connection.transport.is_closing()
        ]
        if len(present) > _MAX_CONNECTIONS:
            idle = [connection for connection in present if connection is not self and not connection.is_busy]
            min(idle, key=lambda connection: connection.number, default=self).transport.abort()

    @property
    def is_busy(self) -> bool:
        """True while a request is being answered."""
        # uvicorn has no cycle before the first request, although its type says so.
        return bool(self.cycle) and not self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)


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
        self.host = host
        """Listen address."""
        self._port = port
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._next_s = 0.0
        self._rendering = asyncio.Lock()
        self._rendered: dict[str, tuple[float, bytes]] = {}
        """Begin and text of the last rendering, by format."""
        self._server = _Server(
            uvicorn.Config(
                self._app(),
                http=_Connection,
                ws="none",
                lifespan="off",
                access_log=False,
                log_level="error",
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
            (self.host, self._port),
            family=family(self.host),
            backlog=128,
            # Like gRPC: `::` covers IPv4 and IPv6.
            dualstack_ipv6=self.host == "::" and socket.has_dualstack_ipv6(),
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
                Route("/metrics", self._in_turn(self._show)),
                Route("/healthz", self._in_turn(self._health)),
                Route("/readyz", self._in_turn(self._readiness)),
                Route("/readyz/create", self._in_turn(self._create_readiness)),
            ]
        )

    def _in_turn(self, answer: _Answer) -> _Answer:
        """Answer at a bounded rate: a flood of requests would take the event loop from all calls."""

        async def answered(request: Request) -> Response:
            async with self._turn:
                await asyncio.sleep(max(0.0, self._next_s - time.monotonic()))
                self._next_s = time.monotonic() + _PERIOD_S
            return await answer(request)

        return answered

    async def _show(self, request: Request) -> Response:
        """Return all metrics in the format that the scraper accepts."""
        came_s = time.monotonic()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        # In turn: threads that render at the same time would take the interpreter from the event loop.
        async with self._rendering:
            began_s, body = self._rendered.get(content_type, (-math.inf, b""))
            if began_s < came_s:
                await asyncio.sleep(max(0.0, began_s + _RENDER_PERIOD_S - came_s))
                began_s = time.monotonic()
                self._metrics.update(self._snapshot())
                # Several hundred lines of text are rendered outside the event loop.
                body = await asyncio.to_thread(encode, self._metrics.registry)
                self._rendered = {content_type: (began_s, body)}
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
