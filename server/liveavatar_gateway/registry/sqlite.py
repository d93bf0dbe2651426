"""The registry in an SQLite file: for all processes of one machine, and through a crash of any of them.

Writes go through the operating system's cache, so a killed process loses nothing that it wrote; a machine that
loses power may lose the last moments, and with them every connection that they were about. `note_*` write at once
on a connection of the event loop's own (about 20 microseconds); all else runs on one thread.
"""

import asyncio
import contextlib
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import orjson
import structlog

from liveavatar_gateway.core.errors import OwnerMoved, RegistryUnavailable
from liveavatar_gateway.registry.base import Facts, Fence, HandleHash, LeaseConfig, Row, Upstream
from liveavatar_gateway.registry.lease import Lease, is_dead, monotonic_s, this_boot
from liveavatar_gateway.registry.schema import SCHEMA, UPGRADES, VERSION
from liveavatar_gateway.registry.sealing import Sealer, Unopenable
from liveavatar_gateway.registry.witness import Witness

_Result = TypeVar("_Result")

_log = structlog.get_logger(__name__)

_LOOP_BUSY_MS: Final = 50
"""How long the event loop waits for another's write. What it wanted to note then goes with the next packet."""
_THREAD_BUSY_MS: Final = 3000
_KEPT_UTTERANCES: Final = 320
"""Per session, ended ones among them: more than a session remembers (`SpeechConfig.remembered_utterances`)."""

_NOTE_UTTERANCE: Final = """
    INSERT INTO utterances (session_id, utterance_id, facts)
    SELECT session_id, ?, ? FROM sessions WHERE session_id = ? AND owner = ? AND epoch = ?
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
        end_wanted
    FROM sessions LEFT JOIN processes USING (owner)"""


class SqliteRegistry:
    """See `Registry`."""

    def __init__(
        self,
        path: Path,
        sealer: Sealer,
        config: LeaseConfig,
        *,
        account: str,
        clock: Callable[[], float] = monotonic_s,
        boot_id: str = "",
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            path: The database; made when it is not there, readable for its owner alone.
            sealer: Keeps secrets.
            config: How long leases last.
            account: Whose sessions these are: another account's in the same file are not touched.
            clock: Monotonic seconds, the same for all processes of the machine.
            boot_id: Name of this start of the machine; found out when empty.
        """
        self.owner = str(uuid.uuid4())
        self._path = path
        self._sealer = sealer
        self._config = config
        self._account = account
        self._clock = clock
        self._boot_id = boot_id or this_boot()
        self._witness = Witness(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="registry")
        self._on_loop: sqlite3.Connection
        self._on_thread: sqlite3.Connection

    # --- this process

    async def __aenter__(self) -> Self:
        await self._run(self._open)
        return self

    def _open(self) -> None:
        try:
            # Before SQLite makes it with the permissions of everyone; its companions get those of the file.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise self._unavailable(error) from error
        self._on_thread = self._connect(_THREAD_BUSY_MS)
        self._prepare(self._on_thread)
        self._on_loop = self._connect(_LOOP_BUSY_MS)
        # A checkpoint waits for the disk; the thread does it.
        self._on_loop.execute("PRAGMA wal_autocheckpoint = 0")
        try:
            self._witness.hold(self.owner)
        except OSError as error:
            # Others then judge this process by its lease alone.
            _log.warning("registry.no_locks", error=str(error))
        self._write_lease("")

    def _connect(self, busy_ms: int) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=busy_ms / 1000, isolation_level=None, check_same_thread=False
        )
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

    async def __aexit__(self, *exc_info: object) -> None:
        with contextlib.suppress(RegistryUnavailable):
            await self._run(self._leave)
        self._thread.shutdown()

    def _leave(self) -> None:
        try:
            self._on_thread.execute("DELETE FROM processes WHERE owner = ?", (self.owner,))
        finally:
            self._witness.release(self.owner)
            self._on_loop.close()
            self._on_thread.close()

    async def renew(self, address: str) -> Mapping[str, int]:
        def work() -> dict[str, int]:
            self._write_lease(address)
            self._on_thread.execute("PRAGMA wal_checkpoint(PASSIVE)")
            mine = "SELECT session_id, epoch FROM sessions WHERE owner = ? AND NOT ended"
            return dict(self._on_thread.execute(mine, (self.owner,)).fetchall())

        return await self._run(work)

    async def wanted_ends(self) -> Mapping[str, str]:
        def work() -> dict[str, str]:
            wanted = (
                "SELECT session_id, end_wanted FROM sessions WHERE owner = ? AND NOT ended AND end_wanted NOTNULL"
            )
            return dict(self._on_thread.execute(wanted, (self.owner,)).fetchall())

        return await self._run(work)

    def _write_lease(self, address: str) -> None:
        self._on_thread.execute(
            "INSERT INTO processes (owner, boot_id, until_mono_s, address, pid) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (owner) DO UPDATE SET until_mono_s = excluded.until_mono_s, address = excluded.address",
            (self.owner, self._boot_id, self._clock() + self._config.ttl_s, address, os.getpid()),
        )

    # --- its sessions

    async def create(self, session_id: str, facts: Facts, *, request_id: str = "") -> Fence:
        def work() -> Fence:
            self._on_thread.execute(
                "INSERT INTO sessions (session_id, account, owner, epoch, facts, request_id) "
                "VALUES (?, ?, ?, 1, ?, ?)",
                (session_id, self._account, self.owner, orjson.dumps(facts), request_id),
            )
            return Fence(session_id, 1)

        return await self._run(work)

    async def save(self, fence: Fence, facts: Facts) -> None:
        def work() -> None:
            self._change(self._on_thread, fence, "facts = ?", orjson.dumps(facts))
            self._on_thread.execute(_FORGET_OLD_UTTERANCES, (fence.session_id, _KEPT_UTTERANCES))

        await self._run(work)

    async def add_upstream(self, fence: Fence, upstream_session_id: str) -> None:
        def work() -> None:
            self._fenced(self._on_thread, _ADD_UPSTREAM, (upstream_session_id,), fence)

        await self._run(work)

    async def save_access(self, fence: Fence, upstream_session_id: str, access: Facts) -> None:
        def work() -> None:
            place = _place(fence.session_id, upstream_session_id)
            sealed = self._sealer.seal(orjson.dumps(access), place=place)
            self._fenced(self._on_thread, _SAVE_ACCESS, (sealed, upstream_session_id), fence)

        await self._run(work)

    async def drop_upstream(self, upstream_session_id: str) -> None:
        def work() -> None:
            self._on_thread.execute("DELETE FROM upstreams WHERE upstream_session_id = ?", (upstream_session_id,))

        await self._run(work)

    async def finish(self, fence: Fence, facts: Facts, *, keep_s: float) -> bool:
        def work() -> bool:
            connection = self._on_thread
            connection.execute("BEGIN IMMEDIATE")
            with _transaction(connection):
                self._change(connection, fence, "facts = ?", orjson.dumps(facts))
                left = connection.execute("SELECT 1 FROM upstreams WHERE session_id = ?", (fence.session_id,))
                if left.fetchone() is not None:
                    return False
                until = (self._boot_id, self._clock() + keep_s)
                self._change(connection, fence, "ended = 1, kept_boot_id = ?, kept_until_mono_s = ?", *until)
                connection.execute("DELETE FROM utterances WHERE session_id = ?", (fence.session_id,))
                return True

        return await self._run(work)

    def note_sequence(self, fence: Fence, sequence: int) -> None:
        with self._translated():
            self._change(self._on_loop, fence, "sequence = ?", sequence)

    def note_utterance(self, fence: Fence, utterance_id: str, facts: Facts) -> None:
        with self._translated():
            self._fenced(self._on_loop, _NOTE_UTTERANCE, (utterance_id, orjson.dumps(facts)), fence)

    def note_handles(self, fence: Fence, handles: Sequence[HandleHash]) -> None:
        packed = orjson.dumps([(one.sha256, one.until_mono_s) for one in handles])
        with self._translated():
            self._change(self._on_loop, fence, "handles = ?", packed)

    def _change(self, connection: sqlite3.Connection, fence: Fence, assignments: str, *values: Any) -> None:
        statement = f"UPDATE sessions SET {assignments} WHERE session_id = ? AND owner = ? AND epoch = ?"  # noqa: S608 - ours
        self._fenced(connection, statement, values, fence)

    def _fenced(self, connection: sqlite3.Connection, statement: str, values: Sequence[Any], fence: Fence) -> None:
        changed = connection.execute(statement, (*values, fence.session_id, self.owner, fence.epoch)).rowcount
        if changed == 0:
            raise OwnerMoved(fence.session_id)

    # --- sessions of others

    def find(self, session_id: str) -> Row | None:
        with self._translated():
            found = self._rows(self._on_loop, "WHERE account = ? AND session_id = ?", self._account, session_id)
        return found[0] if found else None

    def find_request(self, request_id: str) -> Row | None:
        with self._translated():
            found = self._rows(
                self._on_loop,
                # The index holds no empty ones, and is used only where the question says that too.
                "WHERE account = ? AND request_id = ? AND request_id <> '' ORDER BY number DESC LIMIT 1",
                self._account,
                request_id,
            )
        return found[0] if found else None

    def abandoned(self, row: Row) -> bool:
        if row.ended or row.owner == self.owner:
            return False
        with self._translated():
            return self._is_dead(row.owner, self._lease_of(self._on_loop, row.owner))

    async def orphans(self) -> Sequence[Row]:
        def work() -> list[Row]:
            connection = self._on_thread
            owners = connection.execute(
                "SELECT DISTINCT owner FROM sessions WHERE account = ? AND NOT ended AND owner <> ?",
                (self._account, self.owner),
            ).fetchall()
            dead = [owner for (owner,) in owners if self._is_dead(owner, self._lease_of(connection, owner))]
            rows: list[Row] = []
            for owner in dead:
                rows += self._rows(
                    connection,
                    "WHERE account = ? AND NOT ended AND owner = ? ORDER BY number",
                    self._account,
                    owner,
                )
            return rows

        return await self._run(work)

    @staticmethod
    def _lease_of(connection: sqlite3.Connection, owner: str) -> Lease | None:
        found = connection.execute(
            "SELECT boot_id, until_mono_s FROM processes WHERE owner = ?", (owner,)
        ).fetchone()
        return Lease(boot_id=found[0], until_mono_s=found[1]) if found else None

    def _is_dead(self, owner: str, lease: Lease | None) -> bool:
        return is_dead(
            lease,
            seen_alive=self._witness.sees_alive(owner),
            boot_id=self._boot_id,
            now_mono_s=self._clock(),
            grace_s=self._config.grace_s,
        )

    async def owners_of(self, upstream_session_ids: Sequence[str]) -> Mapping[str, str]:
        def work() -> dict[str, str]:
            known = self._on_thread.execute(
                "SELECT upstream_session_id, session_id FROM upstreams JOIN sessions USING (session_id) "
                "WHERE account = ?",
                (self._account,),
            )
            wanted = frozenset(upstream_session_ids)
            return {upstream_id: session_id for upstream_id, session_id in known if upstream_id in wanted}

        return await self._run(work)

    def claim(self, row: Row) -> Fence | None:
        with self._translated():
            taken = self._on_loop.execute(
                "UPDATE sessions SET owner = ?, epoch = epoch + 1 "
                "WHERE session_id = ? AND owner = ? AND epoch = ? AND NOT ended",
                (self.owner, row.session_id, row.owner, row.epoch),
            ).rowcount
        return Fence(row.session_id, row.epoch + 1) if taken else None

    async def want_end(self, session_id: str, reason: str) -> None:
        def work() -> None:
            self._on_thread.execute(
                "UPDATE sessions SET end_wanted = ? "
                "WHERE account = ? AND session_id = ? AND NOT ended AND end_wanted ISNULL",
                (reason, self._account, session_id),
            )

        await self._run(work)

    async def page(self, after: str, size: int) -> Sequence[Row]:
        def work() -> list[Row]:
            newest = (
                "WHERE account = ? AND number < coalesce((SELECT number FROM sessions WHERE session_id = ?), ?) "
            )
            return self._rows(
                self._on_thread,
                newest + "ORDER BY number DESC LIMIT ?",
                self._account,
                after,
                1 << 62,
                size,
            )

        return await self._run(work)

    async def tidy(self) -> None:
        def work() -> None:
            connection = self._on_thread
            connection.execute(
                "DELETE FROM sessions WHERE ended AND (kept_boot_id <> ? OR kept_until_mono_s < ?)",
                (self._boot_id, self._clock()),
            )
            idle = connection.execute(
                "SELECT owner, boot_id, until_mono_s FROM processes WHERE owner <> ? "
                "AND NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.owner = processes.owner AND NOT ended)",
                (self.owner,),
            ).fetchall()
            for owner, boot_id, until_mono_s in idle:
                if self._is_dead(owner, Lease(boot_id=boot_id, until_mono_s=until_mono_s)):
                    connection.execute("DELETE FROM processes WHERE owner = ?", (owner,))
                    self._witness.forget(owner)

        await self._run(work)

    def _rows(self, connection: sqlite3.Connection, condition: str, *values: Any) -> list[Row]:
        found = connection.execute(f"{_ROWS} {condition}", values).fetchall()
        return [self._row(connection, columns) for columns in found]

    def _row(self, connection: sqlite3.Connection, columns: Sequence[Any]) -> Row:
        session_id, owner, epoch, ended, sequence, facts, handles, boot_id, until_mono_s, address, end_wanted = (
            columns
        )
        utterances = connection.execute(
            "SELECT utterance_id, facts FROM utterances WHERE session_id = ? ORDER BY rowid", (session_id,)
        ).fetchall()
        upstreams = connection.execute(
            "SELECT upstream_session_id, access FROM upstreams WHERE session_id = ? ORDER BY rowid", (session_id,)
        ).fetchall()
        return Row(
            session_id=session_id,
            owner=owner,
            epoch=epoch,
            ended=bool(ended),
            sequence=sequence,
            facts=orjson.loads(facts),
            utterances=tuple((name, orjson.loads(packed)) for name, packed in utterances),
            upstreams=tuple(Upstream(name, self._opened(session_id, name, sealed)) for name, sealed in upstreams),
            handles=tuple(HandleHash(sha256, until) for sha256, until in orjson.loads(handles)),
            seen_mono_s=until_mono_s - self._config.ttl_s if boot_id == self._boot_id else None,
            address=address or "",
            end_wanted=end_wanted or "",
        )

    def _opened(self, session_id: str, upstream_session_id: str, sealed: bytes | None) -> Facts | None:
        if sealed is None:
            return None
        try:
            opened: Facts = orjson.loads(self._sealer.open(sealed, place=_place(session_id, upstream_session_id)))
        except Unopenable as error:
            # It can still be stopped, by its id alone.
            _log.warning("registry.unopenable", session=session_id, error=str(error))
            return None
        return opened

    # --- inside

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        """Run on the registry's thread, to its end even when the one who waits is cancelled."""

        def translated() -> _Result:
            with self._translated():
                return work()

        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, translated))

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


def _place(session_id: str, upstream_session_id: str) -> str:
    return f"{session_id}/{upstream_session_id}"
