"""The SQLite registry through kill -9: what was noted is there, and what was half done is not."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from liveavatar_gateway.pool.account_limits import UNLEARN_S, AccountState
from liveavatar_gateway.pool.book import Book, PermitRow, PermitState
from liveavatar_gateway.pool.fair_order import TenantTime
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.clock import MachineClock
from liveavatar_gateway.registry.sealing import Sealer
from liveavatar_gateway.registry.sqlite import SqliteRegistry
from liveavatar_gateway.registry.usage import Charge

KEY = b"k" * 32

_WRITER = """
import asyncio, sys
from pathlib import Path
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.sealing import Sealer
from liveavatar_gateway.registry.sqlite import SqliteRegistry

async def main():
    registry = SqliteRegistry(Path(sys.argv[1]), Sealer(b"k" * 32), LeaseConfig(), account="account")
    async with registry:
        fence = await registry.create("s-1", {"n": 0})
        await registry.add_upstream(fence, "up-1")
        await registry.save_access(fence, "up-1", {"ws_url": "ws://somewhere"})
        saved = asyncio.create_task(save(registry, fence))
        n = 0
        while True:
            n += 1
            registry.journal_sequence(fence, n)
            registry.journal_utterance(fence, "u-1", {"cut": n, "filler": "x" * 300})
            print(n, flush=True)
            if n % 50 == 0:
                await asyncio.sleep(0)
                assert not saved.done(), saved.result()

async def save(registry, fence):
    n = 0
    while True:
        n += 1
        await registry.save(fence, {"n": n, "filler": "y" * 2000})
        await registry.renew("")

asyncio.run(main())
"""


def _writer(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _killed_writer(path: Path, after_lines: int) -> int:
    """Let a process write until it has told `after_lines`, kill it, and return the last number it told."""
    process = _writer(path)
    assert process.stdout is not None
    assert process.stderr is not None
    last = 0
    for line in process.stdout:
        last = int(line)
        if last == after_lines:
            process.send_signal(signal.SIGKILL)
        if not line.endswith("\n"):
            break
    complaint = process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    assert process.wait(10) == -signal.SIGKILL, complaint
    return last


def _registry(path: Path, **options: object) -> SqliteRegistry:
    options = {"account": "account", **options}
    return SqliteRegistry(path, Sealer(KEY), LeaseConfig(), **options)


@pytest.mark.parametrize("after_lines", [1, 7, 100, 1500, 5000])
async def test_a_killed_process_loses_nothing_that_it_had_noted(tmp_path, after_lines):
    path = tmp_path / "registry.db"
    told = await asyncio.to_thread(_killed_writer, path, after_lines)
    assert told >= after_lines
    async with _registry(path) as registry:
        (row,) = await registry.orphans()
        ((utterance_id, facts),) = row.utterances
        # It may have been killed between the two notes of one round, or between the notes and telling of them.
        assert told <= facts["cut"] <= row.sequence <= told + 1
        assert utterance_id == "u-1"
        assert row.upstreams[0].access == {"ws_url": "ws://somewhere"}
        assert (await registry.claim(row)).epoch == 2


async def test_a_killed_process_counts_as_dead_before_its_exit_status_is_collected(tmp_path):
    path = tmp_path / "registry.db"
    process = _writer(path)
    assert process.stdout is not None
    process.stdout.readline()
    async with _registry(path) as registry:
        assert list(await registry.orphans()) == [], "it lives"
        process.send_signal(signal.SIGSTOP)
        assert list(await registry.orphans()) == [], "it is merely slow"
        process.kill()
        for _ in range(200):
            if rows := await registry.orphans():
                break
            await asyncio.sleep(0.02)
        assert [row.session_id for row in rows] == ["s-1"]
    process.communicate()
    assert process.wait(5) == -signal.SIGKILL


# --- what only a file has


async def test_the_file_and_its_companions_are_for_their_owner_alone(tmp_path):
    path = tmp_path / "registry.db"
    async with _registry(path) as registry:
        await registry.create("s-1", {})
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}
    assert len(modes) == 5, modes


async def test_no_secret_is_in_the_file_in_plain(tmp_path):
    path = tmp_path / "registry.db"
    async with _registry(path) as registry:
        fence = await registry.create("s-1", {})
        await registry.add_upstream(fence, "up-1")
        await registry.save_access(fence, "up-1", {"ws_url": "ws://plain-secret"})
        for file in tmp_path.iterdir():
            assert b"plain-secret" not in file.read_bytes()


async def test_with_another_key_a_session_can_still_be_ended_but_not_gone_on_with(tmp_path):
    path = tmp_path / "registry.db"
    async with _registry(path) as registry:
        fence = await registry.create("s-1", {})
        await registry.add_upstream(fence, "up-1")
        await registry.save_access(fence, "up-1", {"ws_url": "ws://x"})
    async with SqliteRegistry(path, Sealer(b"o" * 32), LeaseConfig(), account="account") as registry:
        (row,) = await registry.orphans()
        assert [(one.upstream_session_id, one.access) for one in row.upstreams] == [("up-1", None)]


async def test_after_a_restart_of_the_machine_every_earlier_process_is_gone(tmp_path):
    path = tmp_path / "registry.db"
    async with _registry(path, clock=MachineClock(boot_id="one")) as before:
        await before.create("s-1", {})
        async with _registry(path, clock=MachineClock(boot_id="two")) as after:
            (row,) = await after.orphans()
            assert row.seen_mono_s is None
            assert row.saved_mono_s is None


async def test_after_a_restart_of_the_machine_no_time_of_the_former_clock_stays_in_the_pool(tmp_path):
    path = tmp_path / "registry.db"
    async with _registry(path, clock=MachineClock(boot_id="one", now=lambda: 100_000.0)) as before:

        def leave(book: Book, now_s: float) -> None:
            settling = {"state": PermitState.SETTLING, "until_s": now_s + 1.0, "ended_at_s": now_s}
            book.permits["p-1"] = PermitRow(
                id="p-1", account="main", owner=before.owner, since_s=now_s, **settling
            )
            book.accounts["main"] = AccountState(name="main").learn(1, now_s).note_end(now_s, was_full=True)

        await before.pool(leave)
    clock = MachineClock(boot_id="two", now=lambda: 100.0)
    async with _registry(path, clock=clock) as first, _registry(path, clock=clock) as second:
        await first.pool(lambda book, _now_s: book.tenants.update(t=TenantTime(tenant="t", duration_s=1.0)))
        book, _ = await second.pool(lambda book, _now_s: book.copy())
    row, account = book.permits["p-1"], book.accounts["main"]
    assert not row.in_use(100.0)
    assert account.learned_below(3, 100.0 + 2 * UNLEARN_S) is None
    assert not account.explains_refusal(100.0)
    assert account.full_until_s <= 100.0


async def test_a_process_without_locks_is_judged_by_its_lease(tmp_path):
    path = tmp_path / "registry.db"
    now_s = 1000.0
    async with _registry(path, clock=MachineClock(boot_id="b", now=lambda: 1000.0)) as unseen:
        await unseen.create("s-1", {})
        for lock in tmp_path.glob("*.lock"):
            lock.unlink()
        async with _registry(path, clock=MachineClock(boot_id="b", now=lambda: now_s)) as other:
            now_s = 1000.0 + 10.0 + 5.0
            assert list(await other.orphans()) == [], "within its lease and the grace"
            now_s += 0.1
            assert len(await other.orphans()) == 1


async def test_a_file_of_another_version_is_left_alone(tmp_path):
    import sqlite3

    from liveavatar_gateway.core.errors import RegistryUnavailable

    path = tmp_path / "registry.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 77")
    connection.close()
    with pytest.raises(RegistryUnavailable, match="schema 77"):
        async with _registry(path):
            pass


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
async def test_a_file_of_a_version_before_is_brought_up_and_loses_nothing(tmp_path, version):
    import sqlite3

    path = tmp_path / "registry.db"
    async with _registry(path) as before:
        fence = await before.create("s-1", {"kept": True})
        await before.add_upstream(fence, "up-0", account="spare")
    connection = sqlite3.connect(path)
    for table in ("permits", "waiters", "pool_tenants", "pool_accounts", "pool"):
        connection.execute(f"DROP TABLE {table}")
    connection.execute("ALTER TABLE upstreams DROP COLUMN account")
    if version <= 5:
        for table in ("charges", "usage", "spent"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("DROP INDEX requests")
        connection.execute("ALTER TABLE sessions DROP COLUMN tenant")
        connection.execute("ALTER TABLE sessions RENAME COLUMN end_request TO end_wanted")
        for table in ("sessions", "utterances", "quarantine"):
            connection.execute(f"ALTER TABLE {table} RENAME COLUMN payload TO facts")
    if version <= 4:
        connection.execute("ALTER TABLE sessions DROP COLUMN saved_boot_id")
        connection.execute("ALTER TABLE sessions DROP COLUMN saved_mono_s")
    if version <= 3:
        connection.execute("DROP TABLE quarantine")
    if version <= 2:
        connection.execute("ALTER TABLE sessions DROP COLUMN request_id")
    elif version <= 5:
        connection.execute("CREATE INDEX requests ON sessions (request_id) WHERE request_id <> ''")
    if version == 1:
        connection.execute("ALTER TABLE sessions DROP COLUMN end_wanted")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    async with _registry(path) as registry:
        found = await registry.find("s-1")
        assert found.payload == {"kept": True}
        assert [known.account for known in found.upstreams] == ["account"]
        (permits, now_s), _ = await registry.pool(lambda book, now_s: (dict(book.permits), now_s))
        (permit,) = permits.values()
        assert (permit.account, permit.upstream_session_id, permit.session_id) == ("account", "up-0", "s-1")
        assert permit.state is PermitState.SUSPECT
        assert now_s - permit.since_s < 5.0, "not the zero of the upgrade"
        await registry.request_end("s-1", "OPERATOR")
        assert (await registry.find("s-1")).end_request == "OPERATOR"
        charge = Charge(id="up-1", tenant="acme", label="", hour=1, minutes=2)
        assert (await registry.charge(charge)).month == 2
        await registry.reserve("s-2", {}, tenant="acme", request_id="wish")
        assert (await registry.find_request("wish", tenant="acme")).tenant == "acme"
        assert await registry.find_request("wish", tenant="") is None
    async with _registry(path) as again:
        assert (await again.find("s-1")).end_request == "OPERATOR"


async def test_old_utterances_are_forgotten_and_the_latest_kept(tmp_path):
    async with _registry(tmp_path / "registry.db") as registry:
        fence = await registry.create("s-1", {})
        for number in range(400):
            registry.journal_utterance(fence, f"u-{number}", {"n": number})
        await registry.save(fence, {})
        names = [name for name, _ in (await registry.find("s-1")).utterances]
    assert len(names) == 320
    assert names[-1] == "u-399"


async def test_a_registry_that_cannot_be_written_says_so_and_takes_what_was_noted_meanwhile_later(tmp_path):
    import sqlite3

    from liveavatar_gateway.core.errors import RegistryUnavailable
    from liveavatar_gateway.registry.base import HandleHash

    path = tmp_path / "registry.db"
    async with _registry(path) as registry:
        fence = await registry.create("s-1", {})
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        registry.journal_sequence(fence, 7)
        registry.journal_handles(fence, [HandleHash("given")])
        registry.journal_utterance(fence, "u-1", {"outcome": "COMPLETED"})
        with pytest.raises(RegistryUnavailable, match=r"registry\.db cannot be used"):
            await registry.save(fence, {"n": 1})
        blocker.execute("ROLLBACK")
        await registry.save(fence, {"n": 2})
        kept = blocker.execute("SELECT sequence, handles, payload FROM sessions").fetchone()
        assert kept == (7, b'[["given",null]]', b'{"n":2}')
        assert blocker.execute("SELECT utterance_id FROM utterances").fetchall() == [("u-1",)]
        blocker.close()


async def test_what_a_locked_registry_did_not_take_is_there_for_whoever_goes_on_after_a_kill(tmp_path):
    """The lock is held from the first note to the kill: none of it is in a table."""
    import sqlite3

    path = tmp_path / "registry.db"
    process = _locked_writer(path)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "made\n"
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "noted\n"
    process.kill()
    process.communicate()
    blocker.execute("ROLLBACK")
    assert blocker.execute("SELECT sequence, handles FROM sessions").fetchone() == (0, b"[]")
    assert blocker.execute("SELECT count(*) FROM utterances").fetchone() == (0,)
    blocker.close()
    async with _registry(path) as registry:
        (row,) = await registry.orphans()
        assert (row.sequence, [one.sha256 for one in row.handles]) == (9, ["given"])
        assert row.utterances == (("b", {"outcome": None}), ("a", {"outcome": "COMPLETED"}))
        fence = await registry.claim(row)
        assert fence is not None
        after = await registry.find("s-1")
        assert after is not None
        assert (after.sequence, after.handles, after.utterances) == (row.sequence, row.handles, row.utterances)
        await registry.finish(fence, {}, retention_s=60)
        await registry.purge()
        assert [file.name for file in tmp_path.glob("*.journal")] == [f"registry.db.{registry.owner}.journal"]
    assert list(tmp_path.glob("*.journal")) == []


async def test_a_process_keeps_no_notes_of_a_session_that_another_has_or_that_has_ended(tmp_path):
    """Else its journal fills up with sessions that it will never write about again."""
    from liveavatar_gateway.registry.journal import read_journal

    path = tmp_path / "registry.db"
    async with _registry(path) as registry, _registry(path) as other:
        journal = tmp_path / f"registry.db.{registry.owner}.journal"
        lost, over = await registry.create("lost", {}), await registry.create("over", {})
        for fence in (lost, over):
            registry.journal_sequence(fence, 1)
            registry.journal_utterance(fence, "u-1", {"cut": 1})
        assert set(read_journal(journal)) == {"lost", "over"}
        row = await other.find("lost")
        assert row is not None
        assert await other.claim(row) is not None
        registry.discard_journal(lost)
        await registry.finish(over, {}, retention_s=60)
        assert read_journal(journal) == {}
        found = await other.find("over")
        assert found is not None
        assert found.sequence == 1


def _locked_writer(path: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", _LOCKED_WRITER, str(path)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


_LOCKED_WRITER = """
import asyncio, sys
from pathlib import Path
from liveavatar_gateway.registry.base import HandleHash, LeaseConfig
from liveavatar_gateway.registry.sealing import Sealer
from liveavatar_gateway.registry.sqlite import SqliteRegistry

async def main():
    registry = SqliteRegistry(Path(sys.argv[1]), Sealer(b"k" * 32), LeaseConfig(), account="account")
    async with registry:
        fence = await registry.create("s-1", {})
        await registry.add_upstream(fence, "up-1")
        print("made", flush=True)
        sys.stdin.readline()
        saving = asyncio.create_task(registry.save(fence, {}))
        await asyncio.sleep(0)
        registry.journal_utterance(fence, "b", {"outcome": None})
        registry.journal_utterance(fence, "a", {"outcome": None})
        registry.journal_sequence(fence, 9)
        registry.journal_handles(fence, [HandleHash("given")])
        registry.journal_utterance(fence, "a", {"outcome": "COMPLETED"})
        print("noted", flush=True)
        await saving

asyncio.run(main())
"""
