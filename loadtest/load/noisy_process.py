"""The flooding tenant as a process: its command, its order, its counts, its end."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from load.figures import Recorder
from load.noisy import Counts, Flooding
from stage.cores import on_cores
from stage.daemon import tail
from stage.errors import StageError
from stage.tenants import NOISY

_FOLDER: Final = Path(__file__).parents[1]


class NoisyProcess:
    """Context manager around the process. It floods from `begin` on, in the windows of its order."""

    def __init__(self, flooding: Flooding, *, cores: Collection[int], folder: Path) -> None:
        """Prepare the process without starting it.

        Args:
            flooding: Order, still without the schedule's zero.
            cores: Cores that it may use; all if empty.
            folder: Where its counts and its log go.
        """
        self._flooding = flooding
        self._cores = cores
        self._counts = folder / "noisy.jsonl"
        self._log = folder / "noisy.log"
        self._zero_mono_s = 0.0
        self._begun = False
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        path = os.pathsep.join([str(_FOLDER), *filter(None, [os.environ.get("PYTHONPATH", "")])])
        with on_cores(self._cores), self._counts.open("wb") as counts, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "load.noisy"],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=counts,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._started()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        self._close_stdin()
        process.wait()

    def begin(self, zero_mono_s: float) -> None:
        """Send the order with the schedule's zero; a second call changes nothing."""
        if self._begun:
            return
        self._begun, self._zero_mono_s = True, zero_mono_s
        stdin = self._started().stdin
        assert stdin is not None
        # A process that has ended is found by `check`.
        with contextlib.suppress(BrokenPipeError):
            stdin.write(f"{replace(self._flooding, zero_mono_s=zero_mono_s).to_json()}\n".encode())
            stdin.flush()

    def check(self) -> None:
        """Make sure that the process runs, or has ended as it should.

        Raises:
            StageError: the process failed; the message holds the end of its log.
        """
        if status := self._started().poll():
            raise StageError(f"the flooding tenant ended with status {status}\n{tail(self._log)}")

    def finish(self, *, within_s: float) -> Recorder:
        """Wait until the process has ended, and return its counts.

        Args:
            within_s: Time for its last session to end; then the flood is cut short, and has as long again.

        Raises:
            StageError: the process failed, or did not end.
        """
        process = self._started()
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._close_stdin()
            try:
                process.wait(max(within_s, _END_WITHIN_S))
            except subprocess.TimeoutExpired:
                raise StageError(f"the flooding tenant did not end\n{tail(self._log)}") from None
        self.check()
        measured = Recorder(self._zero_mono_s)
        for line in self._counts.read_text().splitlines():
            counts = Counts.from_json(line)
            for recorder in (measured, measured.of_tenant(NOISY)):
                counts.add_to(recorder)
        return measured

    def _close_stdin(self) -> None:
        stdin = self._started().stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StageError("the flooding tenant was not started")
        return self._process


_END_WITHIN_S: Final = 40.0
"""Longest time for ending what is under way: above every deadline inside a session's end."""
