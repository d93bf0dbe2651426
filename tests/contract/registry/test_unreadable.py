"""Rows of the SQLite registry that cannot be read: each is named and put aside, and fails nothing else."""

import sqlite3
from pathlib import Path

import pytest

from liveavatar_gateway.registry.base import HandleHash, LeaseConfig
from liveavatar_gateway.registry.sealing import Sealer
from liveavatar_gateway.registry.sqlite import SqliteRegistry

_FACTS = {
    "cut short": b'{"spec": {"avat',
    "no JSON": b"\xff\x00\x01",
    "nothing": b"",
    "a list": b"[]",
    "null": b"null",
    "a number": b"7",
    "nested deep": b"[" * 3000,
}
_HANDLES = {"cut short": b'[["a', "no pairs": b"[1]", "other types": b'[[1,"a"]]', "an object": b"{}"}
_NUMBERS = {"sequence": [-1, (1 << 63) - 1], "epoch": [0, -5, (1 << 63) - 1]}

CASES = [
    *[pytest.param("sessions", "payload", value, id=f"payload: {name}") for name, value in _FACTS.items()],
    *[pytest.param("sessions", "handles", value, id=f"handles: {name}") for name, value in _HANDLES.items()],
    *[
        pytest.param("sessions", name, value, id=f"{name}: {value}")
        for name, values in _NUMBERS.items()
        for value in values
    ],
]


def _registry(path: Path) -> SqliteRegistry:
    return SqliteRegistry(path, Sealer(b"k" * 32), LeaseConfig(), account="account")


async def _left(path: Path) -> None:
    """Two sessions of a process that is gone, each with one at LiveAvatar."""
    async with _registry(path) as registry:
        for number in (1, 2):
            fence = await registry.create(f"s-{number}", {"n": number})
            await registry.add_upstream(fence, f"up-{number}")
            await registry.save_access(fence, f"up-{number}", {"ws_url": "ws://x"})
            registry.journal_utterance(fence, "u-1", {"cut": 1})
            registry.journal_utterance(fence, "u-2", {"cut": 2})
            registry.journal_handles(fence, [HandleHash("h")])
            await registry.save(fence, {"n": number})


def _spoil(path: Path, table: str, column: str, value: object, where: str = "session_id = 's-1'") -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (value,)).rowcount
    connection.close()


@pytest.mark.parametrize(("table", "column", "value"), CASES)
async def test_an_unreadable_row_is_named_and_the_others_are_read(tmp_path, table, column, value):
    path = tmp_path / "registry.db"
    await _left(path)
    _spoil(path, table, column, value)
    async with _registry(path) as registry:
        bad, good = await registry.orphans()
        assert bad.unreadable
        assert (good.unreadable, good.payload) == ("", {"n": 2})
        assert [one.upstream_session_id for one in bad.upstreams] == ["up-1"]
        assert [row.session_id for row in await registry.page("", 9)] == ["s-2", "s-1"]
        assert (await registry.find("s-1")).unreadable == bad.unreadable
        fence = await registry.claim(bad)
        assert fence is not None
        await registry.quarantine(fence, bad.unreadable)
        assert (await registry.find("s-1")).unreadable == ""
        await registry.drop_upstream("up-1")
        assert await registry.finish(fence, {}, retention_s=60)
        assert [row.session_id for row in await registry.orphans()] == ["s-2"]
        kept = sqlite3.connect(path).execute("SELECT session_id, reason FROM quarantine").fetchall()
        assert kept == [("s-1", bad.unreadable)]


async def test_an_utterance_that_cannot_be_read_is_left_out_alone(tmp_path):
    path = tmp_path / "registry.db"
    await _left(path)
    _spoil(path, "utterances", "payload", b'{"cut', "session_id = 's-1' AND utterance_id = 'u-1'")
    async with _registry(path) as registry:
        rows = await registry.orphans()
        assert [row.unreadable for row in rows] == ["", ""]
        assert [row.utterances for row in rows] == [
            (("u-2", {"cut": 2}),),
            (("u-1", {"cut": 1}), ("u-2", {"cut": 2})),
        ]


@pytest.mark.parametrize("access", [b"", b"\x01", b"\x01" + bytes(40), b"no seal at all"])
async def test_access_with_a_wrong_seal_leaves_the_id_to_stop_it_by(tmp_path, access):
    path = tmp_path / "registry.db"
    await _left(path)
    _spoil(path, "upstreams", "access", access)
    async with _registry(path) as registry:
        rows = await registry.orphans()
        assert [[(one.upstream_session_id, one.access) for one in row.upstreams] for row in rows] == [
            [("up-1", None)],
            [("up-2", {"ws_url": "ws://x"})],
        ]


async def test_access_that_is_sealed_well_and_no_json_leaves_the_id_too(tmp_path):
    path = tmp_path / "registry.db"
    await _left(path)
    _spoil(path, "upstreams", "access", Sealer(b"k" * 32).seal(b'{"ws', context="s-1/up-1"))
    async with _registry(path) as registry:
        row, _ = await registry.orphans()
        assert [(one.upstream_session_id, one.access) for one in row.upstreams] == [("up-1", None)]


@pytest.mark.parametrize("until_mono_s", [1e300, float("inf"), -1e300])
async def test_a_lease_that_cannot_be_true_keeps_no_session_for_ever(tmp_path, until_mono_s):
    path = tmp_path / "registry.db"
    await _left(path)
    connection = sqlite3.connect(path)
    async with _registry(path) as registry:
        with connection:
            connection.execute(
                "INSERT INTO processes SELECT owner, ?, ?, '', 1 FROM sessions LIMIT 1",
                (registry._clock.boot_id, until_mono_s),
            )
        connection.close()
        rows = await registry.orphans()
        assert [row.session_id for row in rows] == ["s-1", "s-2"]
        assert all(row.seen_mono_s is None or row.seen_mono_s < 1e9 for row in rows)


async def test_text_that_is_no_utf_8_fails_no_other_row(tmp_path):
    path = tmp_path / "registry.db"
    await _left(path)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE sessions SET end_request = CAST(x'ff41' AS TEXT) WHERE session_id = 's-1'")
    connection.close()
    async with _registry(path) as registry:
        assert len(await registry.page("", 9)) == 2


@pytest.mark.parametrize("owner", [b"", b"a\x00b", b"../../x", b"\xff-a", b"x" * 300], ids=repr)
async def test_a_session_of_a_damaged_owner_is_found_and_can_be_claimed(tmp_path, owner):
    path = tmp_path / "registry.db"
    await _left(path)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE sessions SET owner = CAST(? AS TEXT) WHERE session_id = 's-1'", (owner,))
    connection.close()
    async with _registry(path) as registry:
        rows = {row.session_id: row for row in await registry.orphans()}
        assert sorted(rows) == ["s-1", "s-2"]
        assert await registry.claim(rows["s-1"]) is not None
        await registry.purge()


@pytest.mark.parametrize("damage", ["cut short", "zeros", "noise", "gone"])
async def test_a_journal_that_is_damaged_costs_what_it_held_and_no_row(tmp_path, damage):
    path = tmp_path / "registry.db"
    await _left(path)
    owner = sqlite3.connect(path).execute("SELECT owner FROM sessions").fetchone()[0]
    journal = tmp_path / f"registry.db.{owner}.journal"
    content = {"cut short": b"LAJ1" + b"\xff" * 100, "zeros": bytes(1 << 16), "noise": b"LAJ1\xff" * 9999}
    if damage in content:
        journal.write_bytes(content[damage])
    async with _registry(path) as registry:
        assert [row.utterances for row in await registry.orphans()] == [
            (("u-1", {"cut": 1}), ("u-2", {"cut": 2}))
        ] * 2
