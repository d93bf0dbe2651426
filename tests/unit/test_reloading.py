"""Files that a running process reads again: what keeps it from reading keeps nothing else."""

import asyncio
import os

import pytest

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
