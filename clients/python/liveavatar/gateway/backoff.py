"""Delays between attempts. Pure: the caller supplies time and randomness."""

import random
from typing import Final

_MOST_DOUBLINGS: Final = 60
# Far above any longest delay; a float overflows at 1024 doublings, half an hour without a gateway.


class Backoff:
    """Exponential delays with jitter, reset by success."""

    def __init__(self, *, first_s: float = 0.1, longest_s: float = 2.0, rng: random.Random | None = None) -> None:
        """Set the range.

        Args:
            first_s: First delay. Lower resumes sooner; higher puts less load on a restarting gateway.
            longest_s: Delay at which doubling stops.
            rng: Source of jitter. Default: a generator of its own.
        """
        self._first_s = first_s
        self._longest_s = longest_s
        self._rng = rng or random.Random()  # noqa: S311  jitter is no secret
        self._attempt = 0

    @property
    def attempt(self) -> int:
        """Number of delays since the last success."""
        return self._attempt

    def reset(self) -> None:
        """Start over after a success."""
        self._attempt = 0

    def next_delay_s(self, retry_after_s: float | None = None) -> float:
        """Return the next delay: 50 to 100 % of the doubled delay, and at least `retry_after_s`."""
        ceiling_s = min(self._first_s * 2.0 ** min(self._attempt, _MOST_DOUBLINGS), self._longest_s)
        self._attempt += 1
        return max(self._rng.uniform(ceiling_s / 2, ceiling_s), retry_after_s or 0.0)
