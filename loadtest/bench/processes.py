"""Starts and stops the processes that take part, each on its core."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.cpu import on_core
from bench.settings import BenchError

_POLL_S = 0.02
_LOG_LINES = 15


class Daemon:
    """A Python module that runs as a process of its own: ready when it writes its ready file, over at SIGTERM.

    Use it as a context manager. All its threads run on `core`. Its output goes to a log file in `workdir`.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        core: int,
        workdir: Path,
        environment: Mapping[str, str] | None = None,
        ready_within_s: float = 60.0,
    ) -> None:
        self.module = module
        self.info: Mapping[str, Any] = {}
        self._ready_file = workdir / f"{module}.ready"
        self._log = workdir / f"{module}.log"
        self._command = [sys.executable, "-m", module, *arguments, "--ready-file", str(self._ready_file)]
        self._core = core
        self._environment = {**os.environ, **(environment or {})}
        self._ready_within_s = ready_within_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id."""
        if self._process is None:
            raise BenchError(f"{self.module} was not started")
        return self._process.pid

    def __enter__(self) -> Self:
        with on_core(self._core), self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self.info = self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, *, within_s: float = 20.0) -> None:
        """Ask it to end, and kill it if it does not; once it is over this does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def check(self) -> None:
        """Make sure that it still runs.

        Raises:
            BenchError: It does not, with the end of its log.
        """
        if self._process is None or self._process.poll() is not None:
            raise BenchError(f"{self.module} ended early\n{self._tail()}")

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> Mapping[str, Any]:
        deadline_s = time.monotonic() + self._ready_within_s
        while time.monotonic() < deadline_s:
            if process.poll() is not None:
                raise BenchError(f"{self.module} ended with status {process.returncode}\n{self._tail()}")
            if self._ready_file.exists() and (text := self._ready_file.read_text()):
                info: dict[str, Any] = json.loads(text)
                return info
            time.sleep(_POLL_S)
        raise BenchError(f"{self.module} was not ready after {self._ready_within_s:g} s\n{self._tail()}")

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES:])
