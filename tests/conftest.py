"""Servers that most tests share. A test that needs its own settings starts its own, see `testkit.processes`."""

import contextlib
import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Final

import hypothesis
import pytest

from liveavatar_demo.livekit_server import LiveKitServer, livekit_server
from testkit import processes
from testkit.caller import Caller
from testkit.caller import caller as connect

_UNIT_TESTS: Final = Path(__file__).parent / "unit"

# How long an example takes says something of the machine and its other work, nothing of the code.
hypothesis.settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put long tests at the head of every other worker's queue; all others stay in their random order.

    Long tests mostly wait: the workers between have the cores meanwhile. A long test that starts last would keep
    one worker busy for a minute while the others have nothing left to do.
    """
    workers: int = getattr(config, "workerinput", {}).get("workercount", 1)
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    if workers == 1 or len(items) // workers < len(long):
        return
    ordered: list[pytest.Item] = []
    for number in range(workers):
        # As xdist divides tests among workers at the start, before one takes from another.
        size = (len(items) - len(ordered)) // (workers - number)
        head = [] if number % 2 else long[number // 2 :: (workers + 1) // 2]
        ordered += [*head, *others[: size - len(head)]]
        del others[: size - len(head)]
    items[:] = ordered


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Use asyncio's debug mode for unit tests alone.

    It takes a stack trace for each callback: a quarter of the CPU time of tests that send many messages.
    """
    item.config.option.asyncio_debug = item.path.is_relative_to(_UNIT_TESTS)


@pytest.fixture(scope="session", autouse=True)
def private_files() -> Iterator[None]:
    """Let nobody else read the files of tests: the gateway refuses keys that others can read."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the default registry of every process out of the developer's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def forked_processes() -> Iterator[None]:
    """Save the imports of most gateways and emulators, see `testkit.fork_server`."""
    with processes.forking():
        yield


@pytest.fixture(scope="session")
def shared_emulator() -> Iterator[processes.Emulator]:
    with processes.emulator() as found:
        yield found


@pytest.fixture(scope="session")
def shared_gateway(shared_emulator: processes.Emulator) -> Iterator[processes.Gateway]:
    with processes.gateway(shared_emulator.url) as found:
        yield found


@pytest.fixture(scope="session")
def livekit() -> Iterator[LiveKitServer]:
    """A real LiveKit server of this worker's own."""
    with livekit_server() as found:
        yield found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the LiveKit server's log with a test that failed on it."""
    report = yield
    server = getattr(item, "funcargs", {}).get("livekit")
    if report.failed and isinstance(server, LiveKitServer):
        # The log is gone when the failure is that of the server's own teardown.
        with contextlib.suppress(OSError):
            report.sections.append(("livekit-server log", server.process.log_tail(20)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests measured: those that `record_property("figure", ...)`."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    figures = [
        f"{report.nodeid}: {value}"
        for report in reports
        for name, value in report.user_properties
        if name == "figure" and report.when == "call"
    ]
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(figures))


@pytest.fixture
def emulator(shared_emulator: processes.Emulator) -> Iterator[processes.Emulator]:
    """An emulator without armed faults, before and after, on which no session of another test runs."""
    shared_emulator.clear_faults()
    shared_emulator.end_all()
    yield shared_emulator
    shared_emulator.clear_faults()


@pytest.fixture
async def caller(emulator: processes.Emulator, shared_gateway: processes.Gateway) -> AsyncIterator[Caller]:
    """Bare stubs on a gateway in front of `emulator`."""
    async with connect(shared_gateway.address) as found:
        yield found
