"""Limits on the calls that a process has at once, counted before their bodies are read."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, Final

import grpc

from liveavatar_gateway.auth.limiter import Limited
from liveavatar_gateway.auth.principal import is_exempt
from liveavatar_gateway.core.errors import TooManyCalls
from liveavatar_gateway.rpc.interceptors.handlers import Behaviour, Context, Continuation, Handler, wrapped
from liveavatar_gateway.rpc.interceptors.quotas import kind_of
from liveavatar_gateway.telemetry.metrics import Metrics

CALLS: Final = "calls"
WATCHES: Final = "watches"
HEALTH_CALLS: Final = "health_calls"
_SCOPES: Final = (CALLS, WATCHES, HEALTH_CALLS)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """Calls that a process has at once; a session uses two."""

    calls: int = 1800
    """All calls and streams, except those of the other two kinds."""
    watches: int = 128
    """Streams of `WatchSessions` and of reflection."""
    health_calls: int = 1000
    """Calls and streams of health, which need no credential."""


class CallLimitInterceptor(grpc.aio.ServerInterceptor):
    """Refusal of calls above the limits of the process. Belongs inside errors and outside authentication."""

    def __init__(self, limits: CallLimits, metrics: Metrics, silent_calls: "SilentCalls") -> None:
        """Prepare.

        Args:
            limits: Limits of each kind of calls.
            metrics: Counts refusals.
            silent_calls: Calls without a first message, which make room for new ones.
        """
        self._limits: Mapping[str, int] = {
            CALLS: limits.calls,
            WATCHES: limits.watches,
            HEALTH_CALLS: limits.health_calls,
        }
        self._metrics = metrics
        self._silent_calls = silent_calls
        self._counts = dict.fromkeys(self._limits, 0)

    async def intercept_service(  # noqa: D102 - grpc's
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(handler_call_details)
        scope = scope_of(handler_call_details.method.removeprefix("/"))
        return wrapped(handler, partial(self._limited, scope))

    def _limited(self, scope: str, behaviour: Behaviour) -> Behaviour:
        counts, limit = self._counts, self._limits[scope]

        async def call(requests: Any, context: Context) -> Any:
            if counts[scope] >= limit and not self._silent_calls.make_room(scope):
                self._metrics.call_refused(scope)
                raise TooManyCalls(scope, limit)
            counts[scope] += 1
            try:
                return await behaviour(requests, context)
            finally:
                counts[scope] -= 1

        return call


def scope_of(method: str) -> str:
    """Return the limit that a method, `service/method`, counts for."""
    if is_exempt(method):
        return HEALTH_CALLS
    return WATCHES if kind_of(method) is Limited.WATCH else CALLS


_LEAST_AGE_S: Final = 1.0
"""Time that every call has for its first message."""
_HURRIED_AGE_S: Final = 0.1
"""The same where there are too many calls."""
_PER_TURN: Final = 4
_TURN_S: Final = 0.005
"""Pace at which calls are given up: the end of each takes the event loop a part of a millisecond."""
_MANY_TIMES: Final = 4
"""Multiple of the limit above which calls are given up in a hurry: each may hold megabytes."""


class SilentCall:
    """Call whose first message has not come."""

    def __init__(self, task: "asyncio.Task[Any]", scope: str, since_s: float) -> None:
        self.task = task
        self.scope = scope
        self.since_s = since_s
        self.is_given_up = False
        """True after the call was cancelled for others."""


class SilentCalls:
    """Calls whose first messages have not come. Above the limit the oldest are given up.

    Each may hold a begin of a large message, so that there must be few. New calls are never refused for old ones:
    messages of honest callers come right behind the headers.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        # The calls of each scope, oldest first.
        self._calls: dict[str, dict[SilentCall, None]] = {scope: {} for scope in _SCOPES}
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, scope: str) -> SilentCall:
        """Count the call of the current task, until `discard`; cancel the oldest calls above the limit."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        call = SilentCall(task, scope, self._clock())
        self._calls[scope][call] = None
        self._count += 1
        if self._count > self._limit and self._timer is None:
            self._sweep()
        return call

    def discard(self, call: SilentCall) -> None:
        """Count a call no longer. Idempotent."""
        calls = self._calls[call.scope]
        if call in calls:
            del calls[call]
            self._count -= 1

    def make_room(self, scope: str) -> bool:
        """Give up the oldest call of a scope; return False if no call of it has been silent for a moment."""
        oldest = next(iter(self._calls[scope]), None)
        if oldest is None or self._clock() - oldest.since_s < _HURRIED_AGE_S:
            return False
        self._give_up(oldest)
        return True

    def _sweep(self) -> None:
        self._timer = None
        wait_s = _TURN_S
        hurries = self._count > _MANY_TIMES * self._limit
        least_age_s = _HURRIED_AGE_S if hurries else _LEAST_AGE_S
        for _ in range(2 * _PER_TURN if hurries else _PER_TURN):
            if self._count <= self._limit:
                return
            oldest = min((next(iter(calls)) for calls in self._calls.values() if calls), key=attrgetter("since_s"))
            age_s = self._clock() - oldest.since_s
            if age_s < least_age_s:
                wait_s = max(wait_s, min(least_age_s - age_s, _HURRIED_AGE_S))
                break
            self._give_up(oldest)
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._sweep)

    def _give_up(self, call: SilentCall) -> None:
        self.discard(call)
        call.is_given_up = True
        call.task.cancel()
