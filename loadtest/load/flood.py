"""Calls of a tenant far above its quotas: each kind at a multiple of what the quota allows."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from liveavatar.gateway.channel import CallOptions, Connection, Stream, answer
from liveavatar.gateway.errors import GatewayError
from liveavatar.gateway.v1 import session_pb2, session_service_pb2
from load.figures import System
from load.keys import Metadata
from load.recorder import QUOTA_EXCEEDED, LoadRecorder

TIMES: Final = 10
"""Multiple of each quota at which a flood comes."""
HOLD_S: Final = 4.0
"""Time for which accepted streams and sessions are kept."""

_SYSTEM: Final[System] = "gateway"
_WITHIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Calls per second of each kind."""

    unary: float
    lists: float
    opens: float
    streams: float
    watches: float

    @classmethod
    def of(cls, quotas: Mapping[str, float]) -> "Rates":
        """Return the rates that are `TIMES` the quotas; those of streams would hold as many at once."""
        return cls(
            unary=TIMES * quotas["unary_calls_per_s"],
            lists=TIMES * quotas["list_calls_per_s"],
            opens=TIMES * quotas["opens_per_min"] / 60,
            streams=TIMES * quotas["max_streams"] / HOLD_S,
            watches=TIMES * quotas["max_watches"] / HOLD_S,
        )


class Flood:
    """Flood of one tenant over one connection. A call is accepted or refused by a quota; the rest are errors."""

    def __init__(
        self, connection: Connection, metadata: Metadata, recorder: LoadRecorder, rates: Rates, *, avatar_id: str
    ) -> None:
        """Prepare to flood.

        Args:
            connection: Connection to the gateway.
            metadata: Metadata of every call: the credential of the tenant.
            recorder: Counts accepted and refused calls.
            rates: Rates of the calls.
            avatar_id: Avatar of the sessions.
        """
        self._connection = connection
        self._metadata = metadata
        self._recorder = recorder
        self._rates = rates
        self._avatar_id = avatar_id

    async def run(self, for_s: float) -> None:
        """Make calls of all kinds for a time; then cancel those without an answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(for_s), asyncio.TaskGroup() as calls:
                for call, per_s in (
                    (self._unary, self._rates.unary),
                    (self._list, self._rates.lists),
                    (self._open, self._rates.opens),
                    (self._stream, self._rates.streams),
                    (self._watch, self._rates.watches),
                ):
                    calls.create_task(self._repeat(calls, call, 1 / per_s))

    async def _repeat(
        self, calls: asyncio.TaskGroup, call: Callable[[], Awaitable[None]], interval_s: float
    ) -> None:
        due_s = time.monotonic()
        while True:
            calls.create_task(self._counted(call))
            due_s += interval_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _counted(self, call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
        except GatewayError as error:
            reason = error.reason or error.code.name
            if reason == QUOTA_EXCEEDED:
                self._recorder.count(_SYSTEM, "quota refusals")
            else:
                self._recorder.failed(_SYSTEM, f"FLOOD: {reason}", took_s=0.0)

    def _accepted(self) -> None:
        self._recorder.count(_SYSTEM, "calls accepted")

    async def _unary(self) -> None:
        request = session_service_pb2.GetServerInfoRequest()
        await answer(self._connection.sessions.GetServerInfo(request, **self._options()))
        self._accepted()

    async def _list(self) -> None:
        request = session_service_pb2.ListSessionsRequest()
        await answer(self._connection.sessions.ListSessions(request, **self._options()))
        self._accepted()

    async def _open(self) -> None:
        # Without a stream the gateway ends the session after the grace; a call that ends it could be refused.
        spec = session_pb2.SessionSpec(avatar_id=self._avatar_id, detach_grace=Duration(seconds=round(HOLD_S)))
        request = session_service_pb2.CreateSessionRequest(spec=spec)
        await answer(self._connection.sessions.CreateSession(request, **self._options()))
        self._accepted()

    async def _stream(self) -> None:
        await self._hold(Stream(self._connection.sessions.Attach(metadata=self._metadata)))

    async def _watch(self) -> None:
        await self._hold(Stream(self._connection.sessions.WatchSessions(metadata=self._metadata)))

    async def _hold(self, stream: Stream[Any, Any]) -> None:
        """Keep a stream open without a message; a refusal would end it at once."""
        try:
            async with asyncio.timeout(HOLD_S):
                await stream.read()
        except TimeoutError:
            self._accepted()
        finally:
            stream.cancel()

    def _options(self) -> CallOptions:
        return {"timeout": _WITHIN_S, "metadata": self._metadata}
