"""Health of an account: why it can start no session at present, and until when. Pure.

Failures of the account itself are apart from those of a request: an avatar that does not exist says nothing about
the account.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Final

from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    GatewayError,
    UpstreamCreditsExhausted,
    UpstreamPlanRequired,
    UpstreamProtocol,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnauthenticated,
    UpstreamUnreachable,
)
from liveavatar_gateway.pool.breaker import Breaker, BreakerConfig, BreakerState

MIN_CREDITS: Final = 1.0
"""Least credits for a start: those of a minute. Source: LiveAvatar API reference, credits."""
_FAILURES: Final = (UpstreamUnreachable, UpstreamTimeout, UpstreamProtocol)
_MAX_RATE_WAIT_S: Final = 60.0
_MAX_BURST_S: Final = 1.0


@unique
class AccountState(StrEnum):
    """Decision of an operator about an account."""

    ACTIVE = "active"
    PAUSED = "paused"
    """It starts nothing for the time being."""
    RETIRED = "retired"
    """It starts nothing any more; its sessions end in peace."""


@unique
class Trouble(StrEnum):
    """Reason for which an account starts no session."""

    RETIRED = "retired"
    PAUSED = "paused"
    DRAINING = "draining"
    KEY_REFUSED = "key_refused"
    NO_CREDITS = "no_credits"
    BREAKER_OPEN = "breaker_open"
    RATE_LIMITED = "rate_limited"


PASSING: Final = (Trouble.RATE_LIMITED, Trouble.BREAKER_OPEN)
"""Troubles that end by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    """Limits of the calls to one account."""

    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    starts_per_s: float = 200.0
    """Starts in a second. Lower is kinder to LiveAvatar, higher opens more sessions at once."""
    credits_retry_s: float = 60.0
    """Time after a refusal for want of credits at which a start is tried, if the balance cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateBudget:
    """Calls that LiveAvatar still accepts in its present window."""

    limit: int
    remaining: int
    reset_s: float
    """Time until the next window."""


def may_differ_elsewhere(error: GatewayError) -> bool:
    """Return whether another account may serve a request with which one account failed.

    Accounts differ in their plans and in their avatars, too.
    """
    return isinstance(
        error,
        (
            *_FAILURES,
            CapacityExhausted,
            UpstreamCreditsExhausted,
            UpstreamPlanRequired,
            UpstreamRateLimited,
            UpstreamRejected,
            UpstreamUnauthenticated,
        ),
    )


class AccountHealth:
    """Health of one account, as the calls of this process show it."""

    def __init__(self, config: HealthConfig, state: AccountState = AccountState.ACTIVE) -> None:
        self._config = config
        self.breaker = Breaker(config.breaker)
        self.state = state
        self.credits: float | None = None
        """Balance as last read; None before, or if LiveAvatar names none."""
        self.budget: RateBudget | None = None
        """Rate limit as LiveAvatar last reported it; None before."""
        self.error: GatewayError | None = None
        """Last failure of the account; None after a start that succeeded."""
        self.draining = False
        """True while an operator drains the account, in whichever process."""
        self._refused_key = False
        self._no_credits_until_s = float("-inf")
        self._limited_until_s = float("-inf")
        self._budget_until_s = float("-inf")
        self._tokens = config.starts_per_s * _MAX_BURST_S
        self._filled_at_s = 0.0

    def trouble(self, now_s: float, *, sandbox: bool = False) -> Trouble | None:
        """Return why the account starts no session now; None if it may.

        Args:
            now_s: Present time.
            sandbox: The session costs no credits.
        """
        found = {
            Trouble.RETIRED: self.state is AccountState.RETIRED,
            Trouble.PAUSED: self.state is AccountState.PAUSED,
            Trouble.DRAINING: self.draining,
            Trouble.KEY_REFUSED: self._refused_key,
            Trouble.NO_CREDITS: not sandbox and self.is_out_of_credits(now_s),
            Trouble.BREAKER_OPEN: not self.breaker.may_start(now_s),
            Trouble.RATE_LIMITED: self._rate_wait_s(now_s) > 0,
        }
        return next((trouble for trouble, applies in found.items() if applies), None)

    def retry_in_s(self, now_s: float, *, sandbox: bool = False) -> float | None:
        """Return the time until the trouble may be over; None if only an operator can end it."""
        match self.trouble(now_s, sandbox=sandbox):
            case None:
                return 0.0
            case Trouble.BREAKER_OPEN:
                return self.breaker.retry_in_s(now_s)
            case Trouble.RATE_LIMITED:
                return self._rate_wait_s(now_s)
            case _:
                return None

    @property
    def has_bad_key(self) -> bool:
        """True if LiveAvatar refuses the key: it is not used until it changes."""
        return self._refused_key

    def is_out_of_credits(self, now_s: float) -> bool:
        """Return whether LiveAvatar refused a start for want of credits, and none were added since."""
        return now_s < self._no_credits_until_s

    def seems_poor(self) -> bool:
        """Return whether the balance is too low for a start; an account with overage starts regardless."""
        return self.credits is not None and self.credits < MIN_CREDITS

    # --- events

    def decide(self, state: AccountState) -> None:
        """Take note of an operator's decision."""
        self.state = state

    def note_drain(self, *, draining: bool) -> None:
        """Take note of whether an operator drains the account."""
        self.draining = draining

    def begin_start(self, now_s: float) -> None:
        """Take note of a start that begins now."""
        self.breaker.begin(now_s)
        self._fill(now_s)
        self._tokens -= 1.0
        if self.budget is not None and now_s < self._budget_until_s:
            left = max(0, self.budget.remaining - 1)
            self.budget = RateBudget(limit=self.budget.limit, remaining=left, reset_s=self.budget.reset_s)

    def abandon_start(self, now_s: float) -> None:
        """Take note of a start that proved nothing about the account."""
        self.breaker.abandon(now_s)

    def succeed(self) -> None:
        """Take note of a start that succeeded."""
        self.breaker.succeed()
        self.error = None
        self._no_credits_until_s = float("-inf")

    def fail(self, error: GatewayError, now_s: float) -> None:
        """Learn from a call for a start that failed."""
        match error:
            case UpstreamUnauthenticated():
                # One refusal may be a mistake of LiveAvatar's; reading the balance shows whether the key works.
                self.breaker.fail(now_s)
                self.error = error
                return
            case UpstreamCreditsExhausted():
                self._no_credits_until_s = now_s + self._config.credits_retry_s
                self.credits = 0.0
            case UpstreamRateLimited():
                wait_s = min(error.retry_after_s or 1.0, _MAX_RATE_WAIT_S)
                self._limited_until_s = max(self._limited_until_s, now_s + wait_s)
            case _ if isinstance(error, _FAILURES):
                self.breaker.fail(now_s)
                self.error = error
                return
            case CapacityExhausted() | UpstreamPlanRequired() | UpstreamRejected():
                # Permits learn from the first; the others concern the request.
                pass
            case _:
                self.breaker.abandon(now_s)
                return
        # LiveAvatar answered, so that it works.
        self.breaker.succeed()

    def note_budget(self, budget: RateBudget, now_s: float) -> None:
        """Take note of the rate limit that LiveAvatar reported with an answer."""
        self.budget = budget
        self._budget_until_s = now_s + min(max(0.0, budget.reset_s), _MAX_RATE_WAIT_S)

    def note_credits(self, credits_left: float | None, now_s: float) -> None:
        """Take note of the balance; None if LiveAvatar names none."""
        self.credits = credits_left
        if credits_left is None:
            return
        if credits_left >= MIN_CREDITS:
            self._no_credits_until_s = float("-inf")
        elif self.is_out_of_credits(now_s):
            self._no_credits_until_s = now_s + self._config.credits_retry_s

    def refuse_key(self, error: GatewayError) -> None:
        """Take note that LiveAvatar refuses the key."""
        self._refused_key = True
        self.error = error

    def renew_key(self) -> None:
        """Take note of a changed key, or of an operator's wish to try the key again."""
        self._refused_key = False
        self.error = None

    # --- rates

    def _rate_wait_s(self, now_s: float) -> float:
        waits = [self._limited_until_s - now_s, self._bucket_wait_s(now_s)]
        if self.budget is not None and self.budget.remaining <= 0:
            waits.append(self._budget_until_s - now_s)
        return max(0.0, *waits)

    def _bucket_wait_s(self, now_s: float) -> float:
        self._fill(now_s)
        return (1.0 - self._tokens) / self._config.starts_per_s

    def _fill(self, now_s: float) -> None:
        rate = self._config.starts_per_s
        self._tokens = min(max(1.0, rate * _MAX_BURST_S), self._tokens + (now_s - self._filled_at_s) * rate)
        self._filled_at_s = now_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Account that may serve a request."""

    name: str
    cost: float
    """Relative price of a minute."""
    free_share: float
    """Part of its permits that is free, as far as known."""
    is_poor: bool = False
    """True if its balance seems too low for a start."""
    is_doubtful: bool = False
    """True if its breaker is not closed."""


def order_of(candidates: Iterable[Candidate]) -> Sequence[str]:
    """Return the names of accounts in the order in which they are used: health, cost, then free capacity."""
    ranked = sorted(
        candidates, key=lambda one: (one.is_poor, one.is_doubtful, one.cost, -one.free_share, one.name)
    )
    return [one.name for one in ranked]


def is_doubtful(health: AccountHealth) -> bool:
    """Return whether an account has yet to prove that it works again."""
    return health.breaker.state is not BreakerState.CLOSED
