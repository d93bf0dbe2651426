"""Book and policy of warm sessions together, whatever fails: no limit, number or ceiling is exceeded."""

from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from liveavatar_gateway.pool.account_limits import AccountLimit
from liveavatar_gateway.pool.book import Book, PermitKind, PermitState, Waiter
from liveavatar_gateway.pool.fair_order import Shares, TenantShare
from liveavatar_gateway.pool.warm_policy import (
    WarmCredits,
    WarmMode,
    WarmPolicyConfig,
    WarmProfile,
    WarmSession,
    WarmSituation,
    WarmState,
    decide,
)

TENANTS: Final = ("acme", "bolt", "zoo")
OWNERS: Final = ("first", "second")
CONFIG: Final = WarmPolicyConfig(step_s=15.0, stop_s=60.0)
PERIODS: Final = 3
"""Looks at the credits between two decisions."""


@dataclass
class Warm:
    """Warm session, and the truth about it."""

    id: str
    owner: str
    started_at_s: float
    state: WarmState = WarmState.STARTING
    ready_at_s: float = 0.0
    retired_at_s: float = 0.0


class Pool(RuleBasedStateMachine):
    """Two processes, two accounts, three tenants and one profile, with failures at every step."""

    @initialize(
        limits=st.lists(st.integers(1, 4), min_size=2, max_size=2),
        weights=st.lists(st.floats(0.01, 100), min_size=3, max_size=3),
        floor=st.integers(0, 2),
        ceiling=st.none() | st.integers(1, 4),
        maximum=st.integers(0, 4),
        minimum=st.integers(0, 4),
        credits_per_hour=st.none() | st.floats(0, 80),
        mode=st.sampled_from(WarmMode),
    )
    def begin(self, limits, weights, floor, ceiling, maximum, minimum, credits_per_hour, mode):
        self.now_s = 1000.0
        self.next_id = 0
        self.book = Book()
        self.accounts = {f"a{n}": AccountLimit(name=f"a{n}", limit=limit) for n, limit in enumerate(limits)}
        self.shares = Shares(
            by_tenant={
                # A floor of all permits would shut out the others, as it says.
                name: TenantShare(
                    weight=weight, floor=min(floor, sum(limits) - 1) if name == "zoo" else 0, ceiling=ceiling
                )
                for name, weight in zip(TENANTS, weights, strict=True)
            }
        )
        self.profile = WarmProfile(
            name="desk", minimum=minimum, maximum=maximum, max_credits_per_hour=credits_per_hour, mode=mode
        )
        self.warm: dict[str, Warm] = {}
        self.credits = WarmCredits()
        self.demand_at_s: list[float] = []
        self.failed_starts = 0
        self.failed_at_s = 0.0

    # --- what happens in time

    def pass_time(self, seconds):
        for _ in range(PERIODS):
            self.now_s += seconds / PERIODS
            for session in list(self.warm.values()):
                # LiveAvatar ends a session that nobody keeps alive, whatever became of the stops.
                if session.state is WarmState.RETIRING and self.now_s >= session.retired_at_s + CONFIG.stop_s:
                    self.warm_ended(session)
            self.bounds_hold()
        self.book.tidy(self.now_s)
        self.grant()
        self.look_after_warm()

    @rule(steps=st.integers(1, 20))
    def time_passes(self, steps):
        for _ in range(steps):
            self.pass_time(CONFIG.step_s)

    @rule(seconds=st.floats(0.1, 15))
    def a_moment_passes(self, seconds):
        self.pass_time(min(seconds, CONFIG.step_s))

    # --- callers

    @rule(
        tenant=st.sampled_from(TENANTS),
        owner=st.sampled_from(OWNERS),
        accounts=st.sampled_from([("a0", "a1"), ("a1", "a0"), ("a0",), ("a1",), ()]),
        wait_s=st.floats(0.1, 300),
    )
    def caller_arrives(self, tenant, owner, accounts, wait_s):
        self.demand_at_s.append(self.now_s)
        self.enter(
            Waiter(id=self.new_id(), tenant=tenant, owner=owner, accounts=accounts, deadline_s=self.now_s + wait_s)
        )

    @rule(tenant=st.sampled_from(TENANTS))
    def caller_takes_a_warm_session(self, tenant):
        self.demand_at_s.append(self.now_s)
        ready = [one for one in self.warm.values() if one.state is WarmState.READY]
        if ready:
            session = ready[0]
            del self.warm[session.id]
            self.credits.take(session.id, self.now_s)
            self.book.transfer(session.id, self.shares, self.now_s, tenant=tenant, kind=PermitKind.CALLER)

    @precondition(lambda self: self.book.waiters)
    @rule(data=st.data())
    def caller_gives_up(self, data):
        self.book.leave(data.draw(st.sampled_from(sorted(self.book.waiters))))

    @rule(data=st.data(), settle_s=st.floats(0, 8))
    def session_ends(self, data, settle_s):
        self.with_caller(
            data,
            lambda row: self.book.release(row.id, self.shares, self.now_s, ran=True, settle_s=settle_s),
        )

    @rule(data=st.data())
    def start_fails(self, data):
        self.with_caller(data, lambda row: self.book.release(row.id, self.shares, self.now_s, ran=False))

    @rule(data=st.data(), settle_s=st.floats(0, 4), settles=st.booleans(), learn=st.booleans())
    def start_is_refused_as_the_account_is_full(self, data, settle_s, settles, learn):
        def refuse(row):
            self.book.refused(row.id, self.shares, self.now_s, settles=settles, settle_s=settle_s, learn=learn)

        self.with_caller(data, refuse)

    # --- accounts and processes

    @rule(account=st.sampled_from(["a0", "a1"]), count=st.integers(0, 5))
    def other_programs_use_the_account(self, account, count):
        state = self.book.account(account)
        self.book.accounts[account] = state.count_foreign(count, self.now_s)

    @rule(owner=st.sampled_from(OWNERS))
    def a_process_dies(self, owner):
        """End a process: its sessions run until another process has stopped them, warm sessions included."""
        self.book.suspect(owner)
        for session in self.warm.values():
            if session.owner == owner and session.state is not WarmState.RETIRING:
                session.state, session.retired_at_s = WarmState.RETIRING, self.now_s

    @rule(settle_s=st.floats(0, 4))
    def the_sessions_of_dead_processes_are_stopped(self, settle_s):
        for row in self.book.suspects:
            self.book.release(row.id, self.shares, self.now_s, ran=True, settle_s=settle_s)
            if row.id in self.warm:
                self.credits.end(row.id, self.now_s)
                del self.warm[row.id]

    # --- warm sessions

    @rule(data=st.data())
    def a_warm_session_is_ready(self, data):
        for session in self.some_warm(data, WarmState.STARTING):
            session.state, session.ready_at_s = WarmState.READY, self.now_s
            self.failed_starts = 0

    @rule(data=st.data(), refunded=st.booleans())
    def a_warm_start_fails(self, data, refunded):
        for session in self.some_warm(data, WarmState.STARTING):
            del self.warm[session.id]
            self.credits.end(session.id, self.now_s, refunded=refunded)
            self.book.release(session.id, self.shares, self.now_s, ran=not refunded, settle_s=1.0)
            self.failed_starts, self.failed_at_s = self.failed_starts + 1, self.now_s

    @rule(data=st.data())
    def a_stop_is_confirmed(self, data):
        for session in self.some_warm(data, WarmState.RETIRING):
            self.warm_ended(session)

    @rule(data=st.data())
    def liveavatar_ends_a_warm_session(self, data):
        for session in self.some_warm(data, WarmState.READY):
            self.warm_ended(session)

    # --- invariants

    @invariant()
    def bounds_hold(self):
        if not hasattr(self, "book"):
            return
        for account in self.accounts.values():
            assert self.book.used(account.name, self.now_s) <= account.limit
        assert len(self.warm) <= self.profile.maximum
        if self.profile.max_credits_per_hour is not None:
            assert self.credits.used(self.now_s) <= self.profile.max_credits_per_hour + 1e-6

    @invariant()
    def every_warm_session_has_its_permit(self):
        if hasattr(self, "book"):
            rows = self.book.permits
            assert all(name in rows and rows[name].state is not PermitState.SETTLING for name in self.warm)

    def teardown(self):
        """Everybody who still waits is served once sessions end, and in the end nothing is in use."""
        if not hasattr(self, "book"):
            return
        self.book.accounts.clear()
        for waiter in list(self.book.waiters.values()):
            self.book.leave(waiter.id)
            if waiter.accounts and waiter.kind is PermitKind.CALLER:
                self.enter(
                    Waiter(
                        id=waiter.id,
                        tenant=waiter.tenant,
                        owner=waiter.owner,
                        accounts=waiter.accounts,
                        deadline_s=self.now_s + 1e9,
                    )
                )
        for _ in range(len(self.book.waiters) + len(self.book.permits) + 1):
            for row in list(self.book.permits.values()):
                if row.state is not PermitState.SETTLING:
                    self.book.release(row.id, self.shares, self.now_s, ran=True)
            self.now_s += 10.0
            self.grant()
        assert not self.book.waiters
        assert all(self.book.used(name, self.now_s) == 0 for name in self.accounts)

    # --- parts

    def new_id(self):
        self.next_id += 1
        return str(self.next_id)

    def enter(self, waiter):
        self.book.enter(waiter, self.shares, self.now_s)
        self.grant()

    def grant(self):
        before = {name: self.book.used(name, self.now_s) for name in self.accounts}
        for grant in self.book.grant(self.accounts, self.shares, self.now_s):
            # A warm session that is taken may lift its tenant above the ceiling, a grant never does.
            ceiling = self.shares.of(grant.permit.tenant).ceiling
            assert ceiling is None or self.book.held_by(grant.permit.tenant) <= ceiling
            assert grant.waiter.deadline_s > self.now_s
            assert grant.permit.account in grant.waiter.accounts
        for account in self.accounts.values():
            used = self.book.used(account.name, self.now_s)
            assert used == before[account.name] or used <= self.book.limit(account, self.now_s)

    def with_caller(self, data, change):
        rows = [
            row.id
            for row in self.book.permits.values()
            if row.state is PermitState.HELD and row.kind is PermitKind.CALLER
        ]
        if rows:
            change(self.book.permits[data.draw(st.sampled_from(rows))])
            self.grant()

    def some_warm(self, data, state) -> list[Warm]:
        found = [one for one in self.warm.values() if one.state is state]
        return [data.draw(st.sampled_from(found))] if found else []

    def warm_ended(self, session):
        del self.warm[session.id]
        self.credits.end(session.id, self.now_s)
        self.book.release(session.id, self.shares, self.now_s, ran=True, settle_s=1.0)

    def look_after_warm(self):
        plan = decide(self.profile, self.situation(), CONFIG)
        for retirement in plan.retire:
            session = self.warm[retirement.session_id]
            session.state, session.retired_at_s = WarmState.RETIRING, self.now_s
        for _ in range(plan.start):
            waiter = Waiter(
                id=self.new_id(),
                owner=OWNERS[self.next_id % 2],
                accounts=tuple(self.accounts),
                deadline_s=self.now_s + 1e-3,
                kind=PermitKind.WARM,
                profile="desk",
            )
            self.enter(waiter)
            self.book.leave(waiter.id)
            if waiter.id in self.book.permits:
                self.warm[waiter.id] = Warm(id=waiter.id, owner=waiter.owner, started_at_s=self.now_s)
                self.credits.start(waiter.id, self.now_s)

    def situation(self):
        return WarmSituation(
            sessions=[
                WarmSession(
                    id=one.id,
                    state=one.state,
                    age_s=self.now_s - one.started_at_s,
                    idle_s=self.now_s - one.ready_at_s if one.state is WarmState.READY else 0.0,
                    retiring_s=self.now_s - one.retired_at_s if one.state is WarmState.RETIRING else 0.0,
                )
                for one in self.warm.values()
            ],
            arrival_ages_s=[self.now_s - at_s for at_s in self.demand_at_s],
            credits_used=self.credits.used(self.now_s),
            waiting=0,
            failed_starts=self.failed_starts,
            last_failure_age_s=self.now_s - self.failed_at_s,
        )


Pool.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestPool = pytest.mark.timeout(120)(Pool.TestCase)


@given(
    weight=st.floats(0.05, 20),
    others=st.lists(st.floats(0.05, 20), min_size=1, max_size=3),
    slots=st.integers(1, 4),
    durations_s=st.lists(st.floats(1, 120), min_size=1, max_size=20),
    ahead=st.integers(0, 30),
)
@settings(deadline=None)
def test_nobody_starves_however_many_others_come(weight, others, slots, durations_s, ahead):
    """A caller is served within its tenant's share of the slots, though the others never stop coming."""
    accounts = {"main": AccountLimit(name="main", limit=slots)}
    shares = Shares(
        by_tenant={"light": TenantShare(weight=weight)}
        | {f"t{n}": TenantShare(weight=one) for n, one in enumerate(others)}
    )
    book, now_s, count = Book(), 0.0, 0
    ends: list[tuple[float, str]] = []

    def keep_queues_full():
        nonlocal count
        for tenant in shares.by_tenant:
            while tenant != "light" and sum(one.tenant == tenant for one in book.waiters.values()) < slots:
                count += 1
                waiter = Waiter(
                    id=f"{tenant}-{count}", tenant=tenant, owner="p", accounts=("main",), deadline_s=1e12
                )
                book.enter(waiter, shares, now_s)

    def serve():
        for number, grant in enumerate(book.grant(accounts, shares, now_s)):
            duration_s = durations_s[(count + number) % len(durations_s)]
            ends.append((now_s + duration_s, grant.permit.id))

    keep_queues_full()
    for _ in range(ahead):
        ends.sort()
        serve()
        if ends:
            now_s, permit = ends.pop(0)
            book.release(permit, shares, now_s, ran=True)
        keep_queues_full()
    book.enter(Waiter(id="me", tenant="light", owner="p", accounts=("main",), deadline_s=1e12), shares, now_s)
    came_at_s = now_s
    longest_s = max(60.0, *durations_s)
    # Before it, each of the others may use what a permit of the light tenant is worth, and a session more.
    bound_s = sum(one / weight * longest_s + (slots + 2) * longest_s for one in others) / slots + 2 * longest_s
    while "me" in book.waiters:
        serve()
        ends.sort()
        assert ends
        now_s, permit = ends.pop(0)
        book.release(permit, shares, now_s, ran=True)
        keep_queues_full()
        assert now_s - came_at_s <= bound_s
