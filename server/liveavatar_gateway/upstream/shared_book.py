"""Book of permits and queue in the registry, as this process sees and changes it."""

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import structlog

from liveavatar_gateway.core.errors import RegistryUnavailable
from liveavatar_gateway.pool.account_limits import AccountLimit
from liveavatar_gateway.pool.book import Book, PermitRow, Place
from liveavatar_gateway.pool.fair_order import Shares
from liveavatar_gateway.registry.pool import PoolStore
from liveavatar_gateway.upstream.permit import PermitChange

_Result = TypeVar("_Result")

_log = structlog.get_logger(__name__)

_POLL_S: Final = 0.05
"""Period in which a process with waiters looks for changes of others."""
_READ_S: Final = 0.25
"""Longest time for which such a process relies on the version: deaths of processes and stops do not change it."""
RETRY_S: Final = 0.25
"""Pause after a change that could not be written."""
_SUSPECT_SETTLE_S: Final = 2.0
"""Time for which a permit of a dead process stays in use after its session was stopped."""
_CLOSE_S: Final = 5.0
"""Longest wait for the last changes at the end of the process."""


class BookUser(Protocol):
    """Permits and callers of this process, which the book has to have."""

    @property
    def held(self) -> Sequence[PermitRow]:
        """Permits of this process."""

    @property
    def has_callers(self) -> bool:
        """True if places in the queue are of use."""

    def see(self, book: Book, places: Mapping[str, Place]) -> None:
        """Take note of a new state of the book, and of the places of its waiters."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Bounds of the accounts and shares of the tenants, as they are at a transaction."""

    accounts: Mapping[str, AccountLimit]
    shares: Shares


Work = Callable[[Book, Terms, float], _Result]
"""Change of the book at a time, with a result; runs on another thread."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """Book after a change, as the registry has it."""

    number: int
    """Order of the changes of this process."""
    book: Book
    places: Mapping[str, Place]


class SharedBook:
    """Last known state of the book, and changes of it.

    A change that cannot be written is kept, and written when the registry works again.
    """

    def __init__(
        self,
        store: PoolStore,
        user: BookUser,
        *,
        accounts: Callable[[], Mapping[str, AccountLimit]],
        shares: Callable[[], Shares],
        loss_pause_s: float,
        former_names: Callable[[], Mapping[str, str]],
    ) -> None:
        """Begin with an empty book; nothing is read or written yet.

        Args:
            store: Registry.
            user: Permits and callers of this process.
            accounts: Present accounts by name.
            shares: Present weights, floors and ceilings of the tenants.
            loss_pause_s: Time for which nothing is granted after the registry lost permits.
            former_names: Names of the present accounts by the names that the registry may still have for them.
        """
        self._store = store
        self._user = user
        self._accounts = accounts
        self._shares = shares
        self._loss_pause_s = loss_pause_s
        self._former_names = former_names
        self.book = Book()
        """State as this process last saw it, with its own changes; to be read only."""
        self._pending: list[PermitChange] = []
        self._version = -1
        self._seen_number = 0
        self._numbers = itertools.count(1)
        self._read_at_s = float("-inf")
        self._transacting = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None

    @property
    def owner(self) -> str:
        """Name of this process in the registry."""
        return self._store.owner

    def later(self, change: PermitChange) -> None:
        """Apply a change to the known book at once, and to the registry as soon as that works."""
        change(self.book, self._shares(), time.monotonic())
        self._pending.append(change)
        self._begin_writing()

    def _begin_writing(self) -> None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="permits/write")

    async def _write(self) -> None:
        while self._pending:
            try:
                await self.refresh()
            except RegistryUnavailable as error:
                _log.warning("permits.not_written", changes=len(self._pending), reason=error.reason)
                await asyncio.sleep(RETRY_S)
            except Exception:  # noqa: BLE001 - root of its task: the next change must be written
                _log.exception("permits.write_crashed")
                await asyncio.sleep(RETRY_S)

    async def refresh(self) -> None:
        """Write all changes that wait, grant what can be granted, and read the book.

        Raises:
            RegistryUnavailable: the registry cannot be changed; the changes are kept.
        """
        await self.transact(lambda _book, _terms, _now_s: None)

    async def close(self) -> None:
        """Write the last changes, within bounds."""
        until_s = time.monotonic() + _CLOSE_S
        # Another writer begins if the changes of a failed transaction come back.
        while (writing := self._writing) is not None and not writing.done() and time.monotonic() < until_s:
            await asyncio.wait([writing], timeout=until_s - time.monotonic())
        if writing is not None:
            writing.cancel()

    async def transact_within(self, timeout_s: float, work: Work[_Result]) -> _Result:
        """Run work as `transact`, for a caller that does not wait behind all others while the registry is locked.

        Raises:
            RegistryUnavailable: the time is over, or the registry cannot be changed. The work may still be done.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self.transact(work)
        except TimeoutError:
            raise RegistryUnavailable(f"the registry could not be changed within {timeout_s:.1f} s") from None

    async def transact(self, work: Work[_Result]) -> _Result:
        """Run work on the book after all pending changes, and grant what can be granted then.

        Transactions follow each other, so that changes of one that fails are repeated before any later change.

        Args:
            work: Change of the book.

        Raises:
            RegistryUnavailable: the registry cannot be changed.
        """
        await self._transacting.acquire()
        try:
            terms, former_names = Terms(dict(self._accounts()), self._shares()), self._former_names()
        except BaseException:
            self._transacting.release()
            raise
        pending, self._pending = self._pending, []
        rows, wanted = self._user.held, self._user.has_callers
        generation = self.book.generation

        def change(book: Book, now_s: float) -> tuple[_Result, _Seen]:
            is_lost = bool(generation) and book.generation != generation
            if book.restore(rows, now_s) or is_lost:
                book.block(now_s + self._loss_pause_s)
            book.rename_accounts(former_names)
            # Before the changes: the registry looked for running sessions of permits that were suspect by then.
            book.confirm(terms.shares, now_s, settle_s=_SUSPECT_SETTLE_S)
            for pended in pending:
                pended(book, terms.shares, now_s)
            book.tidy(now_s)
            result = work(book, terms, now_s)
            book.grant(terms.accounts, terms.shares, now_s)
            places = book.positions(terms.accounts, terms.shares, now_s) if wanted else {}
            return result, _Seen(next(self._numbers), book.copy(), places)

        # A transaction goes on when its caller gives up: none begins while the registry is busy with another.
        committing = asyncio.ensure_future(self._commit(change, pending))
        committing.add_done_callback(_retrieve)
        return await asyncio.shield(committing)

    async def _commit(
        self, change: Callable[[Book, float], tuple[_Result, _Seen]], pending: list[PermitChange]
    ) -> _Result:
        try:
            (result, seen), version = await self._store.pool(change)
        except BaseException:
            # Each change may be applied twice.
            self._pending = pending + self._pending
            if pending:
                self._begin_writing()
            raise
        finally:
            self._transacting.release()
        self._see(seen, version)
        return result

    def _see(self, seen: _Seen, version: int) -> None:
        if seen.number < self._seen_number:
            return
        self._seen_number, self._version, self.book = seen.number, version, seen.book
        self._read_at_s = time.monotonic()
        shares = self._shares()
        for change in self._pending:
            change(self.book, shares, self._read_at_s)
        self._user.see(seen.book, seen.places)

    # --- changes of others

    @property
    def pause_s(self) -> float:
        """Time until the book should be looked at again, seconds."""
        now_s = time.monotonic()
        next_s = self.book.next_change_s(now_s)
        return _POLL_S if next_s is None else min(_POLL_S, max(0.0, next_s - now_s))

    async def is_outdated(self) -> bool:
        """Return whether the book may have changed, by another process or with time.

        Raises:
            RegistryUnavailable: the registry cannot be read.
        """
        now_s = time.monotonic()
        if now_s >= self._read_at_s + _READ_S:
            return True
        next_s = self.book.next_change_s(self._read_at_s)
        if next_s is not None and now_s >= next_s:
            return True
        return await self._store.pool_version() != self._version


def _retrieve(committing: "asyncio.Task[Any]") -> None:
    # The error of a transaction whose caller gave up would be logged as never retrieved.
    if not committing.cancelled():
        committing.exception()
