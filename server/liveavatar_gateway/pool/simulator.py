"""Simulator of the pool: discrete events over the real book and the real policy of warm sessions, without I/O."""

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Final

from liveavatar_gateway.pool.account_limits import AccountLimit
from liveavatar_gateway.pool.book import Book, PermitKind, Waiter
from liveavatar_gateway.pool.durations import Durations
from liveavatar_gateway.pool.fair_order import EQUAL_SHARES, Shares
from liveavatar_gateway.pool.simulation_result import (
    Refusal,
    SimulationResult,
    TenantResult,
    Timeline,
    WarmResult,
)
from liveavatar_gateway.pool.trace import Arrival
from liveavatar_gateway.pool.warm_policy import (
    MINUTE_S,
    WarmCredits,
    WarmMode,
    WarmPolicyConfig,
    WarmProfile,
    WarmSession,
    WarmSituation,
    WarmState,
    charges,
    decide,
)

_OWNER: Final = "simulator"
_BUCKETS: Final = 400
_TIDY_S: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedProfile:
    """Warm profile with everything that the policy does not need to know."""

    profile: WarmProfile
    tenants: frozenset[str] = frozenset()
    """Tenants that may take its sessions; empty for all."""
    accounts: tuple[str, ...] = ()
    """Accounts on which its sessions run, in order of preference; empty for all."""
    life_s: float | None = None
    """Duration limit of its sessions; None without a limit."""

    def serves(self, tenant: str) -> bool:
        """Return True if a tenant may take its sessions."""
        return not self.tenants or tenant in self.tenants


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationConfig:
    """Pool and LiveAvatar as they are simulated."""

    accounts: tuple[AccountLimit, ...]
    """In order of preference."""
    tenants_of: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Tenants that may use an account, by its name; accounts that are missing serve all."""
    shares: Shares = EQUAL_SHARES
    """Weights, floors and ceilings of the tenants."""
    profiles: tuple[SimulatedProfile, ...] = ()
    opening: Durations = field(default_factory=lambda: Durations(2.5, 4.7))
    """Time from a permit until the session is ready."""
    release: Durations = field(default_factory=lambda: Durations(1.0, 1.0))
    """Time from the end of a session until its permit is free."""
    max_waiting: int = 100
    """Size of the waiting queue."""
    wait_s: float = 30.0
    """Longest wait of a caller whose arrival names none."""
    credits_per_minute: float = 1.0
    """Price of a begun minute of a caller's session."""
    begins_at_s: float = 0.0
    """Time of day at which the trace begins, seconds since midnight."""
    policy: WarmPolicyConfig = field(default_factory=WarmPolicyConfig)
    seed: int = 1


@dataclass(slots=True, kw_only=True, eq=False)
class _Warm:
    """Warm session."""

    id: str
    group: "_Group"
    permit_id: str
    started_at_s: float
    ready_at_s: float
    state: WarmState = WarmState.STARTING
    retired_at_s: float = 0.0

    def remaining_s(self, now_s: float) -> float | None:
        life_s = self.group.simulated.life_s
        return None if life_s is None else self.started_at_s + life_s - now_s

    def seen(self, now_s: float) -> WarmSession:
        """Return the session as the policy sees it."""
        retiring = self.state is WarmState.RETIRING
        return WarmSession(
            id=self.id,
            state=self.state,
            age_s=now_s - self.started_at_s,
            idle_s=max(0.0, now_s - self.ready_at_s),
            remaining_s=self.remaining_s(now_s),
            retiring_s=now_s - self.retired_at_s if retiring else 0.0,
        )


@dataclass(slots=True, kw_only=True, eq=False)
class _Group:
    """Warm sessions of one profile, and the demand that they meet."""

    simulated: SimulatedProfile
    credits: WarmCredits
    sessions: dict[str, _Warm] = field(default_factory=dict)
    demand_at_s: deque[float] = field(default_factory=deque)
    started: int = 0
    taken: int = 0
    most: int = 0
    idle_s: float = 0.0
    charged: float = 0.0
    """Credits of all waiting, over the whole simulation."""

    @property
    def profile(self) -> WarmProfile:
        return self.simulated.profile

    def ready(self, now_s: float) -> _Warm | None:
        """Return the session that the next caller takes: the one that has waited longest."""
        for session in self.sessions.values():
            left_s = session.remaining_s(now_s)
            lives = left_s is None or left_s >= self.profile.min_remaining_s
            if session.state is WarmState.READY and lives:
                return session
        return None


class Simulator:
    """Run over one trace. A new run takes a new simulator."""

    def __init__(self, config: SimulationConfig, arrivals: Sequence[Arrival]) -> None:
        """Prepare a run.

        Args:
            config: Pool and LiveAvatar.
            arrivals: Trace in order of time; not empty.
        """
        self.book = Book()
        self.now_s = arrivals[0].at_s
        self._config = config
        self._arrivals = arrivals
        self._shares = config.shares
        self._accounts = {account.name: account for account in config.accounts}
        self._rng = random.Random(config.seed)  # noqa: S311 - repeatable, not secret
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._ids = count(1)
        self._waiting: dict[str, Arrival] = {}
        self._open = 0
        self._left = len(arrivals)
        self._groups = [
            _Group(simulated=one, credits=WarmCredits(one.profile.credits_per_minute)) for one in config.profiles
        ]
        longest_s = max(arrival.duration_s for arrival in arrivals) + config.wait_s
        self._timeline = Timeline(arrivals[0].at_s, (arrivals[-1].at_s - arrivals[0].at_s + longest_s) / _BUCKETS)
        self._tenants: dict[str, TenantResult] = {}
        self._counts: Counter[str] = Counter()
        self._tidied_at_s = self.now_s

    def run(self) -> SimulationResult:
        """Return what happens to the callers of the trace."""
        for arrival in self._arrivals:
            self._at(arrival.at_s, lambda arrival=arrival: self._arrive(arrival))  # type: ignore[misc]
        if self._groups:
            self._at(self.now_s, self._look_after_warm)
        while self._events and not self._is_over:
            at_s, _, event = heappop(self._events)
            self._timeline.advance(at_s, self._counts)
            self.now_s = at_s
            event()
            self._tidy()
        for group in self._groups:
            for session in list(group.sessions.values()):
                self._charge(group, session)
        return SimulationResult(
            tenants=self._tenants,
            warm={group.profile.name: self._warm_result(group) for group in self._groups},
            timeline=self._timeline.points(),
            seconds=self.now_s - self._arrivals[0].at_s,
            slots=sum(account.limit for account in self._config.accounts),
        )

    @property
    def _is_over(self) -> bool:
        return not self._left and not self._waiting and not self._open

    def _at(self, at_s: float, event: Callable[[], None]) -> None:
        heappush(self._events, (at_s, next(self._order), event))

    def _tidy(self) -> None:
        if self.now_s >= self._tidied_at_s + _TIDY_S:
            self._tidied_at_s = self.now_s
            self.book.tidy(self.now_s)

    # --- callers

    def _arrive(self, arrival: Arrival) -> None:
        self._left -= 1
        result = self._tenants.setdefault(arrival.tenant, TenantResult())
        result.arrivals += 1
        serving = [group for group in self._groups if group.simulated.serves(arrival.tenant)]
        for group in serving:
            group.demand_at_s.append(self.now_s)
        for group in serving:
            session = group.ready(self.now_s)
            if session is not None:
                self._take(session, arrival)
                return
        self._enter(arrival)

    def _enter(self, arrival: Arrival) -> None:
        wait_s = self._config.wait_s if arrival.max_wait_s is None else arrival.max_wait_s
        waiter = Waiter(
            id=str(next(self._ids)),
            tenant=arrival.tenant,
            owner=_OWNER,
            accounts=self._accounts_of(arrival.tenant),
            # The book grants nothing at the deadline itself; a caller that does not wait may be served at once.
            deadline_s=max(self.now_s + wait_s, self.now_s + 1e-6),
        )
        waiter = self.book.enter(waiter, self._shares, self.now_s)
        self._waiting[waiter.id] = arrival
        self._counts["waiting"] += 1
        self._grant()
        if waiter.id not in self._waiting:
            return
        if wait_s <= 0:
            self._refuse(waiter.id, Refusal.DEADLINE)
        elif self.book.overflows(waiter, self._shares, self._config.max_waiting):
            self._refuse(waiter.id, Refusal.QUEUE_FULL)
        else:
            self._at(waiter.deadline_s, lambda: self._refuse(waiter.id, Refusal.DEADLINE))

    def _accounts_of(self, tenant: str) -> tuple[str, ...]:
        tenants_of = self._config.tenants_of
        return tuple(name for name in self._accounts if name not in tenants_of or tenant in tenants_of[name])

    def _refuse(self, waiter_id: str, refusal: Refusal) -> None:
        arrival = self._leave(waiter_id)
        if arrival is not None:
            self._tenants[arrival.tenant].refused[refusal] += 1
            self.book.leave(waiter_id)

    def _leave(self, waiter_id: str) -> Arrival | None:
        arrival = self._waiting.pop(waiter_id, None)
        if arrival is not None:
            self._counts["waiting"] -= 1
        return arrival

    def _grant(self) -> None:
        for grant in self.book.grant(self._accounts, self._shares, self.now_s):
            arrival = self._leave(grant.waiter.id)
            # Permits of warm sessions are granted in `_start_warm`, which asks for them itself.
            if arrival is not None:
                opening_s = self._config.opening.sample_s(self._rng)
                self._serve(arrival, grant.permit.id, started_at_s=self.now_s, opening_s=opening_s)

    def _take(self, session: _Warm, arrival: Arrival) -> None:
        """Give a warm session to a caller: its permit changes hands."""
        group = session.group
        self.book.transfer(
            session.permit_id, self._shares, self.now_s, tenant=arrival.tenant, kind=PermitKind.CALLER
        )
        self._charge(group, session)
        group.taken += 1
        self._tenants[arrival.tenant].served_warm += 1
        self._serve(arrival, session.permit_id, started_at_s=session.started_at_s, opening_s=0.0)

    def _serve(self, arrival: Arrival, permit_id: str, *, started_at_s: float, opening_s: float) -> None:
        result = self._tenants[arrival.tenant]
        result.waits_s.append(self.now_s - arrival.at_s)
        result.openings_s.append(self.now_s - arrival.at_s + opening_s)
        granted_at_s = self.now_s
        self._open += 1
        self._counts["callers"] += 1

        def end() -> None:
            self._open -= 1
            self._counts["callers"] -= 1
            result.slot_s += self.now_s - granted_at_s
            begun = 1 + charges(0.0, self.now_s - started_at_s)
            waited = (granted_at_s - started_at_s) / MINUTE_S
            result.credits += (begun - waited) * self._config.credits_per_minute
            self._release(permit_id)

        self._at(self.now_s + opening_s + arrival.duration_s, end)

    def _release(self, permit_id: str) -> float:
        """End a session and return the time after which its permit is free."""
        settle_s = self._config.release.sample_s(self._rng)
        row = self.book.permits[permit_id]
        limit = self.book.limit(self._accounts[row.account], self.now_s)
        self.book.release(permit_id, self._shares, self.now_s, ran=True, settle_s=settle_s, limit=limit)
        self._counts["settling"] += 1
        self._at(self.now_s + settle_s, self._freed)
        return settle_s

    def _freed(self) -> None:
        self._counts["settling"] -= 1
        self._grant()

    # --- warm sessions

    def _look_after_warm(self) -> None:
        """Carry out the policy's decisions for each profile, and look again after a step."""
        for group in self._groups:
            self._decide(group)
        self._at(self.now_s + self._config.policy.step_s, self._look_after_warm)

    def _decide(self, group: _Group) -> None:
        oldest_s = self.now_s - self._config.policy.window_s
        while group.demand_at_s and group.demand_at_s[0] <= oldest_s:
            group.demand_at_s.popleft()
        is_learnt = group.profile.mode is WarmMode.LEARNT
        situation = WarmSituation(
            sessions=[session.seen(self.now_s) for session in group.sessions.values()],
            time_of_day_s=self._config.begins_at_s + self.now_s,
            arrival_ages_s=[self.now_s - at_s for at_s in group.demand_at_s] if is_learnt else (),
            credits_used=group.credits.used(self.now_s),
            # As in the gateway: callers in the queue get a permit, not a session that is warm meanwhile.
            waiting=len(self._waiting),
        )
        plan = decide(group.profile, situation, self._config.policy)
        for retirement in plan.retire:
            self._retire(group.sessions[retirement.session_id])
        for _ in range(plan.start):
            if not self._start_warm(group):
                break

    def _start_warm(self, group: _Group) -> bool:
        """Start a session if the book has a permit for it at once."""
        waiter_id = f"warm-{next(self._ids)}"
        waiter = Waiter(
            id=waiter_id,
            owner=_OWNER,
            accounts=group.simulated.accounts or tuple(self._accounts),
            deadline_s=self.now_s + 1e-6,
            kind=PermitKind.WARM,
            profile=group.profile.name,
        )
        self.book.enter(waiter, self._shares, self.now_s)
        self._grant()
        self.book.leave(waiter_id)
        if waiter_id not in self.book.permits:
            return False
        opening_s = self._config.opening.sample_s(self._rng)
        session = _Warm(
            id=waiter_id,
            group=group,
            permit_id=waiter_id,
            started_at_s=self.now_s,
            ready_at_s=self.now_s + opening_s,
        )
        group.sessions[session.id] = session
        group.credits.start(session.id, self.now_s)
        group.started += 1
        group.most = max(group.most, len(group.sessions))
        self._counts["warm"] += 1
        self._at(session.ready_at_s, lambda: self._become_ready(session))
        return True

    @staticmethod
    def _become_ready(session: _Warm) -> None:
        if session.state is WarmState.STARTING:
            session.state = WarmState.READY

    def _retire(self, session: _Warm) -> None:
        session.state = WarmState.RETIRING
        self._counts["warm"] -= 1
        session.retired_at_s = self.now_s

        settle_s = self._release(session.permit_id)
        self._at(self.now_s + settle_s, lambda: self._charge(session.group, session))

    def _charge(self, group: _Group, session: _Warm) -> None:
        """Remove a session from its profile, and charge the profile for its waiting."""
        del group.sessions[session.id]
        if session.state is not WarmState.RETIRING:
            self._counts["warm"] -= 1
        age_s = self.now_s - session.started_at_s
        group.idle_s += age_s
        if session.state is WarmState.READY:
            group.credits.take(session.id, self.now_s)
            group.charged += age_s / MINUTE_S * group.profile.credits_per_minute
        else:
            group.credits.end(session.id, self.now_s)
            group.charged += (1 + charges(0.0, age_s)) * group.profile.credits_per_minute

    @staticmethod
    def _warm_result(group: _Group) -> WarmResult:
        return WarmResult(
            started=group.started,
            taken=group.taken,
            most=group.most,
            idle_s=group.idle_s,
            credits=group.charged,
        )
