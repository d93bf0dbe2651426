"""Contract of the pool's book: one for all processes on a registry, whatever happens to one of them."""

import asyncio

import pytest

from liveavatar_gateway.core.errors import OwnerMoved
from liveavatar_gateway.pool.account_limits import AccountLimit, AccountState
from liveavatar_gateway.pool.book import Book, PermitKind, PermitRow, PermitState, Waiter
from liveavatar_gateway.pool.fair_order import EQUAL_SHARES, TenantTime

LIMITS = {"main": AccountLimit(name="main", limit=2)}


def permit(owner: str, name: str = "p-1", **changes) -> PermitRow:
    values = {"id": name, "account": "main", "owner": owner, "since_s": 0.0}
    return PermitRow(**{**values, **changes})


async def read(registry) -> Book:
    book, _ = await registry.pool(lambda book, _now_s: book.copy())
    return book


async def put(registry, *rows: PermitRow) -> None:
    await registry.pool(lambda book, now_s: book.restore(rows, now_s))


async def test_every_process_sees_the_same_book_with_each_value(mine, other):
    rows = [
        permit(mine.owner, tenant="t", session_id="s", kind=PermitKind.WARM, profile="desk", charged_s=12.5),
        permit(mine.owner, "p-2", state=PermitState.SETTLING, until_s=3.5, ended_at_s=2.5, refusal_count=2),
    ]
    waiter = Waiter(
        id="w-1", tenant="t", owner=other.owner, number=4, accounts=("main", "ü"), deadline_s=1e6, since_s=7.0
    )
    account = AccountState(
        name="main", learned=3, learned_at_s=1.0, foreign=2, paused=True, drain_until_s=1e9, limit=9
    )

    def change(book: Book, now_s: float) -> None:
        book.restore(rows, now_s)
        book.waiters[waiter.id] = waiter
        book.tenants["t"] = TenantTime(tenant="t", settled=7.5, duration_s=33.0)
        book.accounts["main"] = account
        book.duration_s, book.last_number = 44.0, 4

    await mine.pool(change)
    found = await read(other)
    assert (list(found.permits.values()), found.waiters) == (rows, {"w-1": waiter})
    assert (found.tenants["t"].settled, found.tenants["t"].duration_s, found.accounts["main"]) == (
        7.5,
        33.0,
        account,
    )
    assert (found.duration_s, found.last_number) == (44.0, 4)
    assert found.generation
    assert found.generation == (await read(mine)).generation


async def test_every_change_raises_the_version_and_a_look_does_not(mine, other):
    await put(mine, permit(mine.owner))
    before = await mine.pool_version()
    await read(other)
    assert await other.pool_version() == before
    _, version = await other.pool(lambda book, now_s: book.restore([permit(other.owner, "p-2")], now_s))
    assert await mine.pool_version() == version > before


async def test_a_change_that_fails_changes_nothing(mine, other):
    await put(mine, permit(mine.owner))

    def fail(book: Book, _now_s: float) -> None:
        book.permits.clear()
        raise OwnerMoved("s-1")

    for registry in (mine, other):
        with pytest.raises(OwnerMoved):
            await registry.pool(fail)
        assert list((await read(registry)).permits) == ["p-1"]


async def test_changes_of_many_processes_at_once_never_exceed_the_limit(shared, mine, other):
    third = await shared.join()

    async def enter(registry, number: int) -> None:
        waiter = Waiter(id=f"w-{number}", owner=registry.owner, accounts=("main",), deadline_s=1e9)

        def change(book: Book, now_s: float) -> None:
            if waiter.id not in book.permits:
                book.enter(waiter, EQUAL_SHARES, now_s)
            book.grant(LIMITS, EQUAL_SHARES, now_s)

        await registry.pool(change)

    await asyncio.gather(*(enter((mine, other, third)[n % 3], n) for n in range(12)))
    book = await read(mine)
    assert (len(book.permits), len(book.waiters)) == (2, 10)


async def test_the_permits_of_a_dead_process_are_suspect_and_its_waiters_have_left(shared, mine, other):
    fence = await other.create("s-1", {})
    await put(other, permit(other.owner), permit(other.owner, "p-2"), permit(mine.owner, "p-3"))
    await other.pool(
        lambda book, _now_s: book.waiters.update(
            w=Waiter(id="w", owner=other.owner, number=1, accounts=("main",), deadline_s=1e9)
        )
    )
    await other.add_upstream(fence, "up-1", account="main", permit_id="p-1")
    shared.kill(other)
    seen: list[tuple[dict[str, PermitState], frozenset[str]]] = []

    def look(book: Book, now_s: float) -> None:
        seen.append(({name: row.state for name, row in book.permits.items()}, book.running))
        book.confirm(EQUAL_SHARES, now_s, settle_s=2.0)

    await mine.pool(look)
    suspect, held = PermitState.SUSPECT, PermitState.HELD
    assert seen[-1] == ({"p-1": suspect, "p-2": suspect, "p-3": held}, {"up-1"})
    book = await read(mine)
    assert book.waiters == {}
    assert set(book.permits) == {"p-1", "p-3"}, "one that paid for nothing is free at once"
    await mine.drop_upstream("up-1")
    await mine.pool(look)
    assert (await read(mine)).permits["p-1"].state is PermitState.SETTLING


async def test_the_permit_of_a_session_is_known_with_the_session(mine, other):
    fence = await mine.create("s-1", {})
    await put(mine, permit(mine.owner))
    before = await other.pool_version()
    await mine.add_upstream(fence, "up-1", account="spare", permit_id="p-1")
    assert (await read(other)).permits["p-1"].upstream_session_id == "up-1"
    assert await other.pool_version() >= before
    assert [(known.upstream_session_id, known.account) for known in (await other.find("s-1")).upstreams] == [
        ("up-1", "spare")
    ]


async def test_without_an_account_a_session_runs_on_the_one_of_the_registry(mine):
    fence = await mine.create("s-1", {})
    await mine.add_upstream(fence, "up-1")
    assert (await mine.find("s-1")).upstreams[0].account == mine.account


async def test_a_session_at_liveavatar_moves_with_its_access(mine, other):
    source, target = await mine.create("warm", {}), await mine.create("s-1", {})
    await mine.add_upstream(source, "up-1", account="spare")
    await mine.save_access(source, "up-1", {"ws_url": "ws://x"})
    await mine.move_upstream(source, target, "up-1")
    assert (await other.find("warm")).upstreams == ()
    (moved,) = (await other.find("s-1")).upstreams
    assert (moved.upstream_session_id, moved.access, moved.account) == ("up-1", {"ws_url": "ws://x"}, "spare")
    assert await mine.finish(source, {}, retention_s=60)
    with pytest.raises(OwnerMoved):
        await mine.move_upstream(source, target, "up-1")


async def test_a_session_at_liveavatar_moves_neither_from_nor_to_a_session_of_another_process(mine, other):
    source, target = await mine.create("warm", {}), await other.create("s-1", {})
    await mine.add_upstream(source, "up-1")
    for registry in (mine, other):
        with pytest.raises(OwnerMoved):
            await registry.move_upstream(source, target, "up-1")
    assert len((await mine.find("warm")).upstreams) == 1


async def test_a_process_finds_the_sessions_of_all_accounts_it_knows(shared, mine):
    many = await shared.join(account="pool")
    fence = await mine.create("s-1", {})
    await mine.add_upstream(fence, "up-1")
    assert (await many.find("s-1"), await many.session_ids(["up-1"])) == (None, {})
    many.use_accounts(["account"])
    assert (await many.find("s-1")).session_id == "s-1"
    assert await many.session_ids(["up-1"]) == {"up-1": "s-1"}
    assert [stored.session_id for stored in await many.page("", 10)] == ["s-1"]


async def test_an_orphan_is_found_by_who_has_the_keys_of_all_its_sessions(shared, mine, other):
    fence = await other.create("s-1", {})
    await other.add_upstream(fence, "up-1")
    await other.add_upstream(fence, "up-2", account="spare")
    shared.kill(other)
    assert await mine.orphans() == []
    mine.use_accounts([], ["spare"])
    assert [stored.session_id for stored in await mine.orphans()] == ["s-1"]
