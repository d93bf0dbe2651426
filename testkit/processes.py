"""Emulator and gateway as the processes users run, on free ports of 127.0.0.1."""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from liveavatar_demo.livekit_server import LiveKitServer
from liveavatar_demo.process import Child, Process, clean_environment, module
from testkit.clock import HastenedClock, WallClock
from testkit.emulator import API_KEY, Emulator
from testkit.fork_server import SHARED, ForkServer

__all__ = [
    "API_KEY",
    "Emulator",
    "Gateway",
    "Process",
    "Server",
    "clean_environment",
    "emulator",
    "forking",
    "gateway",
    "server",
]

LOG_TIMEOUT_S = 10.0

_fork_servers: list[ForkServer] = []
"""Fork server of this process; none outside `forking`."""


@contextlib.contextmanager
def forking() -> Iterator[None]:
    """Start gateways and emulators from a fork server within the block, where that makes no difference to them."""
    _fork_servers.append(SHARED)
    try:
        yield
    finally:
        _fork_servers.pop()


class Server(Process):
    """Gateway or emulator in a process of its own."""

    def logged(self, *texts: str, times: int = 1) -> bool:
        """Return whether `texts` are in the log `times` times, all together, now or within 10 s.

        Lines are written by a thread of their own, a moment after the event.
        """
        give_up_s = time.monotonic() + LOG_TIMEOUT_S
        while (seen := sum(map(self.log.count, texts))) < times and time.monotonic() < give_up_s:
            time.sleep(0.02)
        return seen >= times


class ForkedServer(Server):
    """Gateway or emulator that a fork server starts."""

    def _spawn(self, log: BinaryIO) -> Child:
        _python, _option, package, *arguments = self._command
        return _fork_servers[-1].start(package, arguments, environment=self._environment, log_path=self.log_path)


class Gateway:
    """Running gateway and its addresses."""

    def __init__(
        self, process: Server, address: str, *, admin_address: str = "", metrics: str | None = None
    ) -> None:
        self.process = process
        self.address = address
        self.admin_address = admin_address
        """Empty unless `admin_port` is set."""
        self.metrics = metrics


@contextlib.contextmanager
def emulator(
    *,
    livekit: LiveKitServer | None = None,
    connect_retries: int = 0,
    clock: HastenedClock | None = None,
    fresh: bool = False,
    **knobs: object,
) -> Iterator[Emulator]:
    """Run an emulator: ready after 50 ms, no rate limit, 200 sessions, unless `knobs` say otherwise.

    With `livekit`, its sessions have real rooms on that server. `connect_retries` are those of its control client.
    `clock` is that of the process, beside its own `clock_speed`. `fresh` is as for a gateway.
    """
    knobs = {"ready_delay_ms": 50, "concurrency": 200, "rate": 0, **knobs}
    environment = {f"EMULATOR_{name.upper()}": str(value) for name, value in knobs.items()}
    if livekit is not None:
        environment |= livekit.settings()
    if clock is not None:
        environment |= clock.environment()
    with (
        tempfile.TemporaryDirectory() as folder,
        server("liveavatar_emulator", environment, Path(folder), fresh=fresh) as process,
        Emulator(process, process.info["url"], connect_retries=connect_retries) as found,
    ):
        yield found


@contextlib.contextmanager
def gateway(
    upstream: str,
    *arguments: str,
    port: int = 0,
    clock: HastenedClock | WallClock | None = None,
    variables: Mapping[str, str] | None = None,
    log_fd: int | None = None,
    terminal_fd: int | None = None,
    fresh: bool = False,
    **settings: object,
) -> Iterator[Gateway]:
    """Run a gateway in front of `upstream`: 200 sessions, short graces, no tail, unless `settings` say otherwise.

    Args:
        upstream: Address of LiveAvatar.
        arguments: Options of `serve`.
        port: Port of the gateway; 0 takes a free one.
        clock: Clock of the process.
        variables: Environment variables that are no settings.
        log_fd: File descriptor that takes the output in place of the log file.
        terminal_fd: Terminal that becomes the controlling terminal.
        fresh: Start a new interpreter in any case, for a test that looks at what a fork server changes: memory,
            command line or environment of the process.
        settings: Settings of the gateway; without `registry_file`, the registry is a new one.
    """
    settings = {"max_sessions": 200, "settle_s": 0, "ack_interval_s": 0.1, "end_tail_s": 0, **settings}
    with tempfile.TemporaryDirectory() as folder:
        settings = {"registry_file": f"{folder}/registry.db", **settings}
        environment = {f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
        environment["LIVEAVATAR_API_URL"] = upstream
        if not {"api_key", "api_key_file"} & set(settings):
            environment["LIVEAVATAR_API_KEY"] = API_KEY
        environment |= variables or {}
        if clock is not None:
            environment |= clock.environment()
        with server(
            "liveavatar_gateway",
            environment,
            Path(folder),
            *arguments,
            port=port,
            log_fd=log_fd,
            terminal_fd=terminal_fd,
            fresh=fresh,
        ) as process:
            ready = process.info
            yield Gateway(
                process, ready["address"], admin_address=ready["admin_address"], metrics=ready.get("metrics")
            )


def server(
    package: str,
    environment: Mapping[str, str],
    folder: Path,
    *arguments: str,
    port: int = 0,
    log_fd: int | None = None,
    terminal_fd: int | None = None,
    program: Path | None = None,
    fresh: bool = False,
) -> Server:
    """Prepare the `serve` command of one of the two packages, or of an installed `program` in its place.

    Its process is forked within `forking`, unless it is to be `fresh` or needs a new program for another reason.
    """
    words = ["serve", *arguments, "--port", str(port)]
    environment = {**clean_environment(), **environment}
    forks = not fresh and program is None and log_fd is None and terminal_fd is None
    kind = ForkedServer if forks and _fork_servers and _fork_servers[-1].takes(environment) else Server
    return kind(
        package,
        module(package, *words) if program is None else [program, *words],
        folder=folder,
        environment=environment,
        log_fd=log_fd,
        terminal_fd=terminal_fd,
    )
