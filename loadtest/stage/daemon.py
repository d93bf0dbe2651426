"""Start and stop of a measurement's processes, each on its core."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stage.cores import on_cores
from stage.errors import StageError

_POLL_S = 0.02
_LOG_LINES = 15


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a Python module with this interpreter."""
    return [sys.executable, "-m", name, *arguments]


class Daemon:
    """Process that is ready when it writes the file named by `--ready-file`, and ends at SIGTERM.

    Use it as a context manager. All its threads run on `cores`, on any if there are none. Its output goes to a log
    file in `workdir`. Ctrl-C at the terminal does not reach it: its starter stops it, in the right order.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        cores: Collection[int],
        workdir: Path,
        environment: Mapping[str, str] | None = None,
        ready_within_s: float = 60.0,
    ) -> None:
        self.name = name
        self.info: Mapping[str, Any] = {}
        self.log = workdir / f"{name}.log"
        self._ready_file = workdir / f"{name}.ready"
        self._command = [*command, "--ready-file", str(self._ready_file)]
        self._cores = cores
        self._environment = {**os.environ, **(environment or {})}
        self._ready_within_s = ready_within_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id."""
        if self._process is None:
            raise StageError(f"{self.name} was not started")
        return self._process.pid

    def __enter__(self) -> Self:
        with on_cores(self._cores), self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
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
            StageError: It does not, with the end of its log.
        """
        if self._process is None or self._process.poll() is not None:
            raise StageError(f"{self.name} ended early\n{tail(self.log)}")

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> Mapping[str, Any]:
        deadline_s = time.monotonic() + self._ready_within_s
        while time.monotonic() < deadline_s:
            if process.poll() is not None:
                raise StageError(f"{self.name} ended with status {process.returncode}\n{tail(self.log)}")
            if self._ready_file.exists() and (text := self._ready_file.read_text()):
                info: dict[str, Any] = json.loads(text)
                return info
            time.sleep(_POLL_S)
        raise StageError(f"{self.name} was not ready after {self._ready_within_s:g} s\n{tail(self.log)}")


def say_ready(path: Path, **info: object) -> None:
    """Write a process's ready file, with what its starter needs to know."""
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps({"pid": os.getpid(), **info}))
    draft.rename(path)


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(lines[-_LOG_LINES:])
