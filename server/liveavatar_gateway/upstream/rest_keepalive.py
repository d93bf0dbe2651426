"""Keep-alives by REST, for sessions whose command socket is down."""

import time
from typing import Final, Protocol

import structlog

from liveavatar_gateway.core.errors import GatewayError, UpstreamRateLimited
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.standstill import patient_timeout

_log = structlog.get_logger(__name__)

_DEADLINE_S: Final = 5.0
"""Longest duration of a call. LiveAvatar's limits are minutes, and the call is repeated soon."""
_MAX_AT_ONCE: Final = 8
"""Calls at once. All sockets may be down together, and LiveAvatar counts calls of a key per second."""
_MAX_PAUSE_S: Final = 60.0
"""Longest accepted `Retry-After`."""


class KeepAliveCall(Protocol):
    """Single try to keep a session alive."""

    async def keep_alive(self, session_id: str) -> None:
        """Restart LiveAvatar's idle timer of a session.

        Raises:
            GatewayError: LiveAvatar did not confirm it.
        """


class RestKeepAlives:
    """Keep-alives by REST on one account. Nothing queues: a call that would be one too many is left out."""

    def __init__(self, call: KeepAliveCall, metrics: Metrics) -> None:
        self._call = call
        self._metrics = metrics
        self._running = 0
        self._paused_until_s = 0.0

    async def send(self, session_id: str) -> bool:
        """Keep a session alive; return False if another try soon makes sense."""
        if self._running >= _MAX_AT_ONCE or time.monotonic() < self._paused_until_s:
            self._metrics.kept_alive("rest", "postponed")
            return False
        self._running += 1
        try:
            async with patient_timeout(_DEADLINE_S):
                await self._call.keep_alive(session_id)
        except TimeoutError:
            return self._failed(session_id, "UPSTREAM_TIMEOUT", is_final=False)
        except GatewayError as error:
            if isinstance(error, UpstreamRateLimited):
                pause_s = min(error.retry_after_s or 0.0, _MAX_PAUSE_S)
                self._paused_until_s = max(self._paused_until_s, time.monotonic() + pause_s)
            return self._failed(session_id, error.reason, is_final=error.retry_after_s is None)
        finally:
            self._running -= 1
        self._metrics.kept_alive("rest", "sent")
        return True

    def _failed(self, session_id: str, reason: str, *, is_final: bool) -> bool:
        self._metrics.kept_alive("rest", "failed")
        _log.warning("upstream.keep_alive_failed", upstream_session=session_id, reason=reason)
        return is_final
