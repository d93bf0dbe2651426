"""Every registry there is, as two processes that share it."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from liveavatar_gateway.registry.base import LeaseConfig, Registry
from liveavatar_gateway.registry.memory import Memory, MemoryRegistry
from liveavatar_gateway.registry.sealing import Sealer
from liveavatar_gateway.registry.sqlite import SqliteRegistry

KEY = b"k" * 32


class Shared:
    """Store that several registries share, and the death of one of their processes."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._kind = kind
        self._path = folder / "registry.db"
        self._memory = Memory()
        self._open: list[Any] = []

    async def join(
        self, *, account: str = "account", lease: LeaseConfig | None = None, **options: Any
    ) -> Registry:
        """A registry of one more process."""
        lease = lease or LeaseConfig()
        registry: Any
        if self._kind == "sqlite":
            registry = SqliteRegistry(self._path, Sealer(KEY), lease, account=account, **options)
        else:
            registry = MemoryRegistry(lease, account=account, memory=self._memory, **options)
        self._open.append(await registry.__aenter__())
        return registry

    def kill(self, registry: Registry) -> None:
        """Do what the operating system does to a killed process: close its files, and nothing else."""
        self._open.remove(registry)
        if isinstance(registry, SqliteRegistry):
            os.close(registry._witness._held)
            for connection in (registry._reading, registry._writing):
                connection.close()
            for thread in (registry._reader, registry._writer):
                thread.shutdown()
            registry._journal.close(keep=True)
            registry._journal = None
        else:
            self._memory.present.discard(registry.owner)

    async def close(self) -> None:
        for registry in self._open:
            with contextlib.suppress(Exception):
                await registry.__aexit__(None, None, None)


@pytest.fixture(params=["memory", "sqlite"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shared]:
    found = Shared(request.param, tmp_path)
    yield found
    await found.close()


@pytest.fixture
async def mine(shared: Shared) -> Registry:
    return await shared.join()


@pytest.fixture
async def other(shared: Shared) -> Registry:
    return await shared.join()
