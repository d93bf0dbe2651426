"""Servers that most tests share. A test that needs its own settings starts its own, see `harness.processes`."""

from collections.abc import AsyncIterator, Iterator

import pytest
from harness import processes
from harness.caller import Caller
from harness.caller import caller as connect


@pytest.fixture(scope="session")
def shared_emulator() -> Iterator[processes.Emulator]:
    with processes.emulator() as found:
        yield found


@pytest.fixture(scope="session")
def shared_gateway(shared_emulator: processes.Emulator) -> Iterator[processes.Gateway]:
    with processes.gateway(shared_emulator.url) as found:
        yield found


@pytest.fixture
def emulator(shared_emulator: processes.Emulator) -> Iterator[processes.Emulator]:
    """An emulator without armed faults, before and after."""
    shared_emulator.clear_faults()
    yield shared_emulator
    shared_emulator.clear_faults()


@pytest.fixture
async def caller(emulator: processes.Emulator, shared_gateway: processes.Gateway) -> AsyncIterator[Caller]:
    """Bare stubs on a gateway in front of `emulator`."""
    async with connect(shared_gateway.address) as found:
        yield found
