"""Fork server of the tests: gateways and emulators whose packages are imported already.

Tests start hundreds of them, and the imports take most of the CPU time of a start. The fork server imports the
packages once per test process; a start then costs a fork and the start-up of the service itself. Such processes
differ from real ones: /proc shows the command line and the first environment of the fork server, both packages
are loaded, the path of modules is that of the tests, all have one seed of hashes, and they end without the
teardown of the interpreter.
"""

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

PRELOADED = (
    "testkit.fork_server",
    "liveavatar_gateway.cli.serve",
    "liveavatar_emulator.cli",
    "liveavatar_emulator.server",
    # What libraries import on first use.
    "anyio._backends._asyncio",
    "httpcore",
    "uvicorn.lifespan.off",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.h11_impl",
)
"""Modules that the fork server imports; a module that does not exist is left out."""

_READ_LATE = ("GATEWAY_", "EMULATOR_", "LIVEAVATAR_", "LIVEKIT_", "PYTEST_", "XDG_STATE_HOME")
"""Beginnings of variables that no import reads. All others may be for Python, the loader, malloc or gRPC."""

# Also guards against two threads that poll one process: the second would find its exit code read already.
_lock = threading.Lock()


class ForkServer:
    """Starter of processes by fork. Invariant: all have the environment of the first, except what is read late.

    The fork server starts with the first process, and ends with the test process.
    """

    def __init__(self) -> None:
        self._environment: dict[str, str] | None = None

    def takes(self, environment: Mapping[str, str]) -> bool:
        """Return whether a process may have this environment: no variable differs that an import may have read."""
        started_with = os.environ if self._environment is None else self._environment
        return _read_early(environment) == _read_early(started_with)

    def start(
        self, module: str, arguments: Sequence[str], *, environment: Mapping[str, str], log_path: Path
    ) -> "Forked":
        """Start a module as `python -m` does, in a session of its own, without an input.

        Args:
            module: Module to run.
            arguments: Arguments of its command line.
            environment: Whole environment of the process.
            log_path: File that takes the output.
        """
        # Not 0: a file that another thread makes at this moment must not be open to all.
        umask = os.umask(0o077)
        os.umask(umask)
        process = multiprocessing.get_context("forkserver").Process(
            target=_run, args=(module, list(arguments), dict(environment), str(log_path), umask), daemon=True
        )
        with _lock, _nameless_main():
            self._ensure_running()
            process.start()
        return Forked(process)

    def _ensure_running(self) -> None:
        if self._environment is not None:
            return
        environment = dict(os.environ)
        forkserver.set_forkserver_preload(list(PRELOADED))
        # gRPC reads it when it is imported, and the gateway's `__main__` sets it before that.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        try:
            forkserver.ensure_running()
        finally:
            if "GRPC_VERBOSITY" not in environment:
                del os.environ["GRPC_VERBOSITY"]
        self._environment = environment


SHARED = ForkServer()
"""Only instance that starts processes: multiprocessing has one fork server per process."""


class Forked:
    """Process of the fork server, with the methods of `subprocess.Popen` that a launcher needs."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        assert process.pid is not None
        self.pid = process.pid

    def poll(self) -> int | None:
        """Return the exit code, the negative number of a signal, or None while the process runs."""
        with _lock:
            return self._process.exitcode

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end and return the exit code.

        Raises:
            subprocess.TimeoutExpired: the process still runs.
        """
        connection.wait([self._process.sentinel], timeout_s)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout_s or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _read_early(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_READ_LATE) and not name.lower().endswith("_proxy")
    }


@contextlib.contextmanager
def _nameless_main() -> Iterator[None]:
    """Put an empty module in place of the main one, which each process would run again: the `pytest` script."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _run(module: str, arguments: Sequence[str], environment: Mapping[str, str], log_path: str, umask: int) -> None:
    """Become what `python -m module` starts with, and run the module."""
    os.setsid()
    os.umask(umask)
    _connect_streams(log_path)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        # Processes of multiprocessing end without them.
        atexit._run_exitfuncs()


def _connect_streams(log_path: str) -> None:
    """Read from nowhere, write to the log, and close all other files: those of the fork server."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    log = os.open(log_path, os.O_WRONLY)
    os.dup2(nowhere, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for number in [int(entry.name) for entry in Path("/dev/fd").iterdir()]:
        if number > 2:
            # One of them was that of the folder, which is closed.
            with contextlib.suppress(OSError):
                os.close(number)
    # The one that multiprocessing has made reads from a descriptor closed above.
    sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115 - open as long as the process
