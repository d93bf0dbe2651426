"""Allowance of something that others cause, and that is bounded in its rate."""


class Allowance:
    """Token bucket: it holds up to `burst`, and fills by `per_s` each second. Pure: time is an argument."""

    __slots__ = ("_at_s", "_burst", "_level", "_per_s")

    def __init__(self, *, burst: float, per_s: float) -> None:
        """Begin full.

        Args:
            burst: Most that can be taken at once.
            per_s: Amount that is added each second; above 0.
        """
        self._burst = burst
        self._per_s = per_s
        self._level = burst
        self._at_s: float | None = None

    def fill(self, now_s: float) -> None:
        """Add what belongs to the time since the last call of `fill` or `skip`."""
        if self._at_s is not None:
            self._level = min(self._burst, self._level + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = now_s

    def skip(self, now_s: float) -> None:
        """Add nothing for the time since the last call of `fill` or `skip`."""
        self._at_s = now_s

    def has(self, amount: float) -> bool:
        """Return True if an amount can be taken now."""
        return self._level >= amount

    def take(self, amount: float) -> None:
        """Take an amount, after `has` was True for it."""
        self._level -= amount

    def wait_s(self, amount: float) -> float:
        """Return the time until an amount can be taken, if nothing is taken meanwhile; 0 if it can be now."""
        return max(0.0, amount - self._level) / self._per_s
