"""Enforcement of quotas: what each tenant uses now, and refusals above its limits.

Counts are those of this process. Nothing here waits: a limit on bytes returns the time that the reader must pause.
"""

import math
import time
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from liveavatar_gateway.auth.quotas import Quotas
from liveavatar_gateway.core.errors import QuotaExceeded

_BURST_S: Final = 2.0
"""Calls and bytes that may come at once, in seconds of their rate."""
_OPENS_BURST_S: Final = 60.0
"""The same for opens, whose quota is per minute."""
_SOON_S: Final = 1.0
"""Wait after which a refused caller may find a place, where no rate tells it."""

QuotasOf = Callable[[str], Quotas | None]
"""Returns the present quotas of a tenant; None for a tenant without limits."""


class Limited(Enum):
    """Kind of a call, by the quota that limits it."""

    UNARY = "unary_calls_per_s"
    LIST = "list_calls_per_s"
    STREAM = "max_streams"
    WATCH = "max_watches"


class _Bucket:
    """Token bucket: a rate, and a burst of some seconds of it, at least one token."""

    __slots__ = ("_at_s", "_burst_s", "_level")

    def __init__(self, now_s: float, burst_s: float = _BURST_S) -> None:
        self._burst_s = burst_s
        self._level: float | None = None
        self._at_s = now_s

    def wait_s(self, count: float, rate: float, now_s: float) -> float | None:
        """Return 0 after taking `count` tokens, or the time until they are there; None for a rate of 0."""
        if rate <= 0:
            return None
        most = max(rate * self._burst_s, 1.0)
        level = most if self._level is None else min(most, self._level + (now_s - self._at_s) * rate)
        self._level, self._at_s = level, now_s
        if level < count:
            return (count - level) / rate
        self._level = level - count
        return 0.0

    def debt_s(self, count: float, rate: float, now_s: float) -> float:
        """Take `count` tokens, also those that are not there yet; return the time until they are paid back."""
        most = max(rate * self._burst_s, 1.0)
        level = most if self._level is None else min(most, self._level + (now_s - self._at_s) * rate)
        self._level, self._at_s = level - count, now_s
        if self._level >= 0:
            return 0.0
        return -self._level / rate if rate > 0 else math.inf


class _Use:
    """Use of the gateway by one tenant."""

    def __init__(self, now_s: float) -> None:
        self.sessions = 0
        self.waiting = 0
        self.streams = {Limited.STREAM: 0, Limited.WATCH: 0}
        self.calls = {Limited.UNARY: _Bucket(now_s), Limited.LIST: _Bucket(now_s)}
        self.opens = _Bucket(now_s, _OPENS_BURST_S)
        self.audio = _Bucket(now_s)


class Slot:
    """Place of a session or stream in a quota, until it is released."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Free the place. Idempotent."""
        release, self._release = self._release, None
        if release is not None:
            release()


class Admission:
    """Place of a session in the quotas of its tenant: first as a waiting caller, perhaps, then as a session."""

    def __init__(self, session: Slot, count_waiting: Callable[[], Slot]) -> None:
        self._session = session
        self._count_waiting = count_waiting
        self._waiting: Slot | None = None

    def wait(self) -> None:
        """Take a place in the line, since no permit is free. Idempotent.

        Raises:
            QuotaExceeded: the tenant has too many waiting callers.
        """
        if self._waiting is None:
            self._waiting = self._count_waiting()

    def stop_waiting(self) -> None:
        """Free the place in the line, since the session has started or failed. Idempotent."""
        if self._waiting is not None:
            self._waiting.release()

    def release(self) -> None:
        """Free all places. Idempotent."""
        self.stop_waiting()
        self._session.release()


class Limiter:
    """Quotas of all tenants in this process. Changed quotas count from the next check on."""

    def __init__(
        self,
        quotas_of: QuotasOf,
        *,
        refused: Callable[[str, str], object] = lambda _tenant, _quota: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without use.

        Args:
            quotas_of: Returns the present quotas of a tenant.
            refused: Takes note of a refusal: tenant, and name of the quota.
            clock: Monotonic clock, seconds.
        """
        self._quotas_of = quotas_of
        self._refused = refused
        self._clock = clock
        self._uses: dict[str, _Use] = {}

    def quotas(self, tenant: str) -> Quotas | None:
        """Return the present quotas of a tenant; None for a tenant without limits."""
        return self._quotas_of(tenant)

    def _use(self, tenant: str) -> _Use:
        use = self._uses.get(tenant)
        if use is None:
            use = self._uses[tenant] = _Use(self._clock())
        return use

    def _refusal(self, tenant: str, quota: str, **values: Any) -> QuotaExceeded:
        self._refused(tenant, quota)
        return QuotaExceeded(tenant, quota, **values)

    # --- calls

    def admit_call(self, tenant: str, kind: Limited) -> Slot | None:
        """Count a call; return its place if it is a stream.

        Raises:
            QuotaExceeded: the tenant makes too many calls, or has too many streams.
        """
        quotas = self._quotas_of(tenant)
        if quotas is None:
            return None
        use = self._use(tenant)
        if kind in use.calls:
            rate = quotas.unary_calls_per_s if kind is Limited.UNARY else quotas.list_calls_per_s
            wait_s = use.calls[kind].wait_s(1, rate, self._clock())
            if wait_s != 0.0:
                raise self._refusal(tenant, kind.value, limit=rate, retry_after_s=wait_s)
            return None
        limit = quotas.max_streams if kind is Limited.STREAM else quotas.max_watches
        if use.streams[kind] >= limit:
            raise self._refusal(tenant, kind.value, limit=limit, used=use.streams[kind], retry_after_s=_SOON_S)
        use.streams[kind] += 1

        def release() -> None:
            use.streams[kind] -= 1

        return Slot(release)

    # --- sessions

    def admit_session(self, tenant: str, *, waits: bool) -> Admission:
        """Count a session that is about to be created; return its place.

        Args:
            tenant: The tenant.
            waits: True if the session has to wait for a permit.

        Raises:
            QuotaExceeded: the tenant has too many sessions or waiting callers, or opens too many.
        """
        quotas, use = self._quotas_of(tenant), self._use(tenant)
        if quotas is not None:
            if waits:
                self._require_line(tenant)
            if use.sessions >= quotas.max_sessions:
                raise self._refusal(
                    tenant, "max_sessions", limit=quotas.max_sessions, used=use.sessions, retry_after_s=_SOON_S
                )
            wait_s = use.opens.wait_s(1, quotas.opens_per_min / 60, self._clock())
            if wait_s != 0.0:
                raise self._refusal(tenant, "opens_per_min", limit=quotas.opens_per_min, retry_after_s=wait_s)
        admission = self.count_session(tenant)
        if waits:
            admission.wait()
        return admission

    def _require_line(self, tenant: str) -> None:
        quotas, used = self._quotas_of(tenant), self._use(tenant).waiting
        if quotas is not None and used >= quotas.max_waiting:
            raise self._refusal(tenant, "max_waiting", limit=quotas.max_waiting, used=used, retry_after_s=_SOON_S)

    def count_session(self, tenant: str) -> Admission:
        """Count a session that exists already, such as one of a dead process; return its place."""
        use = self._use(tenant)
        use.sessions += 1

        def release() -> None:
            use.sessions -= 1

        def stop_waiting() -> None:
            use.waiting -= 1

        def count_waiting() -> Slot:
            self._require_line(tenant)
            use.waiting += 1
            return Slot(stop_waiting)

        return Admission(Slot(release), count_waiting)

    def longest_wait_s(self, tenant: str, wait_s: float) -> float:
        """Return the time that a caller may wait for a permit: `wait_s`, or less if its quota is lower."""
        quotas = self._quotas_of(tenant)
        return wait_s if quotas is None else min(wait_s, quotas.max_wait_s)

    # --- audio

    def audio_pause_s(self, tenant: str, size_bytes: int) -> float:
        """Count bytes of audio; return the time for which no more may be read, usually 0.

        Infinite for a rate of 0: a reader asks again, with 0 bytes, since quotas change.
        """
        quotas = self._quotas_of(tenant)
        if quotas is None:
            return 0.0
        return self._use(tenant).audio.debt_s(size_bytes, quotas.audio_bytes_per_s, self._clock())
