"""Every registry there is, as two processes that share it."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from liveavatar_gateway.registry.base import LeaseConfig, Registry
from liveavatar_gateway.registry.memory import Memory, MemoryRegistry
from liveavatar_gateway.registry.sealing import Sealer
from liveavatar_gateway.registry.sqlite import SqliteRegistry
from testkit.unreliable_registry import FlappingRegistry, RetryingRegistry, SlowRegistry

KEY = b"k" * 32
KINDS = [f"{quirk}{store}" for quirk in ("", "slow ", "flapping ") for store in ("memory", "sqlite")]


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
        if self._kind.endswith("sqlite"):
            registry = SqliteRegistry(self._path, Sealer(KEY), lease, account=account, **options)
        else:
            registry = MemoryRegistry(lease, account=account, memory=self._memory, **options)
        self._open.append(await registry.__aenter__())
        if self._kind.startswith("slow"):
            return SlowRegistry(registry)
        if self._kind.startswith("flapping"):
            # A refused call must have changed nothing, or its repetition would be seen.
            return RetryingRegistry(FlappingRegistry(registry))
        return registry

    def kill(self, registry: Registry) -> None:
        """Do what the operating system does to a killed process: close its files, and nothing else."""
        registry = self.forget(registry)
        if isinstance(registry, SqliteRegistry):
            registry._lock.drop()
            registry._database._disconnect()
            registry._database._reader.shutdown()
            registry._database._writer.shutdown()
            registry._buffer.close(keep=True)
        else:
            self._memory.present.discard(registry.owner)

    def forget(self, registry: Any) -> Any:
        """Leave a registry open at the end of the test; returns the registry below its wrappers."""
        while isinstance(registry, SlowRegistry | FlappingRegistry | RetryingRegistry):
            registry = registry.registry
        self._open.remove(registry)
        return registry

    async def close(self) -> None:
        for registry in self._open:
            with contextlib.suppress(Exception):
                await registry.__aexit__(None, None, None)


@pytest.fixture(params=KINDS)
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
