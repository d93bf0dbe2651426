"""Registry in an SQLite file: for all processes of one machine, and through a crash of any of them.

Writes go through the operating system's cache, so a killed process loses nothing that it wrote; a machine that
loses power may lose the last moments, and with them every connection that they were about.

The event loop touches no file. `journal_*` write to the memory-mapped journal of this process (see `journal.py`),
from which every reader completes the rows of the process; the tables are written and read on threads.
"""

import contextlib
import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import orjson
import structlog

from liveavatar_gateway.core.errors import OwnerMoved, RegistryUnavailable
from liveavatar_gateway.registry import pool_tables, upstream_tables, usage_tables
from liveavatar_gateway.registry.base import Fence, HandleHash, LeaseConfig, Payload, StoredSession
from liveavatar_gateway.registry.clock import MachineClock
from liveavatar_gateway.registry.database import BUSY_MS, Database, begin, unavailable
from liveavatar_gateway.registry.fault_log import FaultLog
from liveavatar_gateway.registry.journal import Journal, JournalFolder
from liveavatar_gateway.registry.journal_buffer import MAX_UTTERANCES, JournalBuffer, Journaled, pack_handles
from liveavatar_gateway.registry.liveness import ProcessLock
from liveavatar_gateway.registry.pool import PoolChange
from liveavatar_gateway.registry.processes import Processes
from liveavatar_gateway.registry.rows import MAX_NUMBER, RowReader, access_context
from liveavatar_gateway.registry.schema import DISOWN, upgrade
from liveavatar_gateway.registry.sealing import Sealer
from liveavatar_gateway.registry.usage import NO_LIMITS, Charge, Charged, Limits, Spent, UsageKey, UsageRow

_Result = TypeVar("_Result")

_log = structlog.get_logger(__name__)

_MAX_QUARANTINED: Final = 1000

_AMONG: Final = "IN (SELECT value FROM json_each(?))"
"""Condition on an account; its value is a JSON array of names."""

_INSERT: Final = """
    INSERT INTO sessions (
        session_id, account, tenant, owner, epoch, payload, request_id, saved_boot_id, saved_mono_s)
    VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?)"""
_NEWEST_OF_REQUEST: Final = f"""
    SELECT session_id FROM sessions WHERE account {_AMONG} AND tenant = ? AND request_id = ? AND request_id <> ''
    ORDER BY number DESC LIMIT 1"""  # noqa: S608 - ours
_SAVE_UTTERANCE: Final = """
    INSERT INTO utterances (session_id, utterance_id, payload) VALUES (?, ?, ?)
    ON CONFLICT (session_id, utterance_id) DO UPDATE SET payload = excluded.payload"""
_SAVE_ACCESS: Final = """
    UPDATE upstreams SET access = ? WHERE upstream_session_id = ? AND session_id = (
        SELECT session_id FROM sessions WHERE session_id = ? AND owner = ? AND epoch = ?)"""
_REMOVE_OLD_UTTERANCES: Final = """
    DELETE FROM utterances WHERE session_id = ?1 AND rowid <= (
        SELECT rowid FROM utterances WHERE session_id = ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2)"""
_CLAIM: Final = """
    UPDATE sessions SET owner = ?, epoch = ?
    WHERE session_id = ? AND owner = ? AND epoch = ? AND NOT ended"""
_QUARANTINE: Final = """
    INSERT INTO quarantine (session_id, account, put_aside_at, reason, epoch, sequence, payload, handles)
    SELECT session_id, account, ?, ?, epoch, sequence, payload, handles FROM sessions WHERE session_id = ?"""
_REMOVE_OLD_QUARANTINED: Final = """
    DELETE FROM quarantine WHERE rowid <= (SELECT max(rowid) FROM quarantine) - ?"""
_REQUEST_END: Final = f"""
    UPDATE sessions SET end_request = ?
    WHERE account {_AMONG} AND session_id = ? AND NOT ended AND end_request ISNULL"""  # noqa: S608 - ours
_SEALED_HEADS: Final = """
    SELECT substr(access, 1, 16) FROM upstreams JOIN sessions USING (session_id)
    WHERE sessions.account = ? AND length(access) > 0"""
_SESSION_IDS: Final = f"""
    SELECT upstream_session_id, session_id FROM upstreams JOIN sessions USING (session_id)
    WHERE sessions.account {_AMONG}"""  # noqa: S608 - ours
_OTHER_KEY_HINT: Final = (
    "check GATEWAY_REGISTRY_KEY_FILE or GATEWAY_REGISTRY_KEY: these sessions were stored with another key, and "
    "can only be ended"
)
_PAGE: Final = f"""
    WHERE account {_AMONG} AND number < coalesce((SELECT number FROM sessions WHERE session_id = ?), ?)
    ORDER BY number DESC LIMIT ?"""  # noqa: S608 - ours


_HAS_UPSTREAM_ACCOUNTS: Final = "SELECT 1 FROM pragma_table_info('upstreams') WHERE name = 'account'"
_LIVING_BY_ACCOUNT: Final = "SELECT account, owner, count(*) FROM sessions WHERE NOT ended GROUP BY account, owner"
_LIVING_BY_UPSTREAM_ACCOUNT: Final = """
    SELECT coalesce(nullif(upstreams.account, ''), sessions.account) AS runs_on, owner,
        count(DISTINCT sessions.session_id)
    FROM sessions LEFT JOIN upstreams USING (session_id) WHERE NOT ended GROUP BY runs_on, owner"""


class SqliteRegistry:
    """Registry in a file that all processes of one machine share; see `Registry`."""

    def __init__(
        self,
        path: Path,
        sealer: Sealer,
        config: LeaseConfig,
        *,
        account: str,
        retired_accounts: Sequence[str] = (),
        clock: MachineClock | None = None,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            path: The database; made when missing, with access for its owner alone.
            sealer: Seals secrets.
            config: Lifetime of leases.
            account: Account of these sessions; another account's sessions in the same file are not touched.
            retired_accounts: Accounts of former keys, whose orphans are found too.
            clock: Clock that all processes of the machine share.
        """
        self.owner = str(uuid.uuid4())
        self.account = account
        self._known: frozenset[str]
        self.use_accounts((account,), retired_accounts)
        self._sealer = sealer
        self._clock = clock or MachineClock()
        self._database = Database(path)
        self._lock = ProcessLock(path)
        self._journals = JournalFolder(path)
        faults = FaultLog()
        self._buffer = JournalBuffer(faults, self._database.run_beside)
        self._rows = RowReader(config, self._clock, sealer, self._journals, faults)
        self._processes = Processes(self.owner, config, self._clock, self._lock, self._journals)
        self._pool = pool_tables.PoolTables(self.owner, self._clock, faults)

    # --- this process

    async def __aenter__(self) -> Self:
        try:
            await self._database.open(self._prepare)
        except BaseException:
            self._buffer.close(keep=False)
            self._lock.release(self.owner)
            await self._database.close()
            raise
        return self

    def _prepare(self, connection: sqlite3.Connection) -> None:
        try:
            # Before the journal is made: others remove journals of processes that they do not see alive.
            self._lock.acquire(self.owner)
        except OSError as error:
            # Others then judge this process by its lease alone.
            _log.warning("registry.no_locks", error=str(error))
        journal = Journal(self._journals.path(self.owner))
        self._buffer.attach(journal)
        journal.open()
        upgrade(connection, str(self._database.path))
        self._report_other_key(connection)
        self._processes.renew(connection, "")

    def _report_other_key(self, connection: sqlite3.Connection) -> None:
        """Log the number of values that another key sealed: a mistyped path of the key makes a new one."""
        heads = connection.execute(_SEALED_HEADS, (self.account,))
        if count := sum(self._sealer.has_other_key(head) for (head,) in heads):
            _log.error("registry.other_key", rows=count, hint=_OTHER_KEY_HINT)

    async def __aexit__(self, *exc_info: object) -> None:
        unsaved = await self._buffer.settle()
        saved = False
        try:
            await self._database.write(lambda connection: self._save_all(connection, unsaved))
            saved = True
        except RegistryUnavailable as error:
            _log.warning("registry.left_in_journal", sessions=len(unsaved), error=error.detail)
        with contextlib.suppress(RegistryUnavailable):
            await self._database.write(self._leave)
        # The next owner reads from the journal what could not be written.
        self._buffer.close(keep=not saved)
        await self._database.close()

    def _leave(self, connection: sqlite3.Connection) -> None:
        try:
            self._processes.leave(connection)
        finally:
            self._lock.release(self.owner)

    def _save_all(self, connection: sqlite3.Connection, unsaved: Sequence[Journaled]) -> None:
        for values in unsaved:
            with contextlib.suppress(OwnerMoved), begin(connection):
                self._save_journaled(connection, values)

    async def renew(self, address: str) -> Mapping[str, int]:
        def work(connection: sqlite3.Connection) -> dict[str, int]:
            self._database.require_file()
            self._processes.renew(connection, address)
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            owned = "SELECT session_id, epoch FROM sessions WHERE owner = ? AND NOT ended"
            return dict(connection.execute(owned, (self.owner,)).fetchall())

        return await self._database.write(work)

    async def end_requests(self) -> Mapping[str, str]:
        def work(connection: sqlite3.Connection) -> dict[str, str]:
            requested = (
                "SELECT session_id, end_request FROM sessions "
                "WHERE owner = ? AND NOT ended AND end_request NOTNULL"
            )
            return dict(connection.execute(requested, (self.owner,)).fetchall())

        return await self._database.write(work)

    # --- its sessions

    async def create(self, session_id: str, payload: Payload, *, tenant: str = "") -> Fence:
        insert = self._insertion(session_id, payload, tenant, "")
        return await self._database.write(insert)

    async def reserve(
        self, session_id: str, payload: Payload, *, tenant: str, request_id: str, instead_of: str = ""
    ) -> Fence | None:
        insert = self._insertion(session_id, payload, tenant, request_id)

        def work(connection: sqlite3.Connection) -> Fence | None:
            newest = connection.execute(_NEWEST_OF_REQUEST, (self._own, tenant, request_id)).fetchone()
            return insert(connection) if newest is None or newest[0] == instead_of else None

        return await self._database.transact(work)

    def _insertion(
        self, session_id: str, payload: Payload, tenant: str, request_id: str
    ) -> Callable[[sqlite3.Connection], Fence]:
        packed, *saved = self._saved_now(payload)
        values = (session_id, self.account, tenant, self.owner, packed, request_id, *saved)

        def work(connection: sqlite3.Connection) -> Fence:
            self._database.require_file()
            connection.execute(_INSERT, values)
            return Fence(session_id, 1)

        return work

    def _saved_now(self, payload: Payload) -> tuple[bytes, str, float]:
        """Return a payload and the time to which its durations refer, which is not the later time of the write."""
        return orjson.dumps(payload), self._clock.boot_id, self._clock.now_s()

    async def save(self, fence: Fence, payload: Payload) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_REMOVE_OLD_UTTERANCES, (fence.session_id, MAX_UTTERANCES))

        await self._save(fence, payload, work)

    async def finish(self, fence: Fence, payload: Payload, *, retention_s: float) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            running = connection.execute("SELECT 1 FROM upstreams WHERE session_id = ?", (fence.session_id,))
            if running.fetchone() is not None:
                return False
            until = (self._clock.boot_id, self._clock.now_s() + retention_s)
            self._change(connection, fence, "ended = 1, kept_boot_id = ?, kept_until_mono_s = ?", *until)
            connection.execute("DELETE FROM utterances WHERE session_id = ?", (fence.session_id,))
            return True

        ended = await self._save(fence, payload, work)
        if ended:
            self._buffer.discard(fence)
        return ended

    async def _save(
        self, fence: Fence, payload: Payload, then: Callable[[sqlite3.Connection], _Result]
    ) -> _Result:
        """Save a payload with the journaled values, which stay in the journal until that has worked."""
        values = self._buffer.of(fence)
        written = values.copy()
        saved = self._saved_now(payload)

        def work(connection: sqlite3.Connection) -> _Result:
            self._change(connection, fence, "payload = ?, saved_boot_id = ?, saved_mono_s = ?", *saved)
            self._save_journaled(connection, written)
            return then(connection)

        try:
            result = await self._database.transact(work)
        except OwnerMoved:
            self._buffer.discard(fence)
            raise
        self._buffer.saved(values, written)
        return result

    def _save_journaled(self, connection: sqlite3.Connection, values: Journaled) -> None:
        """Write journaled values within a transaction; the fence is checked if there are any."""
        fence = values.fence
        if values.sequence is not None:
            self._change(connection, fence, "sequence = ?", values.sequence)
        if values.handles is not None:
            self._change(connection, fence, "handles = ?", orjson.dumps(pack_handles(values.handles)))
        if values.utterances:
            self._change(connection, fence, "epoch = epoch")
            connection.executemany(
                _SAVE_UTTERANCE,
                [(fence.session_id, name, orjson.dumps(payload)) for name, payload in values.utterances.items()],
            )

    async def add_upstream(
        self, fence: Fence, upstream_session_id: str, *, account: str = "", permit_id: str = ""
    ) -> None:
        def work(connection: sqlite3.Connection) -> None:
            runs_on = account or self.account
            upstream_tables.add(connection, self.owner, fence, upstream_session_id, account=runs_on)
            pool_tables.link(connection, permit_id, upstream_session_id)

        await self._database.transact(work)

    async def move_upstream(self, source: Fence, target: Fence, upstream_session_id: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            upstream_tables.move(
                connection, self._sealer, self.owner, upstream_session_id, source=source, target=target
            )

        await self._database.transact(work)

    async def save_access(self, fence: Fence, upstream_session_id: str, access: Payload) -> None:
        def work(connection: sqlite3.Connection) -> None:
            context = access_context(fence.session_id, upstream_session_id)
            sealed = self._sealer.seal(orjson.dumps(access), context=context)
            self._fenced(connection, _SAVE_ACCESS, (sealed, upstream_session_id), fence)

        await self._database.write(work)

    async def drop_upstream(self, upstream_session_id: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM upstreams WHERE upstream_session_id = ?", (upstream_session_id,))

        await self._database.write(work)

    def _change(self, connection: sqlite3.Connection, fence: Fence, assignments: str, *values: Any) -> None:
        statement = f"UPDATE sessions SET {assignments} WHERE session_id = ? AND owner = ? AND epoch = ?"  # noqa: S608 - ours
        self._fenced(connection, statement, values, fence)

    def _fenced(self, connection: sqlite3.Connection, statement: str, values: Sequence[Any], fence: Fence) -> None:
        bound = (*values, fence.session_id, self.owner, fence.epoch)
        if connection.execute(statement, bound).rowcount == 0:
            raise OwnerMoved(fence.session_id)

    # --- the journal: on the event loop, in memory

    def journal_sequence(self, fence: Fence, sequence: int) -> None:
        self._buffer.sequence(fence, sequence)

    def journal_utterance(self, fence: Fence, utterance_id: str, payload: Payload) -> None:
        self._buffer.utterance(fence, utterance_id, payload)

    def journal_handles(self, fence: Fence, handles: Sequence[HandleHash]) -> None:
        self._buffer.handles(fence, handles)

    def discard_journal(self, fence: Fence) -> None:
        self._buffer.discard(fence)

    # --- sessions of others

    async def _find(self, condition: str, *values: Any) -> Sequence[StoredSession]:
        return await self._database.read(lambda connection: self._rows.read(connection, condition, *values))

    async def find(self, session_id: str) -> StoredSession | None:
        found = await self._find(f"WHERE account {_AMONG} AND session_id = ?", self._own, session_id)
        return found[0] if found else None

    async def find_request(self, request_id: str, *, tenant: str) -> StoredSession | None:
        # The index holds no empty ids, and serves only questions that exclude them too.
        condition = (
            f"WHERE account {_AMONG} AND tenant = ? AND request_id = ? AND request_id <> '' "
            "ORDER BY number DESC LIMIT 1"
        )
        found = await self._find(condition, self._own, tenant, request_id)
        return found[0] if found else None

    async def page(self, after: str, size: int) -> Sequence[StoredSession]:
        return await self._find(_PAGE, self._own, after, 1 << 62, size)

    async def is_abandoned(self, stored: StoredSession) -> bool:
        if stored.ended or stored.owner == self.owner:
            return False
        return await self._database.read(lambda connection: self._processes.is_dead(connection, stored.owner))

    async def orphans(self) -> Sequence[StoredSession]:
        known, names = self._known, _json(self._known)

        def work(connection: sqlite3.Connection) -> list[StoredSession]:
            owners = connection.execute(
                f"SELECT DISTINCT owner FROM sessions WHERE account {_AMONG} AND NOT ended AND owner <> ?",  # noqa: S608 - ours
                (names, self.owner),
            ).fetchall()
            found: list[StoredSession] = []
            for owner in [owner for (owner,) in owners if self._processes.is_dead(connection, owner)]:
                condition = f"WHERE account {_AMONG} AND NOT ended AND owner = ? ORDER BY number"
                found += self._rows.read(connection, condition, names, owner)
            return [stored for stored in found if stored.runs_on(known)]

        return await self._database.read(work)

    async def other_accounts(self) -> Mapping[str, int]:
        return await self._database.read(self._count_others)

    def use_accounts(self, own: Sequence[str], retired: Sequence[str] = ()) -> None:
        self._own = _json((self.account, *own))
        self._known = frozenset((self.account, *own, *retired))

    def read_other_accounts(self) -> Mapping[str, int]:
        """Return the same as `other_accounts` without joining the registry: writes nothing and makes no file.

        Raises:
            RegistryUnavailable: the file cannot be read.
        """
        path = self._database.path
        if not path.exists():
            return {}
        address = f"{path.resolve().as_uri()}?mode=ro"
        with (
            unavailable(path),
            contextlib.closing(sqlite3.connect(address, uri=True, timeout=BUSY_MS / 1000)) as connection,
        ):
            return self._count_others(connection)

    def _count_others(self, connection: sqlite3.Connection) -> Mapping[str, int]:
        # A check of the configuration also reads files that an earlier version wrote.
        has_accounts = connection.execute(_HAS_UPSTREAM_ACCOUNTS).fetchone() is not None
        living = _LIVING_BY_UPSTREAM_ACCOUNT if has_accounts else _LIVING_BY_ACCOUNT
        orphans: Counter[str] = Counter()
        for account, owner, count in connection.execute(living).fetchall():
            if account not in self._known and self._processes.is_dead(connection, owner):
                orphans[account] += count
        return orphans

    async def session_ids(self, upstream_session_ids: Sequence[str]) -> Mapping[str, str]:
        def work(connection: sqlite3.Connection) -> dict[str, str]:
            known = connection.execute(_SESSION_IDS, (self._own,))
            asked = frozenset(upstream_session_ids)
            return {upstream_id: session_id for upstream_id, session_id in known if upstream_id in asked}

        return await self._database.read(work)

    async def claim(self, stored: StoredSession) -> Fence | None:
        session_id, former = stored.session_id, stored.epoch
        fence = Fence(session_id, former + 1 if 0 < former < MAX_NUMBER else 1)

        def work(connection: sqlite3.Connection) -> Fence | None:
            # Before the owner in the table changes: its latest values are in its journal alone.
            entries = self._journals.read(stored.owner).get(session_id, ())
            values = (self.owner, fence.epoch, session_id, stored.owner, former)
            if not connection.execute(_CLAIM, values).rowcount:
                return None
            self._save_journaled(connection, Journaled.read(entries, former, fence))
            return fence

        return await self._database.transact(work)

    async def quarantine(self, fence: Fence, reason: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            self._change(connection, fence, "epoch = epoch")
            now = datetime.now(UTC).isoformat(timespec="seconds")
            connection.execute(_QUARANTINE, (now, reason, fence.session_id))
            self._change(connection, fence, "payload = ?, handles = ?, sequence = 0", b"{}", b"[]")
            connection.execute("DELETE FROM utterances WHERE session_id = ?", (fence.session_id,))
            connection.execute(_REMOVE_OLD_QUARANTINED, (_MAX_QUARANTINED,))

        await self._database.transact(work)

    async def request_end(self, session_id: str, reason: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_REQUEST_END, (reason, self._own, session_id))

        await self._database.write(work)

    async def purge(self) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(DISOWN)
            connection.execute(
                "DELETE FROM sessions WHERE ended AND (kept_boot_id <> ? OR kept_until_mono_s < ?)",
                (self._clock.boot_id, self._clock.now_s()),
            )
            self._processes.purge(connection)

        await self._database.write(work)

    # --- permits and queue

    async def pool(self, change: PoolChange[_Result]) -> tuple[_Result, int]:
        def work(connection: sqlite3.Connection) -> tuple[_Result, int]:
            self._database.require_file()
            try:
                with begin(connection):
                    return self._pool.change(
                        connection,
                        change,
                        is_dead=lambda owner: self._processes.is_dead(connection, owner),
                        is_silent=lambda owner: self._processes.is_silent(connection, owner),
                    )
            except BaseException:
                self._pool.forget()
                raise

        return await self._database.write(work)

    async def pool_version(self) -> int:
        return await self._database.read(pool_tables.read_version)

    # --- usage

    async def charge(self, charge: Charge, *, limits: Limits = NO_LIMITS) -> Spent:
        def work(connection: sqlite3.Connection) -> Spent:
            self._database.require_file()
            return usage_tables.charge(connection, self._clock, charge, limits)

        return await self._database.transact(work)

    async def transfer_charge(self, charge: Charge, *, former: str) -> None:
        await self._database.transact(
            lambda connection: usage_tables.transfer(connection, self._clock, charge, former)
        )

    async def refund(self, charge_id: str) -> None:
        await self._database.transact(lambda connection: usage_tables.refund(connection, charge_id))

    async def charged(self, charge_ids: Sequence[str]) -> Mapping[str, Charged]:
        return await self._database.read(
            lambda connection: usage_tables.charged(connection, self._clock, charge_ids)
        )

    async def spent(self, tenant: str, hour: int) -> Spent:
        return await self._database.read(lambda connection: usage_tables.spent(connection, tenant, hour))

    async def usage(
        self, *, tenant: str | None, first_day: int, last_day: int, after: UsageKey, size: int
    ) -> Sequence[UsageRow]:
        return await self._database.read(
            lambda connection: usage_tables.rows(
                connection, tenant=tenant, first_day=first_day, last_day=last_day, after=after, size=size
            )
        )

    async def tidy_usage(self, hour: int) -> None:
        await self._database.transact(lambda connection: usage_tables.tidy(connection, hour))


def _json(names: Iterable[str]) -> str:
    """Return names as a JSON array, for a condition on them."""
    return orjson.dumps(list(names)).decode()
