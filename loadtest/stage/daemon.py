"""Processes that take part in a measurement, each on its cores."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from liveavatar_demo.process import Process, StartFailed, module
from stage.cores import on_cores
from stage.errors import StageError

__all__ = ["Daemon", "module", "tail"]

_LOG_LINES = 15


class Daemon(Process):
    """Server whose threads all run on `cores`, or on any core if `cores` is empty."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        cores: Collection[int],
        workdir: Path,
        environment: Mapping[str, str] | None = None,
        ready_timeout_s: float = 60.0,
    ) -> None:
        """Prepare the process without starting it; its environment is this one's and `environment`."""
        super().__init__(
            name,
            command,
            folder=workdir,
            environment={**os.environ, **(environment or {})},
            ready_timeout_s=ready_timeout_s,
        )
        self._cores = cores

    def start(self) -> None:
        """Start the process on its cores and wait until it is ready.

        Raises:
            StageError: the process ended, or was not ready in time.
        """
        try:
            with on_cores(self._cores):
                super().start()
        except StartFailed as error:
            raise StageError(str(error)) from error

    def check(self) -> None:
        """Make sure that the process still runs.

        Raises:
            StageError: the process ended; the message holds the end of its log.
        """
        if self.exit_code is not None:
            raise StageError(f"{self.name} ended early\n{tail(self.log_path)}")


def say_ready(path: Path, **info: object) -> None:
    """Write a process's ready file, with what its starter needs to know."""
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps({"pid": os.getpid(), **info}))
    draft.rename(path)


def tail(log: Path) -> str:
    """Return the last lines of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
