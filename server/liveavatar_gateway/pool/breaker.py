"""Circuit breaker of an account: after failures in a row, a single trial per interval. Pure.

CLOSED     every start is allowed
OPEN       no start is allowed until the interval is over
HALF_OPEN  one start is on trial: its success closes the breaker, its failure opens it again
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final


@unique
class BreakerState(StrEnum):
    """State of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


TRANSITIONS: Final[Mapping[BreakerState, frozenset[BreakerState]]] = {
    BreakerState.CLOSED: frozenset({BreakerState.OPEN}),
    # A start that was under way when the breaker opened may still succeed.
    BreakerState.OPEN: frozenset({BreakerState.HALF_OPEN, BreakerState.CLOSED}),
    BreakerState.HALF_OPEN: frozenset({BreakerState.OPEN, BreakerState.CLOSED}),
}
"""States that may follow a state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """Sensitivity of a breaker."""

    failures: int = 3
    """Failures in a row that open it. Lower spares callers sooner, higher tolerates single failures."""
    interval_s: float = 5.0
    """Time until a trial. Lower notices a recovery sooner, higher calls a failing service less often."""


class Breaker:
    """Breaker of one account. Invariant: at most one trial at a time while it is not closed."""

    def __init__(self, config: BreakerConfig) -> None:
        self._config = config
        self._failures = 0
        self._until_s = float("-inf")
        self.state = BreakerState.CLOSED

    def may_start(self, now_s: float) -> bool:
        """Return whether a start is allowed; `begin` must follow before the next call is made."""
        # A trial whose result never arrives must not close the account for good.
        return self.state is BreakerState.CLOSED or now_s >= self._until_s

    def begin(self, now_s: float) -> None:
        """Take note of an allowed start; while the breaker is not closed, it is the trial."""
        if self.state is not BreakerState.CLOSED:
            self._until_s = now_s + self._config.interval_s
            self._change(BreakerState.HALF_OPEN)

    def abandon(self, now_s: float) -> None:
        """Take note of a start that proved nothing, such as one whose caller gave up."""
        if self.state is BreakerState.HALF_OPEN:
            self._until_s = now_s
            self._change(BreakerState.OPEN)

    def succeed(self) -> None:
        """Take note that the service answered as it should."""
        self._failures = 0
        self._change(BreakerState.CLOSED)

    def fail(self, now_s: float) -> None:
        """Take note of a failure of the service."""
        self._failures += 1
        # Starts that were under way when the breaker opened prove nothing new: they do not delay the trial.
        if self.state is BreakerState.HALF_OPEN or (
            self.state is BreakerState.CLOSED and self._failures >= self._config.failures
        ):
            self._until_s = now_s + self._config.interval_s
            self._change(BreakerState.OPEN)

    def retry_in_s(self, now_s: float) -> float:
        """Return the time until a start may be allowed; 0 if one is allowed now."""
        return 0.0 if self.state is BreakerState.CLOSED else max(0.0, self._until_s - now_s)

    def _change(self, state: BreakerState) -> None:
        if state is not self.state:
            assert state in TRANSITIONS[self.state]  # noqa: S101 - the table above is complete
            self.state = state
