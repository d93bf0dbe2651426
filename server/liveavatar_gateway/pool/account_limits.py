"""Limit of concurrent sessions of an account: configured, learned from refusals, and reduced by other programs."""

from dataclasses import dataclass, replace
from typing import Final

UNLEARN_S: Final = 60.0
"""Time after which a learned limit grows by one session, until it reaches the configured limit."""
FOREIGN_S: Final = 120.0
"""Time for which a count of other programs' sessions is believed without a newer count."""
FREED_WITHIN_S: Final = 15.0
"""Time after the end of a session during which a refusal is attributed to LiveAvatar not having freed it yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLimit:
    """Account as the settings of this process describe it."""

    name: str
    """Name of the account: the same for all processes on a registry, and of no other account."""
    limit: int
    """Configured number of concurrent sessions."""
    usable: bool = True
    """False while this process grants no permit of the account: retired, set aside, or its breaker is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountState:
    """Observations of an account, shared by all processes."""

    name: str
    learned: int | None = None
    """Limit of the gateway's own sessions that refusals show; None when none contradicts the configured limit."""
    learned_at_s: float = 0.0
    foreign: int = 0
    """Sessions of other programs."""
    foreign_at_s: float = 0.0
    paused: bool = False
    """True while an operator lets no process grant a permit of the account."""
    drain_until_s: float | None = None
    """Deadline of the sessions while an operator drains the account, or infinity; None without a drain."""
    limit: int | None = None
    """Limit that an operator set in place of the configured limit."""
    ended_at_s: float | None = None
    """Time of the last end of a session."""
    full_until_s: float = float("-inf")
    """Time until which a refusal is attributed to a session that LiveAvatar has not freed yet."""

    @property
    def draining(self) -> bool:
        """True while an operator drains the account."""
        return self.drain_until_s is not None

    def effective(self, configured: AccountLimit, now_s: float) -> int:
        """Return the number of permits that may be in use now."""
        if self.paused or self.draining or not configured.usable:
            return 0
        return self.allowed(configured.limit, now_s)

    def allowed(self, configured: int, now_s: float) -> int:
        """Return the number of permits that may be in use while the account grants some.

        Args:
            configured: Configured limit.
            now_s: Present time.
        """
        limit = configured if self.limit is None else self.limit
        learned = self.learned_below(limit, now_s)
        free = limit - self.foreign_count(now_s)
        # The learned limit counts none of the other programs' sessions.
        return max(0, free if learned is None else min(free, learned))

    def learned_below(self, limit: int, now_s: float) -> int | None:
        """Return the learned limit, which grows with time; None once it has reached `limit`, and without one."""
        if self.learned is None:
            return None
        learned = self.learned + int(max(0.0, now_s - self.learned_at_s) // UNLEARN_S)
        return learned if learned < limit else None

    def foreign_count(self, now_s: float) -> int:
        """Return the number of sessions of other programs, as far as it is believed."""
        return self.foreign if now_s < self.foreign_at_s + FOREIGN_S else 0

    def learn(self, running: int, now_s: float) -> "AccountState":
        """Learn from a refusal that no recent end explains.

        Args:
            running: Sessions of all processes, without the refused one. At least one session stays allowed, so
                that the account is tried again.
            now_s: Time of the refusal.
        """
        return replace(self, learned=max(1, running), learned_at_s=now_s)

    def pause(self) -> "AccountState":
        """Grant no permit until `resume`; callers wait, and sessions continue."""
        return replace(self, paused=True, drain_until_s=None)

    def drain(self, until_s: float) -> "AccountState":
        """Grant no permit until `resume`, and end the remaining sessions at a time, which may be infinite."""
        return replace(self, paused=False, drain_until_s=until_s)

    def resume(self) -> "AccountState":
        """Grant permits again, after `pause` or `drain`."""
        return replace(self, paused=False, drain_until_s=None)

    def use_limit(self, limit: int | None) -> "AccountState":
        """Use a limit in place of the configured one, None for the configured one; forget a learned limit."""
        return replace(self, limit=limit, learned=None)

    def count_foreign(self, count: int, now_s: float) -> "AccountState":
        """Record the number of sessions of other programs."""
        return replace(self, foreign=count, foreign_at_s=now_s)

    def note_end(self, now_s: float, *, was_full: bool) -> "AccountState":
        """Record the end of a session, which LiveAvatar frees a little later."""
        full_until_s = now_s + FREED_WITHIN_S if was_full else self.full_until_s
        return replace(self, ended_at_s=now_s, full_until_s=full_until_s)

    def explains_refusal(self, now_s: float) -> bool:
        """Return whether a session ended so recently that LiveAvatar may still count it."""
        return self.ended_at_s is not None and now_s < self.ended_at_s + FREED_WITHIN_S
