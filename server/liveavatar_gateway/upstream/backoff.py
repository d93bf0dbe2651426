"""Exponential backoff with jitter."""

import random


class Backoff:
    """Waits between tries: each twice as long as the last, up to a limit. Pure: no clock, injected randomness."""

    def __init__(self, *, first_s: float, max_s: float, rng: random.Random) -> None:
        """Start with the shortest wait.

        Args:
            first_s: Upper bound of the first wait.
            max_s: Upper bound of all waits.
            rng: Source of jitter: each wait is between half of its bound and the bound, so that many clients do
                not retry at once.
        """
        self._first_s = first_s
        self._max_s = max_s
        self._rng = rng
        self._limit_s = first_s

    def next_s(self) -> float:
        """Return the next wait, seconds."""
        limit_s = self._limit_s
        self._limit_s = min(limit_s * 2, self._max_s)
        return limit_s * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Start again with the shortest wait."""
        self._limit_s = self._first_s
