"""Book of the pool: limits, fair order, floors and ceilings, dead processes. Time is an argument."""

import heapq
import random
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from liveavatar_gateway.pool.account_limits import FREED_WITHIN_S, AccountLimit
from liveavatar_gateway.pool.book import TRANSITIONS, Book, PermitKind, PermitRow, PermitState, Waiter
from liveavatar_gateway.pool.fair_order import EQUAL_SHARES, Shares, TenantShare

FOREVER_S = 1e9
WARM = {"kind": PermitKind.WARM, "profile": "desk", "at_most": 2}


def account(limit: int, name: str = "main", *, usable: bool = True) -> dict[str, AccountLimit]:
    return {name: AccountLimit(name=name, limit=limit, usable=usable)}


class Stage:
    """Book with the arguments of its calls."""

    def __init__(self, limit: int = 1, shares: Shares = EQUAL_SHARES, accounts=None) -> None:
        self.book = Book()
        self.accounts = accounts or account(limit)
        self.shares = shares
        self.now_s = 100.0
        self.count = 0

    def enter(self, tenant: str = "t", **changes) -> str:
        self.count += 1
        values = {
            "id": f"w{self.count}",
            "tenant": tenant,
            "owner": "here",
            "accounts": tuple(self.accounts),
            "deadline_s": FOREVER_S,
        }
        return self.book.enter(Waiter(**{**values, **changes}), self.shares, self.now_s).id

    def grant(self) -> list[str]:
        return [one.permit.id for one in self.book.grant(self.accounts, self.shares, self.now_s)]

    def hold(self, count: int, tenant: str = "t", **changes) -> list[str]:
        for _ in range(count):
            self.enter(tenant, **changes)
        return self.grant()

    def release(self, permit_id: str, *, ran: bool = True, settle_s: float = 0.0) -> None:
        self.book.release(permit_id, self.shares, self.now_s, ran=ran, settle_s=settle_s, limit=1)

    def used(self, name: str = "main") -> int:
        return self.book.used(name, self.now_s)

    def positions(self) -> dict[str, int]:
        found = self.book.positions(self.accounts, self.shares, self.now_s)
        return {name: place.position for name, place in found.items()}


# --- limits


def test_no_more_permits_are_granted_than_the_account_allows():
    stage = Stage(2)
    assert stage.hold(5) == ["w1", "w2"]
    assert (stage.used(), list(stage.book.waiters)) == (2, ["w3", "w4", "w5"])


def test_the_free_part_of_each_account_is_what_is_not_used_of_its_limit():
    stage = Stage(accounts={**account(4, "x"), **account(2, "y"), **account(0, "none")})
    stage.hold(1, accounts=("x",))
    stage.hold(2, accounts=("y",))
    assert stage.book.free_shares(stage.accounts, stage.now_s) == {"x": 0.75, "y": 0.0, "none": 0.0}


def test_inside_a_tenant_the_first_is_served_first():
    stage = Stage()
    stage.hold(4)
    served = []
    while stage.book.permits:
        (held,) = stage.book.permits
        served.append(held)
        stage.release(held, ran=False)
        stage.grant()
    assert served == ["w1", "w2", "w3", "w4"]


def test_a_caller_that_liveavatar_refused_keeps_its_place():
    stage = Stage()
    stage.hold(3)
    number = next(iter(stage.book.waiters.values())).number - 1
    stage.book.refused("w1", stage.shares, stage.now_s, settles=False, settle_s=0, learn=False)
    again = stage.enter(number=number)
    assert stage.grant() == [again]


@pytest.mark.parametrize("settle_s", [0.0, 2.0])
def test_a_permit_whose_session_ended_is_in_use_until_it_has_settled(settle_s):
    stage = Stage()
    (held,) = stage.hold(1)
    stage.enter()
    stage.now_s += 10
    stage.release(held, settle_s=settle_s)
    assert bool(stage.grant()) is (settle_s == 0)
    assert stage.book.next_change_s(stage.now_s) == (stage.now_s + settle_s if settle_s else None)
    stage.now_s += settle_s
    stage.grant()
    (granted,) = stage.book.permits.values()
    assert granted.ended_at_s == stage.now_s - settle_s, "LiveAvatar may not have freed that session yet"


def test_a_permit_without_a_session_is_free_at_once():
    stage = Stage()
    (held,) = stage.hold(1)
    stage.release(held, ran=False, settle_s=5.0)
    assert (stage.used(), stage.book.permits) == (0, {})


def test_a_release_is_counted_once():
    stage = Stage(2)
    held, _ = stage.hold(2)
    for _ in range(3):
        stage.release(held, settle_s=1.0)
    settled = stage.book.tenants["t"].settled
    stage.release(held, ran=False)
    assert (stage.used(), stage.book.tenants["t"].settled) == (2, settled)


def test_a_waiter_whose_deadline_has_passed_is_never_granted_a_permit():
    stage = Stage()
    stage.enter(deadline_s=stage.now_s)
    later = stage.enter(deadline_s=stage.now_s + 1)
    assert stage.grant() == [later]


def test_a_waiter_gets_the_account_it_prefers_among_those_it_may_use():
    stage = Stage(accounts={**account(1, "cheap"), **account(1, "dear"), **account(1, "closed", usable=False)})
    first = stage.enter(accounts=("closed", "cheap", "dear"))
    second = stage.enter(accounts=("cheap", "dear"))
    third = stage.enter(accounts=("cheap",))
    stage.enter(accounts=())
    stage.grant()
    assert {row.id: row.account for row in stage.book.permits.values()} == {first: "cheap", second: "dear"}
    assert third in stage.book.waiters


def test_one_that_can_use_nothing_free_holds_nobody_up():
    stage = Stage(accounts={**account(1, "a"), **account(1, "b")})
    stage.hold(1, accounts=("a",))
    stage.enter(accounts=("a",))
    second = stage.enter(accounts=("b",))
    assert stage.grant() == [second]


def test_nothing_is_granted_while_permits_may_be_missing():
    stage = Stage()
    stage.enter()
    stage.book.block(stage.now_s + 10)
    assert (stage.grant(), stage.book.next_change_s(stage.now_s)) == ([], stage.now_s + 10)
    stage.now_s += 10
    assert len(stage.grant()) == 1


def test_the_queue_is_bounded_in_total_and_for_each_tenant():
    shares = Shares(by_tenant={"few": TenantShare(max_waiting=1)})
    stage = Stage(1, shares)
    stage.hold(1)
    seen = []
    for tenant in ("few", "few", "many", "many"):
        waiter = stage.book.waiters[stage.enter(tenant)]
        seen.append(stage.book.overflows(waiter, shares, 3))
        if seen[-1]:
            stage.book.leave(waiter.id)
    assert seen == [False, True, False, False]
    assert stage.book.overflows(stage.book.waiters[stage.enter("many")], shares, 3)


# --- refusals


def test_a_refusal_that_an_end_explains_settles_and_one_that_none_explains_teaches_the_limit():
    stage = Stage(3)
    first, second, third = stage.hold(3)
    stage.book.refused(first, stage.shares, stage.now_s, settles=True, settle_s=2.0, learn=False)
    assert (stage.used(), stage.book.limit(stage.accounts["main"], stage.now_s)) == (3, 3)
    assert stage.book.permits[first].refusal_count == 1
    stage.book.refused(third, stage.shares, stage.now_s, settles=False, settle_s=0, learn=True)
    assert stage.book.limit(stage.accounts["main"], stage.now_s) == 2
    assert second in stage.book.permits
    assert third not in stage.book.permits


def test_the_next_session_in_a_refused_permit_knows_of_its_refusals_until_it_is_accepted():
    stage = Stage()
    (held,) = stage.hold(1)
    for refusals in (1, 2):
        stage.book.refused(held, stage.shares, stage.now_s, settles=True, settle_s=1.0, learn=False)
        stage.now_s += 1
        (held,) = stage.hold(1)
        assert stage.book.permits[held].refusal_count == refusals
    stage.book.accepted(held)
    assert (stage.book.permits[held].refusal_count, stage.book.permits[held].ended_at_s) == (0, None)


# --- floors, ceilings, warm sessions


def test_a_free_permit_that_a_tenant_below_its_floor_may_claim_is_kept_for_it():
    shares = Shares(by_tenant={"acme": TenantShare(floor=2)})
    stage = Stage(3, shares)
    assert len(stage.hold(5, "other")) == 1
    assert len(stage.hold(1, "acme")) == 1
    assert stage.grant() == [], "one more is kept"
    assert len(stage.hold(2, "acme")) == 1, "beyond its floor, acme waits like others"


def test_a_tenant_below_its_floor_is_served_before_all_others():
    shares = Shares(by_tenant={"acme": TenantShare(floor=1, weight=0.001), "big": TenantShare(weight=100)})
    stage = Stage(1, shares)
    stage.accounts = account(0)
    stage.hold(3, "big")
    last = stage.enter("acme")
    stage.accounts = account(1)
    assert stage.grant() == [last]


def test_a_floor_is_kept_on_the_accounts_that_its_tenant_may_use():
    shares = Shares(by_tenant={"acme": TenantShare(floor=1, accounts=("a",))})
    stage = Stage(shares=shares, accounts={**account(1, "a"), **account(1, "b")})
    stage.hold(2, "other", accounts=("a", "b"))
    assert [row.account for row in stage.book.permits.values()] == ["b"]


def test_floors_of_several_tenants_are_kept_together():
    floors = {"x": TenantShare(floor=1, accounts=("a", "b")), "y": TenantShare(floor=1, accounts=("a",))}
    stage = Stage(shares=Shares(by_tenant=floors), accounts={**account(1, "a"), **account(1, "b")})
    assert stage.hold(2, "other") == []
    stage.accounts["b"] = AccountLimit(name="b", limit=2)
    stage.grant()
    assert [row.account for row in stage.book.permits.values()] == ["b"]


def test_a_tenant_gets_no_more_than_its_ceiling_over_all_accounts():
    shares = Shares(by_tenant={"acme": TenantShare(ceiling=2)})
    stage = Stage(shares=shares, accounts={**account(3, "a"), **account(3, "b")})
    assert len(stage.hold(6, "acme")) == 2
    assert len(stage.hold(6, "other")) == 4


def test_warm_sessions_are_granted_a_permit_when_nobody_else_waits():
    stage = Stage(2)
    stage.accounts = account(0)
    warm = stage.enter(kind=PermitKind.WARM)
    callers = [stage.enter("other"), stage.enter("other")]
    stage.accounts = account(2)
    assert stage.grant() == callers
    stage.accounts = account(3)
    assert stage.grant() == [warm]


def test_a_permit_that_changes_its_tenant_is_paid_by_each_for_its_time():
    stage = Stage()
    (held,) = stage.hold(1, "warmer", kind=PermitKind.WARM)
    stage.now_s += 30
    assert stage.book.transfer(
        held, stage.shares, stage.now_s, tenant="caller", kind=PermitKind.CALLER, session_id="s"
    )
    stage.now_s += 10
    stage.release(held)
    assert (stage.book.tenants["warmer"].settled, stage.book.tenants["caller"].settled) == (30.0, 10.0)
    assert not stage.book.transfer(held, stage.shares, stage.now_s, tenant="x")


# --- fair order


class Churn(Stage):
    """Callers that come again and again."""

    def __init__(self, durations: dict[str, tuple[float, float]], weights: dict[str, float]) -> None:
        shares = Shares(by_tenant={name: TenantShare(weight=weight) for name, weight in weights.items()})
        super().__init__(shares=shares, accounts={**account(12, "a"), **account(12, "b")})
        self.now_s = 0.0
        self.used_s = dict.fromkeys(weights, 0.0)
        self._durations = durations
        self._rng = random.Random(1)
        self._events: list[tuple[float, int, str, str]] = []

    def at(self, time_s: float, kind: str, name: str) -> None:
        heapq.heappush(self._events, (time_s, len(self._events) + self.count, kind, name))

    def step(self) -> None:
        self.now_s, _, kind, name = heapq.heappop(self._events)
        if kind == "enter":
            self.enter(name)
        elif kind == "end":
            row = self.book.permits[name]
            self.used_s[row.tenant] += self.now_s - row.since_s
            self.release(name, settle_s=1.0)
            self.at(self.now_s + 1.0, "settled", "")
            self.at(self.now_s + self._rng.uniform(0, 1), "enter", row.tenant)
        self.book.tidy(self.now_s)
        for granted in self.grant():
            least_s, most_s = self._durations[self.book.permits[granted].tenant]
            self.at(self.now_s + self._rng.uniform(least_s, most_s), "end", granted)
        assert max(self.used("a"), self.used("b")) <= 12

    def shares_after(self, seconds: float) -> dict[str, float]:
        for name in self.used_s:
            for _ in range(60):
                self.at(self._rng.uniform(0, 2), "enter", name)
        while self.now_s < seconds:
            self.step()
        for row in self.book.permits.values():
            if row.state is PermitState.HELD:
                self.used_s[row.tenant] += self.now_s - row.since_s
        total_s = sum(self.used_s.values())
        return {name: used_s / total_s for name, used_s in self.used_s.items()}


@pytest.mark.parametrize(
    "durations",
    [
        {"a": (5, 5), "b": (5, 5)},
        {"a": (2, 18), "b": (2, 18)},
        {"a": (30, 90), "b": (30, 90)},
        {"a": (20, 20), "b": (3, 3)},
        {"a": (3, 3), "b": (20, 20)},
    ],
)
def test_slot_seconds_follow_the_weights_however_long_sessions_last(durations):
    assert Churn(durations, {"a": 1.0, "b": 3.0}).shares_after(300.0)["a"] == pytest.approx(0.25, abs=0.02)


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.floats(0.001, 1000), min_size=2, max_size=6),
    durations=st.lists(st.floats(0, 100), min_size=6, max_size=6),
    limit=st.integers(1, 3),
)
def test_nobody_starves_for_any_weights_and_durations(weights, durations, limit):
    tenants = {f"t{number}": weight for number, weight in enumerate(weights)}
    stage = Stage(limit, Shares(by_tenant={name: TenantShare(weight=weight) for name, weight in tenants.items()}))
    # All others come again forever; the last tenant comes once.
    *greedy, patient = tenants
    for name in greedy:
        for _ in range(limit + 1):
            stage.enter(name)
    stage.grant()
    last = stage.enter(patient)
    longest_s = 1 + max(durations)
    bound_s = 2 * longest_s * (1 + sum(weights)) / weights[-1] / limit + 61 * len(tenants) * (
        1 + max(weights) / weights[-1]
    )
    began_s, ends = stage.now_s, {}
    while last in stage.book.waiters and stage.now_s < began_s + min(bound_s, 30_000):
        for name in stage.book.permits:
            row = stage.book.permits[name]
            ends.setdefault(name, row.since_s + durations[int(row.tenant[1:])] + 0.5)
        ended = min(stage.book.permits, key=ends.__getitem__)
        stage.now_s = max(stage.now_s, ends.pop(ended))
        tenant = stage.book.permits[ended].tenant
        stage.release(ended)
        stage.book.tidy(stage.now_s)
        stage.enter(tenant)
        stage.grant()
    assert last not in stage.book.waiters or stage.now_s >= began_s + 30_000


def test_a_tenant_that_comes_late_catches_up_at_once_and_gets_no_more_than_its_share():
    stage = Stage(10)
    stage.hold(30, "early")
    stage.now_s += 10
    for _ in range(30):
        stage.enter("late")
    for _ in range(5):
        stage.release(next(name for name, row in stage.book.permits.items() if row.tenant == "early"), ran=False)
        (granted,) = stage.grant()
        assert stage.book.permits[granted].tenant == "late"
    assert [stage.book.held_by(tenant) for tenant in ("early", "late")] == [5, 5]


def test_a_tenant_saves_up_no_turns_while_it_is_away():
    stage = Stage(4)
    stage.hold(40, "always")
    for _ in range(20):
        stage.now_s += 60
        stage.release(next(iter(stage.book.permits)))
        stage.book.tidy(stage.now_s + FREED_WITHIN_S)
        stage.grant()
    for _ in range(20):
        stage.enter("late")
    for _ in range(4):
        stage.now_s += 60
        stage.release(next(iter(stage.book.permits)))
        stage.book.tidy(stage.now_s + FREED_WITHIN_S)
        stage.grant()
    assert stage.book.held_by("always") >= 1


def test_use_while_nobody_waits_is_held_against_nobody():
    stage = Stage(3)
    for _ in range(50):
        (held,) = stage.hold(1, "busy")
        stage.now_s += 600
        stage.release(held)
        stage.book.tidy(stage.now_s + FREED_WITHIN_S)
    stage.hold(3, "new")
    mine, theirs = stage.enter("busy"), stage.enter("new")
    stage.release(next(iter(stage.book.permits)), ran=False)
    assert stage.grant() == [mine]
    assert theirs in stage.book.waiters


# --- forecast


def test_positions_are_the_order_in_which_permits_are_granted_and_waits_grow_with_them():
    shares = Shares(by_tenant={"big": TenantShare(weight=3.0)})
    stage = Stage(2, shares)
    stage.hold(2, "small")
    for tenant in ("small", "small", "big", "big", "big", "big"):
        stage.enter(tenant)
    positions = stage.positions()
    assert sorted(positions.values()) == [1, 2, 3, 4, 5, 6]
    served = []
    while stage.book.waiters:
        stage.release(next(iter(stage.book.permits)), ran=False)
        served += stage.grant()
    assert served[0] == min(positions, key=positions.__getitem__)
    assert [name for name in served if name in {"w5", "w6", "w7", "w8"}] == ["w5", "w6", "w7", "w8"]


def test_no_wait_is_expected_before_any_session_has_ended_and_then_one_of_their_duration():
    stage = Stage(2)
    first, _ = stage.hold(2)
    waiting = [stage.enter(), stage.enter()]
    assert stage.book.positions(stage.accounts, stage.shares, stage.now_s)[waiting[0]].expected_wait_s is None
    stage.now_s += 40
    stage.release(first, settle_s=1.0)
    places = stage.book.positions(stage.accounts, stage.shares, stage.now_s)
    assert [places[name].expected_wait_s for name in waiting] == [20.0, 40.0]


# --- processes


def test_the_permits_of_a_dead_process_stay_in_use_until_their_sessions_have_ended():
    stage = Stage(3)
    for name, owner in (("w1", "dead"), ("w2", "dead"), ("w3", "here")):
        stage.hold(1, owner=owner)
        if name != "w2":
            stage.book.link(name, f"up-{name}")
    stage.enter(owner="dead")
    mine = stage.enter()
    stage.book.suspect("dead")
    assert list(stage.book.waiters) == [mine]
    stage.book.running = frozenset({"up-w1"})
    stage.book.confirm(stage.shares, stage.now_s, settle_s=2.0)
    assert set(stage.book.permits) == {"w1", "w3"}, "one that paid for nothing is free"
    stage.book.running = frozenset()
    stage.book.confirm(stage.shares, stage.now_s, settle_s=2.0)
    assert stage.book.permits["w1"].state is PermitState.SETTLING
    assert stage.book.permits["w3"].state is PermitState.HELD


def test_a_process_that_continues_a_session_takes_the_place_of_its_permit():
    stage = Stage(1)
    (held,) = stage.hold(1, owner="dead")
    stage.book.link(held, "up-1")
    stage.book.suspect("dead")
    row = PermitRow(id="new", account="main", owner="here", upstream_session_id="up-1", since_s=stage.now_s + 5)
    stage.book.adopt(row)
    stage.book.adopt(replace(row, id="newer", upstream_session_id="up-2"))
    assert {name: found.state for name, found in stage.book.permits.items()} == {
        "new": PermitState.HELD,
        "newer": PermitState.HELD,
    }
    assert stage.book.permits["new"].since_s == stage.now_s, "since its grant"


def test_an_abandoned_permit_waits_for_the_end_of_its_session():
    stage = Stage()
    (held,) = stage.hold(1)
    stage.book.link(held, "up-1")
    stage.book.abandon(held)
    stage.book.running = frozenset({"up-1"})
    stage.book.confirm(stage.shares, stage.now_s, settle_s=1.0)
    assert stage.used() == 1


def test_permits_that_the_registry_lost_come_back_and_are_recognised():
    stage = Stage(2)
    stage.hold(2)
    rows = list(stage.book.permits.values())
    assert not stage.book.restore(rows, stage.now_s)
    empty = Book()
    assert empty.restore(rows, stage.now_s)
    assert list(empty.permits.values()) == rows
    stage.book.suspect("here")
    assert not stage.book.restore(rows, stage.now_s)
    assert list(stage.book.permits.values()) == rows, "its process lives"


def test_every_transition_of_a_permit_is_allowed_or_refused_as_the_table_says():
    for before, after in product(PermitState, PermitState):
        book = Book()
        row = PermitRow(id="p", account="a", owner="o", since_s=0.0, state=before)
        if before is after or after in TRANSITIONS[before]:
            book._change(row, state=after)
            assert book.permits["p"].state is after
        else:
            with pytest.raises(AssertionError):
                book._change(row, state=after)


# --- whatever happens


class Anything(RuleBasedStateMachine):
    """Callers come, go, are refused and die in any order."""

    def __init__(self) -> None:
        super().__init__()
        shares = {"a": TenantShare(weight=3, floor=1), "b": TenantShare(ceiling=2)}
        self.stage = Stage(shares=Shares(by_tenant=shares), accounts={**account(2, "x"), **account(3, "y")})
        self.adopted = 0

    @property
    def book(self) -> Book:
        return self.stage.book

    def settle(self) -> None:
        used = {name: self.book.used(name, self.stage.now_s) for name in self.stage.accounts}
        granted = self.book.grant(self.stage.accounts, self.stage.shares, self.stage.now_s)
        for grant in granted:
            assert grant.waiter.deadline_s > self.stage.now_s
            assert grant.permit.account in grant.waiter.accounts
        for name, limit in self.stage.accounts.items():
            allowed = self.book.limit(limit, self.stage.now_s)
            now = self.book.used(name, self.stage.now_s)
            assert now <= max(allowed, used[name]), "above its limit"

    @rule(
        tenant=st.sampled_from("abc"),
        accounts=st.sampled_from([("x",), ("y",), ("x", "y"), ("y", "x"), ()]),
        patience_s=st.floats(0, 100),
        owner=st.sampled_from(["p", "q"]),
        kind=st.sampled_from(PermitKind),
    )
    def enter(self, tenant, accounts, patience_s, owner, kind):
        deadline_s = self.stage.now_s + patience_s
        self.stage.enter(tenant, accounts=accounts, deadline_s=deadline_s, owner=owner, kind=kind)
        self.settle()

    @rule(data=st.data())
    def leave(self, data):
        if self.book.waiters:
            self.book.leave(data.draw(st.sampled_from(sorted(self.book.waiters))))

    @rule(data=st.data(), ran=st.booleans(), settle_s=st.floats(0, 8))
    def release(self, data, ran, settle_s):
        if self.book.permits:
            name = data.draw(st.sampled_from(sorted(self.book.permits)))
            self.stage.release(name, ran=ran, settle_s=settle_s)
            self.settle()

    @rule(data=st.data(), settles=st.booleans(), learn=st.booleans())
    def refuse(self, data, settles, learn):
        if self.book.permits:
            name = data.draw(st.sampled_from(sorted(self.book.permits)))
            self.book.refused(
                name, self.stage.shares, self.stage.now_s, settles=settles, settle_s=1.0, learn=learn
            )
            self.settle()

    @rule(data=st.data(), tenant=st.sampled_from("abc"))
    def transfer(self, data, tenant):
        if self.book.permits:
            name = data.draw(st.sampled_from(sorted(self.book.permits)))
            self.book.transfer(name, self.stage.shares, self.stage.now_s, tenant=tenant)

    @rule(owner=st.sampled_from(["p", "q"]), is_over=st.booleans())
    def die(self, owner, is_over):
        for row in self.book.permits.values():
            if not row.upstream_session_id:
                self.book.link(row.id, f"up-{row.id}")
        self.book.suspect(owner)
        self.book.running = frozenset() if is_over else frozenset(f"up-{name}" for name in self.book.permits)
        self.book.confirm(self.stage.shares, self.stage.now_s, settle_s=1.0)
        self.settle()

    @rule(seconds=st.floats(0, 70), foreign=st.integers(0, 3))
    def wait(self, seconds, foreign):
        self.stage.now_s += seconds
        self.book.accounts["y"] = self.book.account("y").count_foreign(foreign, self.stage.now_s)
        self.book.tidy(self.stage.now_s)
        self.settle()

    @invariant()
    def is_sound(self):
        assert not set(self.book.waiters) & set(self.book.permits)
        positions = self.stage.positions()
        alive = [name for name, waiter in self.book.waiters.items() if waiter.deadline_s > self.stage.now_s]
        assert sorted(positions) == sorted(alive)
        assert sorted(positions.values()) == list(range(1, len(alive) + 1))


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_warm_sessions_of_a_profile_are_bounded_over_all_processes():
    stage = Stage(limit=9)
    here, there = stage.hold(1, **WARM) + stage.hold(1, **WARM, owner="there")
    assert not stage.hold(1, **WARM)
    stage.book.transfer(here, stage.shares, stage.now_s, kind=PermitKind.CALLER)
    assert len(stage.grant()) == 1
    assert not stage.hold(1, **WARM)
    assert stage.hold(1, **{**WARM, "profile": "hall"})
    stage.release(there, settle_s=60.0)
    assert len(stage.grant()) == 1
