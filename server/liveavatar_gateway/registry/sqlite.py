"""The registry in an SQLite file: for all processes of one machine, and through a crash of any of them.

Writes go through the operating system's cache, so a killed process loses nothing that it wrote; a machine that
loses power may lose the last moments, and with them every connection that they were about.

The event loop touches no file. `note_*` write to the memory-mapped journal of this process (see `journal.py`),
from which every reader completes the rows of the process; one thread writes the tables and one reads them, so that
a lookup does not wait behind a write that waits for somebody else's lock.
"""

import asyncio
import contextlib
import math
import os
import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import orjson
import structlog

from liveavatar_gateway.core.errors import OwnerMoved, RegistryUnavailable
from liveavatar_gateway.registry.base import Fence, HandleHash, LeaseConfig, Payload, StoredSession, Upstream
from liveavatar_gateway.registry.clock import MachineClock
from liveavatar_gateway.registry.journal import HANDLES, SEQUENCE, UTTERANCE, Entry, Journal, Journals
from liveavatar_gateway.registry.lease import is_dead
from liveavatar_gateway.registry.liveness import ProcessLock
from liveavatar_gateway.registry.schema import SCHEMA, UPGRADES, VERSION
from liveavatar_gateway.registry.sealing import Sealer, Unopenable

_Result = TypeVar("_Result")
_Kind = TypeVar("_Kind")

_log = structlog.get_logger(__name__)

_BUSY_MS: Final = 3000
"""Longest wait for another program's write, on a thread. What was to be written is then written later."""
_MAX_NUMBER: Final = 1 << 53
"""Above any sequence number or epoch that a gateway counts up to."""
_MAX_COMPLAINTS: Final = 1000
_KEPT_QUARANTINED: Final = 1000
_KEPT_UTTERANCES: Final = 320
"""Per session, ended ones among them: more than a session remembers (`SpeechConfig.remembered_utterances`)."""

_SAVE_UTTERANCE: Final = """
    INSERT INTO utterances (session_id, utterance_id, facts) VALUES (?, ?, ?)
    ON CONFLICT (session_id, utterance_id) DO UPDATE SET facts = excluded.facts"""
_ADD_UPSTREAM: Final = """
    INSERT INTO upstreams (upstream_session_id, session_id)
    SELECT ?, session_id FROM sessions WHERE session_id = ? AND owner = ? AND epoch = ?"""
_SAVE_ACCESS: Final = """
    UPDATE upstreams SET access = ? WHERE upstream_session_id = ? AND session_id = (
        SELECT session_id FROM sessions WHERE session_id = ? AND owner = ? AND epoch = ?)"""
_FORGET_OLD_UTTERANCES: Final = """
    DELETE FROM utterances WHERE session_id = ?1 AND rowid <= (
        SELECT rowid FROM utterances WHERE session_id = ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2)"""
_ROWS: Final = """
    SELECT session_id, owner, epoch, ended, sequence, sessions.facts, handles, boot_id, until_mono_s, address,
        end_wanted, account, saved_boot_id, saved_mono_s
    FROM sessions LEFT JOIN processes USING (owner)"""
_DISOWN: Final = "UPDATE sessions SET owner = '' WHERE NOT ended AND owner GLOB '*[^0-9A-Za-z-]*'"
"""Makes sessions of damaged owners those of nobody: a name that is no UTF-8 is read as another, which has none."""
_QUARANTINE: Final = """
    INSERT INTO quarantine (session_id, account, put_aside_at, reason, epoch, sequence, facts, handles)
    SELECT session_id, account, ?, ?, epoch, sequence, facts, handles FROM sessions WHERE session_id = ?"""


@dataclass(slots=True)
class _Notes:
    """What was noted of a session and is not in the table yet."""

    fence: Fence
    sequence: int | None = None
    handles: tuple[HandleHash, ...] | None = None
    utterances: dict[str, Payload] = field(default_factory=dict)

    def copy(self) -> "_Notes":
        """What a write takes along; what is noted meanwhile is not in it."""
        return _Notes(self.fence, self.sequence, self.handles, dict(self.utterances))


class SqliteRegistry:
    """See `Registry`."""

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
            path: The database; made when it is not there, readable for its owner alone.
            sealer: Keeps secrets.
            config: How long leases last.
            account: Whose sessions these are: another account's in the same file are not touched.
            retired_accounts: Names under keys that were used before; orphans made with those are found too.
            clock: Clock that all processes of the machine share.
        """
        self.owner = str(uuid.uuid4())
        self._path = path
        self._sealer = sealer
        self._config = config
        self.account = account
        self._orphans_of = (account, *retired_accounts)
        self._clock = clock or MachineClock()
        self._witness = ProcessLock(path)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="registry-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="registry-reader")
        self._writing: sqlite3.Connection
        self._reading: sqlite3.Connection
        self._file_id: tuple[int, int] | None = None
        self._journals = Journals(path)
        self._journal: Journal | None = None
        self._growing: asyncio.Future[Any] | None = None
        self._notes: dict[str, _Notes] = {}
        self._complaints: set[tuple[str, str]] = set()

    # --- this process

    async def __aenter__(self) -> Self:
        await self._write(self._open)
        return self

    def _open(self) -> None:
        try:
            # Before SQLite makes it with the permissions of everyone; its companions get those of the file.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise self._unavailable(error) from error
        try:
            # Before the journal is made: others remove journals of processes that they do not see alive.
            self._witness.hold(self.owner)
        except OSError as error:
            # Others then judge this process by its lease alone.
            _log.warning("registry.no_locks", error=str(error))
        journal = Journal(self._journals.path(self.owner))
        try:
            journal.open()
            self._journal = journal
            self._writing = self._connect()
            self._prepare(self._writing)
            self._reading = self._connect()
            self._file_id = _file_id(self._path)
            self._write_lease("")
        except BaseException as error:
            journal.close(keep=False)
            self._journal = None
            self._witness.release(self.owner)
            if isinstance(error, OSError):
                raise self._unavailable(error) from error
            raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False
        )
        # One text that is no UTF-8 must not fail the read of all rows.
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        with _transaction(connection):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, *UPGRADES, VERSION):
                raise RegistryUnavailable(
                    f"{self._path} was made by another version of the gateway (schema {version}, this is "
                    f"{VERSION}); give this one a file of its own with GATEWAY_REGISTRY_FILE",
                    facts={"schema": version},
                )
            for statement in SCHEMA if version == 0 else ():
                connection.execute(statement)
            for older in range(version or VERSION, VERSION):
                for statement in UPGRADES[older]:
                    connection.execute(statement)
            if version != VERSION:
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute(_DISOWN)

    async def __aexit__(self, *exc_info: object) -> None:
        if self._growing is not None:
            await asyncio.wait([self._growing])
        left = [notes.copy() for notes in self._notes.values()]
        saved = False
        try:
            await self._write(lambda: self._save_rest(left))
            saved = True
        except RegistryUnavailable as error:
            _log.warning("registry.left_in_journal", sessions=len(left), error=error.metadata.get("error", ""))
        with contextlib.suppress(RegistryUnavailable):
            await self._write(self._leave)
        if self._journal is not None:
            # What could not be written is read from there by whoever goes on.
            self._journal.close(keep=not saved)
            self._journal = None
        self._writer.shutdown()
        self._reader.shutdown()

    def _save_rest(self, left: Sequence[_Notes]) -> None:
        for notes in left:
            with contextlib.suppress(OwnerMoved):
                self._transact(lambda notes=notes: self._save_notes(notes))  # type: ignore[misc]

    def _leave(self) -> None:
        try:
            self._writing.execute("DELETE FROM processes WHERE owner = ?", (self.owner,))
        finally:
            self._witness.release(self.owner)
            self._writing.close()
            self._reading.close()

    async def renew(self, address: str) -> Mapping[str, int]:
        def work() -> dict[str, int]:
            self._write_lease(address)
            self._writing.execute("PRAGMA wal_checkpoint(PASSIVE)")
            mine = "SELECT session_id, epoch FROM sessions WHERE owner = ? AND NOT ended"
            return dict(self._writing.execute(mine, (self.owner,)).fetchall())

        return await self._write(work)

    async def wanted_ends(self) -> Mapping[str, str]:
        def work() -> dict[str, str]:
            wanted = (
                "SELECT session_id, end_wanted FROM sessions WHERE owner = ? AND NOT ended AND end_wanted NOTNULL"
            )
            return dict(self._writing.execute(wanted, (self.owner,)).fetchall())

        return await self._write(work)

    def _require_file(self) -> None:
        """Refuse to go on with a file that is not where it was: nobody would find again what is written to it.

        Raises:
            RegistryUnavailable: it was removed or replaced.
        """
        if _file_id(self._path) != self._file_id:
            raise RegistryUnavailable(
                f"the registry {self._path} was removed or replaced while the gateway ran; restart the gateway",
                facts={"error": "removed or replaced"},
            )

    def _write_lease(self, address: str) -> None:
        self._require_file()
        self._writing.execute(
            "INSERT INTO processes (owner, boot_id, until_mono_s, address, pid) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (owner) DO UPDATE SET until_mono_s = excluded.until_mono_s, address = excluded.address",
            (self.owner, self._clock.boot_id, self._clock.now_s() + self._config.ttl_s, address, os.getpid()),
        )

    # --- its sessions

    async def create(self, session_id: str, facts: Payload) -> Fence:
        saved_mono_s = self._clock.now_s()
        return await self._write(lambda: self._insert(session_id, facts, "", saved_mono_s))

    async def reserve(
        self, session_id: str, facts: Payload, *, request_id: str, instead_of: str = ""
    ) -> Fence | None:
        saved_mono_s = self._clock.now_s()

        def work() -> Fence | None:
            newest = self._writing.execute(
                "SELECT session_id FROM sessions WHERE account = ? AND request_id = ? AND request_id <> '' "
                "ORDER BY number DESC LIMIT 1",
                (self.account, request_id),
            ).fetchone()
            if newest is not None and newest[0] != instead_of:
                return None
            return self._insert(session_id, facts, request_id, saved_mono_s)

        return await self._write(lambda: self._transact(work))

    def _insert(self, session_id: str, facts: Payload, request_id: str, saved_mono_s: float) -> Fence:
        self._require_file()
        saved = (self._clock.boot_id, saved_mono_s)
        self._writing.execute(
            "INSERT INTO sessions "
            "(session_id, account, owner, epoch, facts, request_id, saved_boot_id, saved_mono_s) "
            "VALUES (?, ?, ?, 1, ?, ?, ?, ?)",
            (session_id, self.account, self.owner, orjson.dumps(facts), request_id, *saved),
        )
        return Fence(session_id, 1)

    async def save(self, fence: Fence, facts: Payload) -> None:
        notes = self._noted(fence)
        taken = notes.copy()

        # Durations in the facts are as of now, however long the write waits for its turn.
        saved_mono_s = self._clock.now_s()

        def work() -> None:
            self._save_facts(fence, facts, saved_mono_s)
            self._save_notes(taken)
            self._writing.execute(_FORGET_OLD_UTTERANCES, (fence.session_id, _KEPT_UTTERANCES))

        await self._write_noted(work, notes, taken)

    async def add_upstream(self, fence: Fence, upstream_session_id: str) -> None:
        def work() -> None:
            self._fenced(_ADD_UPSTREAM, (upstream_session_id,), fence)

        await self._write(work)

    async def save_access(self, fence: Fence, upstream_session_id: str, access: Payload) -> None:
        def work() -> None:
            place = _place(fence.session_id, upstream_session_id)
            sealed = self._sealer.seal(orjson.dumps(access), place=place)
            self._fenced(_SAVE_ACCESS, (sealed, upstream_session_id), fence)

        await self._write(work)

    async def drop_upstream(self, upstream_session_id: str) -> None:
        def work() -> None:
            self._writing.execute("DELETE FROM upstreams WHERE upstream_session_id = ?", (upstream_session_id,))

        await self._write(work)

    async def finish(self, fence: Fence, facts: Payload, *, keep_s: float) -> bool:
        notes = self._noted(fence)
        taken = notes.copy()

        saved_mono_s = self._clock.now_s()

        def work() -> bool:
            connection = self._writing
            self._save_facts(fence, facts, saved_mono_s)
            self._save_notes(taken)
            left = connection.execute("SELECT 1 FROM upstreams WHERE session_id = ?", (fence.session_id,))
            if left.fetchone() is not None:
                return False
            until = (self._clock.boot_id, self._clock.now_s() + keep_s)
            self._change(fence, "ended = 1, kept_boot_id = ?, kept_until_mono_s = ?", *until)
            connection.execute("DELETE FROM utterances WHERE session_id = ?", (fence.session_id,))
            return True

        over = await self._write_noted(work, notes, taken)
        if over:
            self.forget_notes(fence)
        return over

    # --- notes: on the event loop, in memory

    def note_sequence(self, fence: Fence, sequence: int) -> None:
        self._noted(fence).sequence = sequence
        self._record(Entry(fence.session_id, fence.epoch, SEQUENCE, "", sequence))

    def note_utterance(self, fence: Fence, utterance_id: str, facts: Payload) -> None:
        utterances = self._noted(fence).utterances
        utterances[utterance_id] = facts
        if len(utterances) > _KEPT_UTTERANCES:
            oldest = next(iter(utterances))
            del utterances[oldest]
            if self._journal is not None:
                self._journal.forget(fence.session_id, UTTERANCE, oldest)
        self._record(Entry(fence.session_id, fence.epoch, UTTERANCE, utterance_id, facts))

    def note_handles(self, fence: Fence, handles: Sequence[HandleHash]) -> None:
        self._noted(fence).handles = tuple(handles)
        self._record(Entry(fence.session_id, fence.epoch, HANDLES, "", _packed(handles)))

    def _noted(self, fence: Fence) -> _Notes:
        notes = self._notes.get(fence.session_id)
        if notes is None or notes.fence.epoch < fence.epoch:
            if notes is not None:
                self.forget_notes(notes.fence)
            notes = self._notes[fence.session_id] = _Notes(fence)
        if notes.fence.epoch > fence.epoch:
            # Of an owner that was this process once: nobody will ask for these.
            return _Notes(fence)
        return notes

    def _record(self, entry: Entry) -> None:
        journal = self._journal
        if journal is None or self._notes[entry.session_id].fence.epoch != entry.epoch:
            return
        if not journal.write(entry):
            self._complain(entry.session_id, "registry.journal_full", what=entry.kind)
        if journal.wants_to_grow and self._growing is None:
            loop = asyncio.get_running_loop()
            self._growing = loop.run_in_executor(self._reader, journal.grow)
            self._growing.add_done_callback(self._grown)

    def _grown(self, growing: "asyncio.Future[Any]") -> None:
        self._growing = None
        if growing.cancelled() or self._journal is None:
            return
        if (error := growing.exception()) is not None:
            self._complain("", "registry.journal_full", what=str(error))
        else:
            self._journal.add(growing.result())

    def _save_notes(self, notes: _Notes) -> None:
        """Write what was noted, within a transaction; the fence is checked where anything was."""
        fence = notes.fence
        if notes.sequence is not None:
            self._change(fence, "sequence = ?", notes.sequence)
        if notes.handles is not None:
            self._change(fence, "handles = ?", orjson.dumps(_packed(notes.handles)))
        if notes.utterances:
            self._change(fence, "epoch = epoch")
            self._writing.executemany(
                _SAVE_UTTERANCE,
                [(fence.session_id, name, orjson.dumps(facts)) for name, facts in notes.utterances.items()],
            )

    async def _write_noted(self, work: Callable[[], _Result], notes: _Notes, taken: _Notes) -> _Result:
        """Write together with notes; they stay noted until that has worked."""
        try:
            result = await self._write(lambda: self._transact(work))
        except OwnerMoved:
            self.forget_notes(notes.fence)
            raise
        notes.sequence = None if notes.sequence == taken.sequence else notes.sequence
        notes.handles = None if notes.handles is taken.handles else notes.handles
        for name, facts in taken.utterances.items():
            if notes.utterances.get(name) is facts:
                del notes.utterances[name]
                if self._journal is not None and self._notes.get(notes.fence.session_id) is notes:
                    self._journal.forget(notes.fence.session_id, UTTERANCE, name)
        return result

    def forget_notes(self, fence: Fence) -> None:
        notes = self._notes.get(fence.session_id)
        if notes is not None and notes.fence.epoch <= fence.epoch:
            del self._notes[fence.session_id]
            if self._journal is not None:
                self._journal.forget_session(fence.session_id)

    def _save_facts(self, fence: Fence, facts: Payload, saved_mono_s: float) -> None:
        saved = (self._clock.boot_id, saved_mono_s)
        self._change(fence, "facts = ?, saved_boot_id = ?, saved_mono_s = ?", orjson.dumps(facts), *saved)

    def _change(self, fence: Fence, assignments: str, *values: Any) -> None:
        statement = f"UPDATE sessions SET {assignments} WHERE session_id = ? AND owner = ? AND epoch = ?"  # noqa: S608 - ours
        self._fenced(statement, values, fence)

    def _fenced(self, statement: str, values: Sequence[Any], fence: Fence) -> None:
        changed = self._writing.execute(statement, (*values, fence.session_id, self.owner, fence.epoch)).rowcount
        if changed == 0:
            raise OwnerMoved(fence.session_id)

    # --- sessions of others

    async def find(self, session_id: str) -> StoredSession | None:
        found = await self._read(
            lambda: self._rows(self._reading, "WHERE account = ? AND session_id = ?", self.account, session_id)
        )
        return found[0] if found else None

    async def find_request(self, request_id: str) -> StoredSession | None:
        found = await self._read(
            lambda: self._rows(
                self._reading,
                # The index holds no empty ones, and is used only where the question says that too.
                "WHERE account = ? AND request_id = ? AND request_id <> '' ORDER BY number DESC LIMIT 1",
                self.account,
                request_id,
            )
        )
        return found[0] if found else None

    async def abandoned(self, row: StoredSession) -> bool:
        if row.ended or row.owner == self.owner:
            return False
        return await self._read(lambda: self._is_dead(self._reading, row.owner))

    async def orphans(self) -> Sequence[StoredSession]:
        def work() -> list[StoredSession]:
            connection = self._reading
            mine = ", ".join("?" * len(self._orphans_of))
            owners = connection.execute(
                f"SELECT DISTINCT owner FROM sessions WHERE account IN ({mine}) AND NOT ended AND owner <> ?",  # noqa: S608 - ours
                (*self._orphans_of, self.owner),
            ).fetchall()
            dead = [owner for (owner,) in owners if self._is_dead(connection, owner)]
            rows: list[StoredSession] = []
            for owner in dead:
                rows += self._rows(
                    connection,
                    f"WHERE account IN ({mine}) AND NOT ended AND owner = ? ORDER BY number",
                    *self._orphans_of,
                    owner,
                )
            return rows

        return await self._read(work)

    async def other_accounts(self) -> Mapping[str, int]:
        return await self._read(lambda: self._count_others(self._reading))

    def look_for_others(self) -> Mapping[str, int]:
        """Count what `other_accounts` does without taking part: nothing is written, and nothing made.

        Raises:
            RegistryUnavailable: the file cannot be read.
        """
        if not self._path.exists():
            return {}
        with (
            self._translated(),
            contextlib.closing(
                sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_MS / 1000)
            ) as connection,
        ):
            return self._count_others(connection)

    def _count_others(self, connection: sqlite3.Connection) -> Mapping[str, int]:
        living = "SELECT account, owner, count(*) FROM sessions WHERE NOT ended GROUP BY account, owner"
        left: Counter[str] = Counter()
        for account, owner, count in connection.execute(living).fetchall():
            if account not in self._orphans_of and self._is_dead(connection, owner):
                left[account] += count
        return left

    def _is_dead(self, connection: sqlite3.Connection, owner: str) -> bool:
        lease = connection.execute(
            "SELECT boot_id, until_mono_s FROM processes WHERE owner = ?", (owner,)
        ).fetchone()
        return is_dead(
            None if lease is None else self._lease_left_s(*lease),
            seen_alive=self._witness.sees_alive(owner),
            grace_s=self._config.grace_s,
        )

    def _lease_left_s(self, boot_id: str, until_mono_s: float) -> float | None:
        if not self._clock.reads(boot_id):
            return None
        # An implausible number would keep the sessions of a dead process for ever.
        return until_mono_s - self._clock.now_s() if self._clock.is_plausible(until_mono_s) else -math.inf

    async def owners_of(self, upstream_session_ids: Sequence[str]) -> Mapping[str, str]:
        def work() -> dict[str, str]:
            known = self._reading.execute(
                "SELECT upstream_session_id, session_id FROM upstreams JOIN sessions USING (session_id) "
                "WHERE account = ?",
                (self.account,),
            )
            wanted = frozenset(upstream_session_ids)
            return {upstream_id: session_id for upstream_id, session_id in known if upstream_id in wanted}

        return await self._read(work)

    async def claim(self, row: StoredSession) -> Fence | None:
        epoch = row.epoch + 1 if 0 < row.epoch < _MAX_NUMBER else 1
        fence = Fence(row.session_id, epoch)

        def work() -> Fence | None:
            # Before the owner in the table changes: what it noted last is in its journal alone.
            left = self._journals.read(row.owner).get(row.session_id, ())
            taken = self._writing.execute(
                "UPDATE sessions SET owner = ?, epoch = ? WHERE session_id = ? AND owner = ? AND epoch = ? "
                "AND NOT ended",
                (self.owner, epoch, row.session_id, row.owner, row.epoch),
            ).rowcount
            if not taken:
                return None
            self._save_notes(_noted_by(left, row.epoch, fence))
            return fence

        return await self._write(lambda: self._transact(work))

    async def put_aside(self, fence: Fence, reason: str) -> None:
        def work() -> None:
            self._change(fence, "epoch = epoch")
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self._writing.execute(_QUARANTINE, (now, reason, fence.session_id))
            self._change(fence, "facts = ?, handles = ?, sequence = 0", b"{}", b"[]")
            self._writing.execute("DELETE FROM utterances WHERE session_id = ?", (fence.session_id,))
            self._writing.execute(
                "DELETE FROM quarantine WHERE rowid <= (SELECT max(rowid) FROM quarantine) - ?",
                (_KEPT_QUARANTINED,),
            )

        await self._write(lambda: self._transact(work))

    async def request_end(self, session_id: str, reason: str) -> None:
        def work() -> None:
            self._writing.execute(
                "UPDATE sessions SET end_wanted = ? "
                "WHERE account = ? AND session_id = ? AND NOT ended AND end_wanted ISNULL",
                (reason, self.account, session_id),
            )

        await self._write(work)

    async def page(self, after: str, size: int) -> Sequence[StoredSession]:
        def work() -> list[StoredSession]:
            newest = (
                "WHERE account = ? AND number < coalesce((SELECT number FROM sessions WHERE session_id = ?), ?) "
            )
            return self._rows(
                self._reading,
                newest + "ORDER BY number DESC LIMIT ?",
                self.account,
                after,
                1 << 62,
                size,
            )

        return await self._read(work)

    async def tidy(self) -> None:
        def work() -> None:
            connection = self._writing
            connection.execute(_DISOWN)
            connection.execute(
                "DELETE FROM sessions WHERE ended AND (kept_boot_id <> ? OR kept_until_mono_s < ?)",
                (self._clock.boot_id, self._clock.now_s()),
            )
            idle = connection.execute(
                "SELECT owner FROM processes WHERE owner <> ? "
                "AND NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.owner = processes.owner AND NOT ended)",
                (self.owner,),
            ).fetchall()
            for (owner,) in idle:
                if self._is_dead(connection, owner):
                    connection.execute("DELETE FROM processes WHERE owner = ?", (owner,))
                    self._witness.forget(owner)
                    self._journals.forget(owner)
            self._forget_journals()

        await self._write(work)

    def _forget_journals(self) -> None:
        """Remove journals that processes left when they could not write all of it, once nobody needs them."""
        for owner in list(self._journals.owners()):
            if owner == self.owner or self._witness.sees_alive(owner) or self._journals.is_fresh(owner):
                continue
            known = self._writing.execute(
                "SELECT 1 FROM processes WHERE owner = ?1 "
                "UNION SELECT 1 FROM sessions WHERE owner = ?1 AND NOT ended",
                (owner,),
            )
            if known.fetchone() is None:
                self._journals.forget(owner)

    def _rows(self, connection: sqlite3.Connection, condition: str, *values: Any) -> list[StoredSession]:
        # Journals first: what is taken out of one meanwhile is in the table by then.
        found = connection.execute(f"{_ROWS} {condition}", values).fetchall()
        journals = {owner: self._journals.read(owner) for owner in {columns[1] for columns in found}}
        if journals:
            found = connection.execute(f"{_ROWS} {condition}", values).fetchall()
        return [self._row(connection, columns, journals.get(columns[1], {})) for columns in found]

    def _row(
        self, connection: sqlite3.Connection, columns: Sequence[Any], journal: Mapping[str, Sequence[Entry]]
    ) -> StoredSession:
        """Read a session; what cannot be read of it is left out and named."""
        session_id, owner, epoch, ended, sequence, facts, handles, boot_id, until_mono_s, address, end_wanted = (
            columns[:11]
        )
        problems: list[str] = []
        known_facts = _parsed(facts, dict, "facts", problems)
        noted = _noted_by(journal.get(session_id, ()), epoch, Fence(session_id, epoch))
        hashes = _read_handles(handles, problems) if noted.handles is None else noted.handles
        if noted.sequence is not None:
            sequence = noted.sequence
        if not 0 <= sequence <= _MAX_NUMBER:
            problems.append(f"its last event cannot have number {sequence}")
            sequence = 0
        if not 0 < epoch <= _MAX_NUMBER:
            problems.append(f"it cannot have had {epoch} owners")
        utterances: dict[str, Payload] = {}
        for name, packed in connection.execute(
            "SELECT utterance_id, facts FROM utterances WHERE session_id = ? ORDER BY rowid", (session_id,)
        ).fetchall():
            complaints: list[str] = []
            kept = _parsed(packed, dict, "facts", complaints)
            if complaints:
                self._complain(session_id, "registry.utterance_unreadable", utterance=name, reason=complaints[0])
            else:
                utterances[name] = kept
        upstreams = connection.execute(
            "SELECT upstream_session_id, access FROM upstreams WHERE session_id = ? ORDER BY rowid", (session_id,)
        ).fetchall()
        if problems:
            self._complain(session_id, "registry.row_unreadable", reason="; ".join(problems))
        return StoredSession(
            session_id=session_id,
            owner=owner,
            epoch=epoch,
            ended=bool(ended),
            sequence=sequence,
            facts=known_facts,
            utterances=tuple({**utterances, **noted.utterances}.items()),
            upstreams=tuple(Upstream(name, self._opened(session_id, name, sealed)) for name, sealed in upstreams),
            handles=hashes,
            seen_mono_s=self._comparable(boot_id, until_mono_s, -self._config.ttl_s),
            address=address or "",
            end_wanted=end_wanted or "",
            account=columns[11],
            saved_mono_s=self._comparable(*columns[12:14]),
            unreadable="; ".join(problems),
        )

    def _comparable(self, boot_id: str | None, mono_s: float | None, offset_s: float = 0.0) -> float | None:
        """Return a stored time on the caller's clock, which is the machine's; None when it cannot be compared."""
        if mono_s is None or not self._clock.reads(boot_id) or not self._clock.is_plausible(mono_s):
            return None
        return mono_s + offset_s

    def _opened(self, session_id: str, upstream_session_id: str, sealed: bytes | None) -> Payload | None:
        if sealed is None:
            return None
        problems: list[str] = []
        try:
            opened = self._sealer.open(sealed, place=_place(session_id, upstream_session_id))
        except Unopenable as error:
            problems.append(str(error))
        else:
            facts = _parsed(opened, dict, "access", problems)
        if problems:
            # It can still be stopped, by its id alone.
            self._complain(session_id, "registry.unopenable", reason=problems[0])
            return None
        return facts

    # --- inside

    def _complain(self, session_id: str, event: str, **facts: Any) -> None:
        """Log a lasting fault when it is seen first: rows are read again and again."""
        if (session_id, event) not in self._complaints:
            if len(self._complaints) >= _MAX_COMPLAINTS:
                self._complaints.clear()
            self._complaints.add((session_id, event))
            _log.error(event, session=session_id, **facts)

    async def _write(self, work: Callable[[], _Result]) -> _Result:
        return await self._run(self._writer, work)

    async def _read(self, work: Callable[[], _Result]) -> _Result:
        return await self._run(self._reader, work)

    async def _run(self, thread: ThreadPoolExecutor, work: Callable[[], _Result]) -> _Result:
        """Run on a thread, to its end even when the one who waits is cancelled."""

        def translated() -> _Result:
            with self._translated():
                return work()

        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(thread, translated))

    def _transact(self, work: Callable[[], _Result]) -> _Result:
        self._writing.execute("BEGIN IMMEDIATE")
        with _transaction(self._writing):
            return work()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> RegistryUnavailable:
        return RegistryUnavailable(
            f"the registry {self._path} cannot be used: {error}; look at its disk and its permissions",
            facts={"error": str(error)},
        )


def _file_id(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another at the same path; None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what was begun, or take it back."""
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _packed(handles: Sequence[HandleHash]) -> list[tuple[str, float | None]]:
    return [(one.sha256, one.until_mono_s) for one in handles]


def _read_handles(packed: bytes, problems: list[str]) -> tuple[HandleHash, ...]:
    found = []
    for one in _parsed(packed, list, "handles", problems):
        match one:
            case [str(sha256), None | int() | float() as until_mono_s]:
                found.append(HandleHash(sha256, until_mono_s))
            case _:
                problems.append("its handles are no digests with times")
                return ()
    return tuple(found)


def _parsed(packed: bytes, kind: type[_Kind], what: str, problems: list[str]) -> _Kind:
    """Read JSON of a kind; empty, and with a word in `problems`, when it is none."""
    try:
        found = orjson.loads(packed)
    except (ValueError, TypeError) as error:
        problems.append(f"its {what} are no JSON: {error}")
        return kind()
    if not isinstance(found, kind):
        problems.append(f"its {what} are a {type(found).__name__}")
        return kind()
    return found


def _noted_by(entries: Sequence[Entry], epoch: int, fence: Fence) -> _Notes:
    """Read what an owner noted of a session under its epoch, as notes of another."""
    notes = _Notes(fence)
    for entry in entries:
        if entry.epoch != epoch:
            continue
        match entry.kind, entry.value:
            case "sequence", int(sequence):
                notes.sequence = sequence
            case "utterance", dict(facts):
                notes.utterances[entry.name] = facts
            case "handles", list(packed):
                notes.handles = _read_handles(orjson.dumps(packed), [])
            case _:
                pass
    return notes


def _place(session_id: str, upstream_session_id: str) -> str:
    return f"{session_id}/{upstream_session_id}"
