"""Files that a running process reads again: what keeps it from reading keeps nothing else."""

import asyncio
import os
from pathlib import Path

import pytest

from liveavatar_gateway import reloading
from liveavatar_gateway.reloading import FileReloads


@pytest.mark.parametrize("kind", ["pipe", "folder"])
async def test_what_became_no_file_is_not_read_and_the_next_source_is(tmp_path, kind):
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        path.write_text("old")
    used = []
    reloads = FileReloads()
    for path in (first, second):
        reloads.add(path.name, (path,), path.read_text, lambda content: used.append(content) or True)
    first.unlink()
    # Nobody writes to the pipe: whoever opens it waits for ever.
    os.mkfifo(first) if kind == "pipe" else first.mkdir()
    second.write_text("new")
    try:
        async with asyncio.timeout(10):
            await reloads.reload()
    finally:
        if kind == "pipe":
            # Lets a reader go that waits for it all the same.
            os.close(os.open(first, os.O_RDWR | os.O_NONBLOCK))
    assert used == ["new"]


async def test_a_file_that_is_being_written_is_used_when_it_is_whole(tmp_path):
    """Half of a file of tenants is a valid file of fewer tenants."""
    path = tmp_path / "tenants"
    path.write_text("old")
    used, reads = [], []

    def read() -> str:
        content = path.read_text()
        reads.append(content)
        if content == "half":
            path.write_text("half and the other half")
        return content

    reloads = FileReloads()
    reloads.add("tenants", (path,), read, lambda content: used.append(content) or True, settle_s=0.001)
    path.write_text("half")
    await reloads.reload()
    assert (reads, used) == (["half"], [])
    await reloads.reload()
    assert used == ["half and the other half"]


async def test_the_next_check_reads_a_file_that_had_not_settled(tmp_path, monkeypatch):
    monkeypatch.setattr("liveavatar_gateway.reloading.POLL_S", 0.001)
    path = tmp_path / "tenants"
    path.write_text("old")
    used = asyncio.Queue()

    def read() -> str:
        content = path.read_text()
        if content == "half":
            path.write_text("whole now")
        return content

    reloads = FileReloads()
    reloads.add("t", (path,), read, lambda content: used.put_nowait(content) or True, watched=True, settle_s=0.001)
    path.write_text("half")
    watching = asyncio.create_task(reloads.watch())
    try:
        async with asyncio.timeout(10):
            assert await used.get() == "whole now"
    finally:
        watching.cancel()


async def test_the_end_of_a_failure_is_logged(tmp_path, monkeypatch, capsys):
    """Files that are repaired with their previous content cause no reload, but the failure is over."""
    monkeypatch.setattr("liveavatar_gateway.reloading.POLL_S", 0.001)
    path = tmp_path / "server.pem"
    path.write_text("good")

    def read() -> str:
        content = path.read_text()
        if content != "good":
            raise ValueError("broken")
        return content

    async def logged(event: str) -> None:
        while event not in "".join(lines):
            await asyncio.sleep(0.001)
            lines.append(capsys.readouterr().out)

    lines: list[str] = []
    reloads = FileReloads()
    reloads.add("certificate", (path,), read, lambda _content: False, watched=True)
    watching = asyncio.create_task(reloads.watch())
    try:
        async with asyncio.timeout(10):
            path.write_text("bad")
            await logged("reload.failed")
            path.write_text("good")
            await logged("reload.unchanged")
    finally:
        watching.cancel()


async def test_files_that_new_content_names_are_watched_from_then_on(tmp_path, monkeypatch):
    monkeypatch.setattr(reloading, "POLL_S", 0.02)
    index, first, second = (tmp_path / name for name in ("index", "first", "second"))
    first.write_text("1")
    second.write_text("2")
    index.write_text(str(first))
    used: list[str] = []

    def read() -> tuple[Path, str]:
        named = Path(index.read_text())
        return named, named.read_text()

    reloads = FileReloads()
    reloads.add(
        "index",
        (index, first),
        read,
        lambda content: used.append(content[1]) or True,
        watched=True,
        files_of=lambda content: (index, content[0]),
    )
    watching = asyncio.create_task(reloads.watch())
    async with asyncio.timeout(10):
        index.write_text(str(second))
        while used != ["2"]:
            await asyncio.sleep(0.01)
        second.write_text("another 2")
        while used != ["2", "another 2"]:
            await asyncio.sleep(0.01)
    watching.cancel()
