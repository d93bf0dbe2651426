"""Stock of one profile: its warm sessions, and what the policy has to know of them."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Final

import structlog

from liveavatar_gateway.core.errors import BudgetExhausted, CapacityExhausted
from liveavatar_gateway.pool import warm_policy as policy
from liveavatar_gateway.sessions.warm_session import WarmServices, WarmSession, WarmStage
from liveavatar_gateway.telemetry.metrics import Metrics, WarmCounts
from liveavatar_gateway.upstream.profiles import Profile

_log = structlog.get_logger(__name__)

_MAX_ARRIVALS: Final = 10_000
"""Requests that are remembered for learnt mode; more in its window change nothing but the time to count them."""
_WINDOW_S: Final = policy.WarmPolicyConfig().window_s
_MAX_PAUSE_S: Final = 60.0

_STATES: Final = {
    WarmStage.STARTING: policy.WarmState.STARTING,
    WarmStage.CONNECTING: policy.WarmState.STARTING,
    WarmStage.READY: policy.WarmState.READY,
    WarmStage.ENDING: policy.WarmState.RETIRING,
}


class WarmStock:
    """Warm sessions of one profile: an owner of `WarmSession`. `decide` is called regularly, `take` by callers.

    The sessions that can be taken are in the order in which they became ready, so the oldest and the newest are
    found at once: if neither lives long enough, none between them is looked at.
    """

    def __init__(
        self,
        name: str,
        profile: Profile,
        services: WarmServices,
        metrics: Metrics,
        *,
        wake: Callable[[], object],
    ) -> None:
        """Begin empty.

        Args:
            name: Name of the profile.
            profile: Its bounds.
            services: Parts shared by all warm sessions.
            metrics: Counts sessions that are taken, missed and retired.
            wake: Called when another decision is due.
        """
        self.name = name
        self.profile = profile
        self._bounds = profile.policy(name)
        self._services = services
        self._metrics = metrics
        self._wake = wake
        self._all: dict[str, WarmSession] = {}
        self._ready: dict[str, WarmSession] = {}
        self._arrivals: deque[float] = deque(maxlen=_MAX_ARRIVALS)
        self._credits = policy.WarmCredits(self._bounds.credits_per_minute)
        self._failed_starts = 0
        self._failed_at_s = float("-inf")
        self._paused_until_s = float("-inf")
        metrics.warm_profile(name)
        self._bound: str = policy.WarmBound.NONE.value

    # --- what callers and operators see

    @property
    def ready_count(self) -> int:
        """Number of sessions that can be taken now."""
        return len(self._ready)

    @property
    def ready(self) -> Iterable[WarmSession]:
        """Sessions that can be taken now."""
        return tuple(self._ready.values())

    @property
    def starting_count(self) -> int:
        """Number of sessions that are not ready yet."""
        return sum(warm.stage in (WarmStage.STARTING, WarmStage.CONNECTING) for warm in self._all.values())

    @property
    def is_empty(self) -> bool:
        """True without any session, those that are being stopped included."""
        return not self._all

    def counts(self) -> WarmCounts:
        """Return the numbers for metrics."""
        return WarmCounts(
            starting=self.starting_count,
            ready=self.ready_count,
            credits_used=self._credits.used(time.monotonic()),
        )

    @property
    def freed_accounts(self) -> Sequence[str]:
        """Accounts of the sessions that are being stopped."""
        return [
            warm.account
            for warm in self._all.values()
            if warm.stage is WarmStage.ENDING and warm.account is not None
        ]

    def find(self, warm_id: str) -> WarmSession | None:
        """Return a session by its id."""
        return self._all.get(warm_id)

    def change(self, profile: Profile) -> None:
        """Keep sessions by other bounds from now on; the avatar is the same."""
        self.profile = profile
        self._bounds = profile.policy(self.name)

    def note_arrival(self, now_s: float) -> None:
        """Take note of a caller that the profile serves."""
        self._arrivals.append(now_s)

    def peek(self, *, tenant: str, least_s: float | None, now_s: float) -> WarmSession | None:
        """Return a session that a caller may take, without taking it; see `take`."""
        for candidates in (iter(self._ready.values()), reversed(self._ready.values())):
            warm = next((one for one in candidates if one.is_usable and one.may_serve(tenant)), None)
            if warm is None:
                return None
            left_s = warm.left_s(now_s)
            if left_s is None or left_s >= (self.profile.min_remaining_s if least_s is None else least_s):
                return warm
        return None

    def take(self, *, tenant: str, least_s: float | None, now_s: float) -> WarmSession | None:
        """Return a session for a caller, who calls `hand_over` next; None if none lives long enough.

        Args:
            tenant: Tenant of the caller.
            least_s: Rest of its life that the caller needs; None for what the profile demands.
            now_s: Monotonic time.
        """
        warm = self.peek(tenant=tenant, least_s=least_s, now_s=now_s)
        if warm is None:
            self._metrics.warm_missed(self.name)
            return None
        warm.claim()
        del self._ready[warm.id]
        self._credits.take(warm.id, now_s)
        self._metrics.warm_taken(self.name)
        self._wake()
        return warm

    # --- the policy

    def decide(self, *, now: datetime, spare_permits: int, freed: Collection[str] = (), halted: str = "") -> None:
        """Start and retire sessions as the policy says.

        Args:
            now: Time of the wall clock, for the hours of the profile.
            spare_permits: Permits that warm sessions may take.
            freed: Accounts of the sessions of other stocks that are being given up.
            halted: Reason for which none may run; empty while they may.
        """
        now_s = time.monotonic()
        if halted:
            self.end_all(halted)
            self._note_bound(halted, self._bounds.minimum)
            return
        self._end_elsewhere()
        permits, payer = self._services.pool.permits, self.profile.paying_tenant
        ready = {warm.account for warm in self._ready.values() if permits.grants(warm.account or "")}
        callers = [
            one for one in permits.callers_in_need(payer=payer, freed=freed) if not ready.isdisjoint(one.accounts)
        ]
        # Other processes keep sessions of the same profile.
        free = max(0, self._bounds.maximum - permits.book.warm_count(self.name))
        in_need = {account for one in callers for account in one.accounts}
        sessions = tuple(
            self._as_seen(warm, now_s, in_need) for warm in self._all.values() if warm.stage in _STATES
        )
        situation = policy.WarmSituation(
            sessions=sessions,
            time_of_day_s=self.profile.time_of_day_s(now),
            arrival_ages_s=self._arrival_ages_s(now_s),
            credits_used=self._credits.used(now_s),
            spare_permits=min(spare_permits, free) if now_s >= self._paused_until_s else 0,
            waiting=len(callers),
            is_contended=self._is_contended(),
            failed_starts=self._failed_starts,
            last_failure_age_s=now_s - self._failed_at_s,
        )
        plan = policy.decide(self._bounds, situation)
        for retirement in plan.retire:
            if (warm := self._all.get(retirement.session_id)) is not None:
                warm.give_up(retirement.reason.value)
        for _ in range(plan.start):
            self._start(now_s)
        if plan.bound is not policy.WarmBound.STARTING:
            self._note_bound(plan.bound.value, plan.wanted)

    def _arrival_ages_s(self, now_s: float) -> Sequence[float]:
        """Return the ages of the requests that decide; older ones are forgotten."""
        while self._arrivals and self._arrivals[0] <= now_s - _WINDOW_S:
            self._arrivals.popleft()
        is_learnt = self._bounds.mode is policy.WarmMode.LEARNT
        return [now_s - at_s for at_s in self._arrivals] if is_learnt else ()

    def _is_contended(self) -> bool:
        """Return whether a caller waits for a permit of the accounts on which sessions would start."""
        permits = self._services.pool.permits
        accounts = {account for account in self._accounts() if permits.grants(account)}
        callers = permits.callers_in_need(payer=self.profile.paying_tenant, freed=())
        return any(not accounts.isdisjoint(one.accounts) for one in callers)

    def _as_seen(self, warm: WarmSession, now_s: float, in_need: Collection[str]) -> policy.WarmSession:
        began_s = warm.created_s if warm.started_s is None else warm.started_s
        return policy.WarmSession(
            id=warm.id,
            state=_STATES[warm.stage],
            age_s=now_s - began_s,
            idle_s=0.0 if warm.ready_s is None else now_s - warm.ready_s,
            remaining_s=warm.left_s(now_s),
            in_need=warm.account in in_need,
            retiring_s=0.0 if warm.ending_s is None else now_s - warm.ending_s,
        )

    def _start(self, now_s: float) -> None:
        profile = self.profile
        warm = WarmSession(
            profile.request(),
            self._services,
            self,
            tenant=profile.paying_tenant,
            profile=self.name,
            accounts=self._accounts(),
            at_most=self._bounds.maximum,
        )
        self._all[warm.id] = warm
        self._credits.start(warm.id, now_s)
        warm.begin()

    def _accounts(self) -> Sequence[str]:
        """Return the accounts that everybody who may take a session may use."""
        return [
            account.id
            for account in self._services.pool.accounts
            if self.profile.may_run_on(account.name, tenants=account.spec.tenants, avatars=account.spec.avatars)
        ]

    def _end_elsewhere(self) -> None:
        """End the sessions on accounts that the profile may use no longer, since the file has changed."""
        accounts = self._accounts()
        for warm in tuple(self._all.values()):
            if warm.account is not None and warm.account not in accounts:
                warm.give_up("account")

    def _note_bound(self, by: str, wanted: int) -> None:
        """Log each change of the reason for which fewer sessions are warm than wanted."""
        if by != self._bound:
            self._bound = by
            if by != policy.WarmBound.NONE:
                _log.info("warm.bounded", profile=self.name, by=by, wanted=wanted)

    def end_all(self, reason: str) -> None:
        """Begin to end all sessions that nobody has taken."""
        for warm in tuple(self._all.values()):
            warm.give_up(reason)

    # --- owner of its sessions

    def on_ready(self, warm: WarmSession) -> None:
        """Offer a session to callers."""
        self._failed_starts = 0
        self._ready[warm.id] = warm
        if warm.started_s is not None:
            # Again for a session that a caller could not be given.
            self._credits.start(warm.id, warm.started_s)
        self._wake()

    def on_ending(self, warm: WarmSession, reason: str) -> None:
        """Withdraw a session, and learn from its failure."""
        was_ready = self._ready.pop(warm.id, None) is not None
        self._metrics.warm_retired(self.name, reason)
        error = warm.error
        if error is not None:
            now_s = time.monotonic()
            if isinstance(error, CapacityExhausted | BudgetExhausted):
                # No fault of anybody, and over at a known time.
                self._paused_until_s = now_s + min(max(error.retry_after_s or 0.0, 1.0), _MAX_PAUSE_S)
            elif not was_ready:
                self._failed_starts += 1
                self._failed_at_s = now_s
            _log.info("warm.failed", profile=self.name, reason=error.reason, was_ready=was_ready)
        self._wake()

    def on_ended(self, warm: WarmSession) -> None:
        """Forget a session."""
        if self._all.pop(warm.id, None) is not None:
            self._credits.end(warm.id, time.monotonic(), refunded=warm.was_refunded)
        self._wake()
