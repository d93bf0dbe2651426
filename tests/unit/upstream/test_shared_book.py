"""Book of permits in the registry: order of changes, and what a locked registry does to them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import pytest

from liveavatar_gateway.core.errors import RegistryUnavailable
from liveavatar_gateway.pool.account_limits import AccountLimit
from liveavatar_gateway.pool.book import Book, PermitRow, Place
from liveavatar_gateway.pool.fair_order import EQUAL_SHARES
from liveavatar_gateway.registry.pool import MemoryPool, PoolStore
from liveavatar_gateway.upstream import shared_book as module
from liveavatar_gateway.upstream.shared_book import SharedBook

ACCOUNTS = {"a": AccountLimit(name="a", limit=1)}


class User:
    """Process without permits and callers."""

    def __init__(self) -> None:
        self.seen: list[Book] = []
        self.held: Sequence[PermitRow] = ()
        self.has_callers = False

    def see(self, book: Book, places: Mapping[str, Place]) -> None:
        assert not places
        self.seen.append(book)


class Failing(MemoryPool):
    """Registry that fails until `failures` are over, each when its event is set."""

    def __init__(self, *failures: asyncio.Event) -> None:
        super().__init__()
        self.failures = list(failures)

    async def pool(self, change):
        if self.failures:
            await self.failures.pop(0).wait()
            raise RegistryUnavailable("locked")
        return await super().pool(change)


def shared(store: PoolStore, user: User | None = None, accounts: Callable[[], Mapping] = lambda: ACCOUNTS):
    return SharedBook(
        store,
        user or User(),
        accounts=accounts,
        shares=lambda: EQUAL_SHARES,
        loss_pause_s=10.0,
        former_names=dict,
    )


async def test_changes_of_a_caller_that_gave_up_come_before_later_changes(unretrieved):
    """A transaction goes on without its caller, and the next one begins after its failure."""
    failing, order = asyncio.Event(), []
    store = Failing(failing)
    book = shared(store)
    first = asyncio.create_task(book.transact(lambda *_: order.append("lost")))
    await asyncio.sleep(0)
    book.later(lambda *_: order.append("first"))
    order.clear()
    while store.failures:
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    later = asyncio.create_task(book.transact(lambda *_: order.append("second")))
    for _ in range(5):
        await asyncio.sleep(0)
    assert order == [], "none begins while the registry is busy with another"
    failing.set()
    await later
    assert order == ["first", "second"]
    await book.close()
    assert await unretrieved() == []


async def test_a_change_that_came_back_after_its_writer_had_ended_is_written(monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    failing = asyncio.Event()
    store = Failing(failing)
    book = shared(store)
    taking = asyncio.create_task(book.refresh())
    # It has the turn before the writer of this change begins.
    book.later(lambda at, _shares, now_s: at.accounts.update(a=at.account("a").count_foreign(3, now_s)))
    for _ in range(5):
        await asyncio.sleep(0)
    failing.set()
    await asyncio.wait([taking])
    await book.close()
    stored, _ = await store.pool(lambda at, _now_s: at.account("a").foreign)
    assert stored == 3
    assert isinstance(taking.exception(), RegistryUnavailable)


async def test_work_is_bound_by_the_limits_at_its_turn(unretrieved):
    held, limits = asyncio.Event(), dict(ACCOUNTS)
    store = Failing(held)
    book = shared(store, accounts=lambda: limits)
    slow = asyncio.create_task(book.refresh())
    await asyncio.sleep(0)
    seen = []
    work = asyncio.create_task(book.transact(lambda _book, terms, _now_s: seen.append(terms.accounts["a"].limit)))
    await asyncio.sleep(0)
    limits["a"] = AccountLimit(name="a", limit=7)
    held.set()
    await work
    assert seen == [7]
    assert isinstance((await asyncio.gather(slow, return_exceptions=True))[0], RegistryUnavailable)
    assert await unretrieved() == []


async def test_a_change_is_kept_and_written_when_the_registry_works_again(monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    failed = asyncio.Event()
    failed.set()
    store = Failing(failed, failed)
    book = shared(store)
    book.later(lambda at, _shares, now_s: at.accounts.update(a=at.account("a").count_foreign(3, now_s)))
    assert book.book.account("a").foreign == 3, "it counts here at once"
    await book.close()
    stored, _ = await store.pool(lambda at, _now_s: at.account("a").foreign)
    assert (stored, store.failures) == (3, [])


async def test_a_caller_does_not_wait_for_a_locked_registry_longer_than_it_says():
    held = asyncio.Event()
    book = shared(Failing(held))
    slow = asyncio.create_task(book.refresh())
    await asyncio.sleep(0)
    with pytest.raises(RegistryUnavailable):
        await book.transact_within(0.01, lambda *_: None)
    held.set()
    with pytest.raises(RegistryUnavailable):
        await slow
    assert await book.transact(lambda *_: "works again") == "works again"


async def test_a_fault_before_a_transaction_keeps_nobody_from_the_next():
    faults = [RuntimeError("a fault")]

    def accounts():
        if faults:
            raise faults.pop()
        return ACCOUNTS

    book = shared(MemoryPool(), accounts=accounts)
    with pytest.raises(RuntimeError):
        await book.refresh()
    async with asyncio.timeout(5):
        await book.refresh()


async def test_the_book_is_outdated_once_another_process_has_changed_it(monkeypatch):
    monkeypatch.setattr(module, "_READ_S", 60.0)
    user, store = User(), MemoryPool()
    mine, other = shared(store, user), shared(store)
    await mine.refresh()
    assert len(user.seen) == 1
    assert not await mine.is_outdated()
    await other.transact(lambda at, _terms, now_s: at.accounts.update(a=at.account("a").count_foreign(3, now_s)))
    assert await mine.is_outdated()
    await mine.refresh()
    assert mine.book.account("a").foreign == 3
    monkeypatch.setattr(module, "_READ_S", 0.0)
    assert await mine.is_outdated(), "deaths of processes change no version"
