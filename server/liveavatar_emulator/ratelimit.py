"""Rate limits in fixed one-second windows per caller and endpoint.

Source: LiveAvatar API reference, rate limits. The limit per endpoint is not public; the default is the emulator's
own.
"""

from dataclasses import dataclass
from math import ceil, floor


@dataclass(frozen=True, slots=True)
class Verdict:
    """Decision about one call, with the values of its X-RateLimit headers."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """Return the headers of the response; a rejection also has `Retry-After`."""
        headers = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_s),
        }
        if not self.allowed:
            headers["Retry-After"] = str(self.reset_s)
        return headers


class RateLimiter:
    """Counter of the calls in the current second, so that memory is bounded by one window of callers."""

    def __init__(self) -> None:
        self._window = 0
        self._used: dict[tuple[str, str], int] = {}

    def take(self, caller: str, endpoint: str, *, limit: int, now_s: float) -> Verdict:
        """Count one call. A rejected call is not counted; `endpoint` has no path parameters."""
        window = floor(now_s)
        if window != self._window:
            self._window = window
            self._used.clear()
        used = self._used.get((caller, endpoint), 0)
        allowed = used < limit
        if allowed:
            used += 1
            self._used[caller, endpoint] = used
        reset_s = max(1, ceil(window + 1 - now_s))
        return Verdict(allowed=allowed, limit=limit, remaining=limit - used, reset_s=reset_s)
