"""Fixed one-second windows per caller and endpoint.

Source: LiveAvatar API reference, rate limits. The number per endpoint is not public; the default is ours.
"""

from dataclasses import dataclass
from math import ceil, floor


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a call may pass, and what its answer's X-RateLimit headers say."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """The headers of an answer; a rejection also says when to come back."""
        headers = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_s),
        }
        if not self.allowed:
            headers["Retry-After"] = str(self.reset_s)
        return headers


class RateLimiter:
    """Counts calls in the current second only, so it never holds more than one window of callers."""

    def __init__(self) -> None:
        self._window = 0
        self._used: dict[tuple[str, str], int] = {}

    def take(self, caller: str, endpoint: str, *, limit: int, now_s: float) -> Verdict:
        """Count one call. A rejected call is not counted, and path parameters are no part of `endpoint`."""
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
