"""Launcher of every server process in this project: the demo's, the tests', the chaos runs' and the load runs'."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, Self

_READY_TIMEOUT_S: Final = 45.0
_STOP_TIMEOUT_S: Final = 20.0
_POLL_S: Final = 0.02
_TAIL_LINES: Final = 12
_LINE_CHARS: Final = 240
_OURS: Final = ("GATEWAY_", "EMULATOR_", "LIVEAVATAR_", "LIVEKIT_")
_TAKE_TERMINAL: Final = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Program that makes standard input the controlling terminal and continues as the command in its arguments."""


class StartFailed(RuntimeError):
    """A process did not become ready; the message holds the end of its log."""


class Child(Protocol):
    """Running process, as a launcher sees it: the part of `subprocess.Popen` that `Process` uses."""

    @property
    def pid(self) -> int:
        """Process id."""

    def poll(self) -> int | None:
        """Return the exit code, the negative number of a signal, or None while the process runs."""

    def wait(self, timeout_s: float | None = None, /) -> int:
        """Wait for the end and return the exit code, or raise `subprocess.TimeoutExpired`."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal, unless the process has ended."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


class Process:
    """Child process with a log file. Invariant: after `stop`, the process has ended.

    The process has a session of its own, so Ctrl-C at the terminal reaches only the parent, which ends its
    children in order.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        folder: Path,
        environment: Mapping[str, str],
        ready_file: bool = True,
        ready_timeout_s: float = _READY_TIMEOUT_S,
        log_fd: int | None = None,
        terminal_fd: int | None = None,
    ) -> None:
        """Prepare the process without starting it.

        Args:
            name: Name in messages, and of the files in `folder`.
            command: Program and arguments.
            folder: Folder of the log file and the ready file.
            environment: Whole environment of the process.
            ready_file: Pass `--ready-file FILE` and wait for that file on start.
            ready_timeout_s: Longest wait for the ready file.
            log_fd: File descriptor that takes the output in place of the log file.
            terminal_fd: Terminal that becomes the standard input and the controlling terminal.
        """
        self.name = name
        self.log_path = folder / f"{name}.log"
        self.info: Mapping[str, Any] = {}
        """Content of the ready file."""
        self._ready_path = folder / f"{name}.ready.json" if ready_file else None
        self._command = [str(word) for word in command]
        if self._ready_path is not None:
            self._command += ["--ready-file", str(self._ready_path)]
        if terminal_fd is not None:
            self._command = [sys.executable, "-c", _TAKE_TERMINAL, *self._command]
        self._environment = dict(environment)
        self._ready_timeout_s = ready_timeout_s
        self._log_fd = log_fd
        self._stdin = subprocess.DEVNULL if terminal_fd is None else terminal_fd
        self._process: Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            StartFailed: the process ended, or was not ready in time; it has been stopped.
        """
        if self._ready_path is not None:
            # The file of an earlier process in the same folder names that one's addresses.
            self._ready_path.unlink(missing_ok=True)
        with self.log_path.open("wb") as log:
            self._process = self._spawn(log)
        if self._ready_path is not None:
            try:
                self.info = self._wait_ready(self._ready_path)
            except BaseException:
                self.stop()
                raise

    @property
    def pid(self) -> int:
        """Process id."""
        return self._started.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code; None while the process runs."""
        return self._started.poll()

    @property
    def log(self) -> str:
        """Everything logged so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def log_tail(self, lines: int = _TAIL_LINES) -> str:
        """Return the last lines of the log, each after the name of the process."""
        return "\n".join(f"  {self.name}: {line[:_LINE_CHARS]}" for line in self.log.splitlines()[-lines:])

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._started.send_signal(number)

    def send_to_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and its children, as Ctrl-C does at a terminal."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait(self, timeout_s: float) -> int:
        """Wait for the end and return the exit code."""
        return self._started.wait(timeout_s)

    def kill(self) -> None:
        """End the process between two of its instructions."""
        self._started.kill()
        self._started.wait()

    def stop(self, timeouts_s: Iterable[float] = (_STOP_TIMEOUT_S,)) -> None:
        """Send SIGTERM, once per timeout, and kill what still runs. Do nothing before the start.

        A second Ctrl-C ends the waiting at once, without leaving the process behind.
        """
        if self._process is None:
            return
        try:
            for timeout_s in timeouts_s:
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout_s)
                    return
        finally:
            self.kill()

    def _spawn(self, log: BinaryIO) -> Child:
        return subprocess.Popen(  # noqa: S603 - commands come from this project, without a shell
            self._command,
            env=self._environment,
            stdin=self._stdin,
            stdout=log if self._log_fd is None else self._log_fd,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _wait_ready(self, path: Path) -> dict[str, Any]:
        give_up_mono_s = time.monotonic() + self._ready_timeout_s
        while not (path.exists() and (text := path.read_text(encoding="utf-8"))):
            if self.exit_code is not None:
                raise StartFailed(
                    f"{self.name} did not start, it ended with status {self.exit_code}; its log ends with\n"
                    f"{self.log_tail()}"
                )
            if time.monotonic() > give_up_mono_s:
                raise StartFailed(
                    f"{self.name} was not ready within {self._ready_timeout_s:g} s; its log ends with\n"
                    f"{self.log_tail()}"
                )
            time.sleep(_POLL_S)
        found: dict[str, Any] = json.loads(text)
        return found

    @property
    def _started(self) -> Child:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a Python module with this interpreter."""
    return [sys.executable, "-m", name, *arguments]


def clean_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment without this project's settings and without proxies: all traffic is on 127.0.0.1."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_OURS) and not name.lower().endswith("_proxy")
    }
