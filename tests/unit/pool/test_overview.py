"""Overview of the pool: what operators see is what the book says."""

import math

from liveavatar_gateway.pool.account_limits import UNLEARN_S, AccountLimit, AccountState
from liveavatar_gateway.pool.book import Book, PermitKind, PermitRow, PermitState, Waiter
from liveavatar_gateway.pool.fair_order import Shares, TenantShare
from liveavatar_gateway.pool.overview import MAX_TENANTS, overview_of

NOW_S = 1000.0
MAIN = {"main": AccountLimit(name="main", limit=5)}


def row(name: str, **changes: object) -> PermitRow:
    return PermitRow(**{"id": name, "account": "main", "owner": "p", "since_s": 900.0, **changes})


def book(*rows: PermitRow, waiters: tuple[Waiter, ...] = (), **parts: object) -> Book:
    return Book(permits={one.id: one for one in rows}, waiters={one.id: one for one in waiters}, **parts)


def waiter(name: str, tenant: str, since_s: float) -> Waiter:
    return Waiter(id=name, tenant=tenant, owner="p", accounts=("main",), deadline_s=2000.0, since_s=since_s)


def account(state: AccountState, limit: AccountLimit = MAIN["main"]):
    found = overview_of(book(accounts={"main": state}), {"main": limit}, Shares(), NOW_S)
    return found.accounts[0]


def test_permits_are_counted_by_account_and_state():
    rows = [
        row("1"),
        row("2", kind=PermitKind.WARM, profile="desk"),
        row("3", state=PermitState.SETTLING, until_s=NOW_S + 1),
        row("4", state=PermitState.SETTLING, until_s=NOW_S - 1),
        row("5", state=PermitState.SUSPECT),
        row("6", account="other"),
    ]
    (main,) = overview_of(book(*rows), MAIN, Shares(), NOW_S).accounts
    assert (main.held, main.settling, main.suspect, main.warm, main.used) == (2, 1, 1, 1, 4)


def test_the_limit_names_what_makes_it_lower():
    learned = account(AccountState(name="main", learned=2, learned_at_s=NOW_S, foreign=1, foreign_at_s=NOW_S))
    assert (learned.limit, learned.learned, learned.foreign) == (2, 2, 1)
    later = account(AccountState(name="main", learned=2, learned_at_s=NOW_S - 3 * UNLEARN_S))
    assert (later.limit, later.learned) == (5, None)
    decided = account(AccountState(name="main").use_limit(9))
    assert (decided.limit, decided.set_limit) == (9, 9)


def test_a_limit_of_an_operator_forgets_what_refusals_taught_and_can_be_taken_back():
    state = AccountState(name="main", learned=1, learned_at_s=NOW_S).use_limit(7)
    assert account(state).limit == 7
    assert account(state.use_limit(None)).limit == 5


def test_a_paused_account_grants_nothing_until_it_is_resumed():
    paused = AccountState(name="main").pause()
    assert (account(paused).limit, account(paused).allowed, account(paused).paused) == (0, 5, True)
    assert account(paused.resume()).limit == 5


def test_a_draining_account_shows_the_time_to_its_deadline():
    draining = account(AccountState(name="main").drain(NOW_S + 60))
    assert (draining.limit, draining.draining, draining.drain_left_s) == (0, True, 60.0)
    patient = AccountState(name="main").drain(math.inf)
    assert (account(patient).draining, account(patient).drain_left_s) == (True, None)
    assert not account(patient.pause()).draining
    assert not account(AccountState(name="main").pause().drain(math.inf)).paused


def test_an_account_that_this_process_cannot_use_has_no_effective_limit():
    assert account(AccountState(name="main"), AccountLimit(name="main", limit=5, usable=False)).limit == 0


def test_tenants_that_wait_longest_come_first_with_their_shares():
    shares = Shares(
        by_tenant={"idle": TenantShare(weight=2.0), "plain": TenantShare(), "acme": TenantShare(floor=1)}
    )
    rows = [row("1", tenant="acme"), row("2", tenant="zoo"), row("3", tenant="zoo")]
    waiters = (waiter("4", "zoo", 990.0), waiter("5", "zoo", 970.0), waiter("6", "late", 999.0))
    found = overview_of(book(*rows, waiters=waiters), MAIN, shares, NOW_S)
    assert [(one.name, one.used, one.waiting, one.longest_wait_s) for one in found.tenants] == [
        ("zoo", 2, 2, 30.0),
        ("late", 0, 1, 1.0),
        ("acme", 1, 0, 0.0),
        ("idle", 0, 0, 0.0),
    ]
    assert found.waiting == 3
    assert found.tenants[2].share.floor == 1


def test_the_number_of_tenants_is_bounded():
    rows = [row(str(number), tenant=f"t{number}") for number in range(MAX_TENANTS + 5)]
    found = overview_of(book(*rows), MAIN, Shares(), NOW_S)
    assert (len(found.tenants), found.other_tenants) == (MAX_TENANTS, 5)


def test_warm_sessions_are_counted_by_profile_and_account():
    rows = [
        row("1", kind=PermitKind.WARM, profile="desk"),
        row("2", kind=PermitKind.WARM, profile="desk", account="two"),
        row("3", kind=PermitKind.RESERVED, profile="desk"),
        row("4", kind=PermitKind.RESERVED),
    ]
    found = overview_of(book(*rows), MAIN, Shares(), NOW_S).warm
    assert [(one.profile, one.account, one.warm, one.reserved) for one in found] == [
        ("", "main", 0, 1),
        ("desk", "main", 1, 1),
        ("desk", "two", 1, 0),
    ]


def test_a_block_after_a_loss_of_data_is_shown():
    assert overview_of(book(blocked_until_s=NOW_S + 3), MAIN, Shares(), NOW_S).blocked_s == 3.0
    assert overview_of(book(), MAIN, Shares(), NOW_S).blocked_s == 0.0


def test_a_waiter_waits_since_it_entered():
    filled = book()
    entered = filled.enter(waiter("1", "t", 0.0), Shares(), NOW_S)
    assert entered.since_s == NOW_S
    # One that enters again, since the registry lost it, has waited since then.
    assert filled.enter(entered, Shares(), NOW_S + 5).since_s == NOW_S
