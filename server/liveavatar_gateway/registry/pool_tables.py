"""The pool's book in the tables of an SQLite registry. Every function runs in a transaction.

A damaged value never frees a permit: the row counts as the permit of a dead process, and goes with its session.
"""

import math
import sqlite3
import uuid
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, Final, TypeVar

import orjson

from liveavatar_gateway.pool.account_limits import AccountState
from liveavatar_gateway.pool.book import Book, PermitKind, PermitRow, PermitState, Waiter
from liveavatar_gateway.pool.fair_order import TenantTime
from liveavatar_gateway.registry.clock import MachineClock
from liveavatar_gateway.registry.fault_log import FaultLog
from liveavatar_gateway.registry.pool import PoolChange

_Result = TypeVar("_Result")
_Row = TypeVar("_Row")

POOL_SCHEMA: Final = (
    """
    CREATE TABLE permits (
        id TEXT PRIMARY KEY,
        account TEXT NOT NULL,
        tenant TEXT NOT NULL,
        owner TEXT NOT NULL,         -- process that holds it
        session_id TEXT NOT NULL,
        upstream_session_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        profile TEXT NOT NULL,
        state TEXT NOT NULL,
        since_s REAL NOT NULL,       -- times on the monotonic clock of the boot in table pool
        charged_s REAL NOT NULL,
        until_s REAL,
        ended_at_s REAL,
        refusal_count INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE waiters (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        owner TEXT NOT NULL,
        number INTEGER NOT NULL,     -- order of arrival
        accounts TEXT NOT NULL,      -- JSON array of names
        deadline_s REAL NOT NULL,
        session_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        profile TEXT NOT NULL,
        at_most INTEGER,
        since_s REAL NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE pool_tenants (
        tenant TEXT PRIMARY KEY,
        settled REAL NOT NULL,
        duration_s REAL NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE pool_accounts (
        name TEXT PRIMARY KEY,
        learned INTEGER,
        learned_at_s REAL NOT NULL,
        "foreign" INTEGER NOT NULL,
        foreign_at_s REAL NOT NULL,
        paused INTEGER NOT NULL,
        drain_until_s REAL,          -- infinite for a drain without a deadline
        "limit" INTEGER,
        ended_at_s REAL,
        full_until_s REAL NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE pool (
        number INTEGER PRIMARY KEY CHECK (number = 1),
        version INTEGER NOT NULL,
        boot_id TEXT NOT NULL,
        generation TEXT NOT NULL,
        duration_s REAL,
        last_number INTEGER NOT NULL,
        blocked_until_s REAL NOT NULL
    ) STRICT""",
)

_HEAD: Final = (
    "SELECT version, boot_id, generation, duration_s, last_number, blocked_until_s FROM pool WHERE number = 1"
)
_SAVE_HEAD: Final = """
    INSERT INTO pool (number, version, boot_id, generation, duration_s, last_number, blocked_until_s)
    VALUES (1, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (number) DO UPDATE SET
        version = excluded.version, boot_id = excluded.boot_id, generation = excluded.generation,
        duration_s = excluded.duration_s, last_number = excluded.last_number,
        blocked_until_s = excluded.blocked_until_s"""
_NEVER: Final = float("-inf")
_MAX_SETTLE_S: Final = 60.0
_MAX_NUMBER: Final = 1 << 53


class _Table:
    """Table with a column for each field of a row's class."""

    def __init__(self, name: str, key: str, row: type[Any]) -> None:
        self.row = row
        self.columns = tuple(field.name for field in fields(row))
        listed = ", ".join(f'"{column}"' for column in self.columns)
        marks = ", ".join("?" * len(self.columns))
        self.select = f"SELECT {listed} FROM {name}"  # noqa: S608 - ours
        self.replace = f"INSERT OR REPLACE INTO {name} ({listed}) VALUES ({marks})"  # noqa: S608 - ours
        self.delete = f"DELETE FROM {name} WHERE {key} = ?"  # noqa: S608 - ours
        self.clear = f"DELETE FROM {name}"  # noqa: S608 - ours


_PERMITS: Final = _Table("permits", "id", PermitRow)
_WAITERS: Final = _Table("waiters", "id", Waiter)
_TENANTS: Final = _Table("pool_tenants", "tenant", TenantTime)
_ACCOUNTS: Final = _Table("pool_accounts", "name", AccountState)
_TABLES: Final = (_PERMITS, _WAITERS, _TENANTS, _ACCOUNTS)


class PoolTables:
    """Reader and writer of the book. It remembers the last version: an unchanged book is not read again."""

    def __init__(self, owner: str, clock: MachineClock, faults: FaultLog) -> None:
        self._owner = owner
        self._clock = clock
        self._faults = faults
        self._last: tuple[int, Book] | None = None

    def change(
        self,
        connection: sqlite3.Connection,
        change: PoolChange[_Result],
        *,
        is_dead: Callable[[str], bool],
        is_silent: Callable[[str], bool],
    ) -> tuple[_Result, int]:
        """Run a change of the book; see `PoolStore.pool`.

        Args:
            connection: Within a transaction.
            change: The change.
            is_dead: Returns whether a process is dead.
            is_silent: Returns whether a process has not renewed its lease in time, dead or not.
        """
        head = connection.execute(_HEAD).fetchone()
        version, before = self._read(connection, head)
        book = before.copy()
        for owner in sorted(book.owners - {self._owner}):
            if is_dead(owner):
                book.suspect(owner)
        for owner in sorted({waiter.owner for waiter in book.waiters.values()} - {self._owner}):
            if is_silent(owner):
                # A process that stands still would take each permit that comes free, and use none.
                book.drop_waiters(owner)
        if suspects := book.suspects:
            book.running = frozenset(
                row.upstream_session_id for row in suspects if _is_running(connection, row.upstream_session_id)
            )
        book.generation = book.generation or str(uuid.uuid4())
        result = change(book, self._clock.now_s())
        book.running = frozenset()
        if head is not None and not self._clock.reads(head[1]):
            # Rows that did not change have times of a former boot, too.
            for table in _TABLES:
                connection.execute(table.clear)
            before = Book()
        if book != before:
            version += 1
            self._write(connection, before, book, version)
        self._last = (version, book)
        return result, version

    def forget(self) -> None:
        """Read the book again at the next change: the transaction of the last one was rolled back."""
        self._last = None

    def _read(self, connection: sqlite3.Connection, head: tuple[Any, ...] | None) -> tuple[int, Book]:
        if head is None:
            return 0, Book()
        version, boot_id, generation, duration_s, last_number, blocked_until_s = head
        if self._last is not None and self._last[0] == version:
            return self._last
        now_s = self._clock.now_s()
        has_times = self._clock.reads(boot_id)
        book = Book(
            duration_s=None if duration_s is None else _between(duration_s, 0.0, 86400.0),
            last_number=min(max(0, last_number), _MAX_NUMBER),
            blocked_until_s=min(blocked_until_s, now_s + _MAX_SETTLE_S) if has_times else _NEVER,
            generation=generation,
        )
        book.permits = self._rows(connection, _PERMITS, lambda values: _permit(values, now_s, has_times=has_times))
        book.tenants = self._rows(connection, _TENANTS, _tenant)
        book.accounts = self._rows(
            connection, _ACCOUNTS, lambda values: _account(values, now_s, has_times=has_times)
        )
        if has_times:
            book.waiters = self._rows(connection, _WAITERS, _waiter)
        return version, book

    def _rows(
        self, connection: sqlite3.Connection, table: _Table, read: Callable[[dict[str, Any]], _Row]
    ) -> dict[str, _Row]:
        rows: dict[str, _Row] = {}
        for columns in connection.execute(table.select).fetchall():
            values = dict(zip(table.columns, columns, strict=True))
            key = values[table.columns[0]]
            try:
                rows[key] = read(values)
            except (ValueError, TypeError) as error:
                self._faults.error(key[:100], "registry.pool_row_unreadable", reason=str(error)[:200])
        return rows

    def _write(self, connection: sqlite3.Connection, before: Book, book: Book, version: int) -> None:
        for table, old, new in (
            (_PERMITS, before.permits, book.permits),
            (_WAITERS, before.waiters, book.waiters),
            (_TENANTS, before.tenants, book.tenants),
            (_ACCOUNTS, before.accounts, book.accounts),
        ):
            _write_rows(connection, table, old, new)
        head = (book.generation, book.duration_s, book.last_number, book.blocked_until_s)
        connection.execute(_SAVE_HEAD, (version, self._clock.boot_id, *head))


def _write_rows(
    connection: sqlite3.Connection, table: _Table, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    connection.executemany(table.delete, [(key,) for key in before if key not in after])
    changed = [row for key, row in after.items() if before.get(key) != row]
    connection.executemany(table.replace, [_values(table, row) for row in changed])


def _values(table: _Table, row: object) -> list[Any]:
    values = [getattr(row, column) for column in table.columns]
    return [orjson.dumps(value).decode() if isinstance(value, tuple) else value for value in values]


def read_version(connection: sqlite3.Connection) -> int:
    """Return the version of the book."""
    found = connection.execute("SELECT version FROM pool WHERE number = 1").fetchone()
    return 0 if found is None else int(found[0])


def link(connection: sqlite3.Connection, permit_id: str, upstream_session_id: str) -> None:
    """Record the LiveAvatar session that a permit pays for."""
    statement = "UPDATE permits SET upstream_session_id = ? WHERE id = ?"
    if permit_id and connection.execute(statement, (upstream_session_id, permit_id)).rowcount:
        connection.execute("UPDATE pool SET version = version + 1")


def _is_running(connection: sqlite3.Connection, upstream_session_id: str) -> bool:
    known = connection.execute(
        "SELECT 1 FROM upstreams WHERE upstream_session_id = ?", (upstream_session_id,)
    ).fetchone()
    return known is not None


def _permit(values: dict[str, Any], now_s: float, *, has_times: bool) -> PermitRow:
    values["kind"] = PermitKind(values["kind"]) if values["kind"] in set(PermitKind) else PermitKind.CALLER
    state = values["state"]
    # A damaged state counts as the permit of a dead process, which is free once its session has ended.
    values["state"] = PermitState(state) if state in set(PermitState) else PermitState.SUSPECT
    if not has_times:
        # The machine was restarted: every process is dead, and times of its former clock mean nothing.
        values.update(since_s=now_s, ended_at_s=None, until_s=now_s if values["until_s"] is not None else None)
    values["since_s"] = min(_finite(values["since_s"], now_s), now_s)
    values["charged_s"] = _between(values["charged_s"], 0.0, 3600.0)
    if values["until_s"] is not None:
        values["until_s"] = min(_finite(values["until_s"], now_s), now_s + _MAX_SETTLE_S)
    elif values["state"] is PermitState.SETTLING:
        values["until_s"] = now_s
    if values["ended_at_s"] is not None:
        values["ended_at_s"] = min(_finite(values["ended_at_s"], now_s), now_s)
    values["refusal_count"] = min(max(0, values["refusal_count"]), 1000)
    return PermitRow(**values)


def _waiter(values: dict[str, Any]) -> Waiter:
    accounts = orjson.loads(values["accounts"])
    if not isinstance(accounts, list) or not all(isinstance(name, str) for name in accounts):
        raise ValueError("its accounts are no list of names")
    values.update(accounts=tuple(accounts), kind=PermitKind(values["kind"]))
    if not math.isfinite(values["deadline_s"] + values["since_s"]) or not 0 < values["number"] <= _MAX_NUMBER:
        raise ValueError("its numbers are impossible")
    return Waiter(**values)


def _tenant(values: dict[str, Any]) -> TenantTime:
    if not math.isfinite(values["settled"]) or not math.isfinite(values["duration_s"]):
        raise ValueError("its numbers are impossible")
    return TenantTime(**values)


def _account(values: dict[str, Any], now_s: float, *, has_times: bool) -> AccountState:
    values["paused"] = bool(values["paused"])
    state = AccountState(**values)
    if not has_times:
        # What an operator decided outlives the machine's restart; sessions of the former boot have all ended.
        state = replace(state, drain_until_s=None if state.drain_until_s is None else math.inf)
        return replace(state, learned_at_s=now_s, foreign_at_s=_NEVER, ended_at_s=None, full_until_s=_NEVER)
    return replace(
        state,
        learned_at_s=min(_finite(state.learned_at_s, now_s), now_s),
        foreign_at_s=min(state.foreign_at_s, now_s),
        full_until_s=min(state.full_until_s, now_s + _MAX_SETTLE_S),
    )


def _finite(value: float, default: float) -> float:
    return value if math.isfinite(value) else default


def _between(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)
