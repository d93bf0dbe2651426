"""How long to wait between tries: twice as long each time, with jitter, up to a limit."""

import random


class Backoff:
    """Waits of one who tries again. Pure: no clock, and randomness is given."""

    def __init__(self, *, first_s: float, max_s: float, rng: random.Random) -> None:
        """Begin with the shortest wait.

        Args:
            first_s: The longest that the first wait may be.
            max_s: The longest that any may be.
            rng: Where jitter comes from: each wait is half to all of its limit, so that many do not come at once.
        """
        self._first_s = first_s
        self._max_s = max_s
        self._rng = rng
        self._limit_s = first_s

    def next_s(self) -> float:
        """The next wait, seconds."""
        limit_s = self._limit_s
        self._limit_s = min(limit_s * 2, self._max_s)
        return limit_s * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin again with the shortest wait."""
        self._limit_s = self._first_s
