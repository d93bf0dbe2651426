"""Servers that most tests share. A test that needs its own settings starts its own, see `testkit.processes`."""

import contextlib
from collections.abc import AsyncIterator, Generator, Iterator

import hypothesis
import pytest

from liveavatar_demo.livekit_server import LiveKitServer, livekit_server
from testkit import processes
from testkit.caller import Caller
from testkit.caller import caller as connect

# How long an example takes says something of the machine and its other work, nothing of the code.
hypothesis.settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the default registry of every process out of the developer's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
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
