"""Locust as a process: its command, its environment, its end."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from load.run_config import RunConfig
from stage.cores import on_cores
from stage.daemon import tail
from stage.errors import StageError

FOLDER: Final = Path(__file__).parents[1]
LOCUSTFILE: Final = FOLDER / "locustfile.py"

ENVIRONMENT: Final = {
    # grpc.aio needs the system's own sockets, threads and selectors; users stay greenlets.
    "LOCUST_SKIP_MONKEY_PATCH": "1",
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}
"""Environment of each Locust process of a run, also of those started by hand."""


class LocustProcess:
    """Locust, from its start to the file it leaves. A context manager: leaving ends all its processes."""

    def __init__(
        self,
        config: RunConfig,
        *,
        cores: Collection[int],
        folder: Path,
        processes: int = 1,
        expect_workers: int = 0,
        bind: str = "127.0.0.1:5557",
        web: str = "",
    ) -> None:
        """Prepare it.

        Args:
            config: Configuration of the run.
            cores: Cores that it may use; all if empty.
            folder: Where its log and its own statistics go.
            processes: Processes that generate load on this machine.
            expect_workers: Workers that come over the network; 0 makes it do all by itself.
            bind: Where those come to, `host:port`.
            web: Where Locust's web page is while it runs, `host:port`; empty has no page.
        """
        self._config = config
        self._cores = cores
        self.log = folder / "locust.log"
        self._arguments = [
            *("--locustfile", str(LOCUSTFILE)),
            *("--csv", str(folder / "locust")),
            *("--html", str(folder / "locust.html")),
            # The suite gives the verdict: an error that a fault provoked is no failure.
            *("--exit-code-on-error", "0"),
        ]
        if web:
            host, _, port = web.rpartition(":")
            self._arguments += ["--web-host", host, "--web-port", port, "--autostart", "--autoquit", "1"]
        else:
            self._arguments += ["--headless", "--only-summary"]
        if expect_workers:
            host, _, port = bind.rpartition(":")
            self._arguments += ["--master", "--expect-workers", str(expect_workers)]
            self._arguments += ["--master-bind-host", host, "--master-bind-port", port]
        elif processes > 1:
            # A free port, because another run on this machine may use Locust's default.
            port = _free_port()
            self._arguments += ["--processes", str(processes), "--master-bind-host", "127.0.0.1"]
            self._arguments += ["--master-bind-port", port, "--master-port", port]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        environment = {**os.environ, **ENVIRONMENT, **self._config.to_environment()}
        with on_cores(self._cores), self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "locust", *self._arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
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
        process.wait()

    @property
    def over(self) -> bool:
        """True when it has ended."""
        return self._started().poll() is not None

    def stop(self, *, within_s: float) -> None:
        """Ask it to end what it does and report, and wait for that."""
        process = self._started()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(within_s)
            except subprocess.TimeoutExpired:
                return

    def check(self) -> None:
        """Make sure that it ended as it should.

        Raises:
            StageError: it did not, with the end of its log.
        """
        status = self._started().poll()
        if status != 0:
            raise StageError(f"locust ended with status {status}; {self.log} has it all\n{tail(self.log)}")

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StageError("locust was not started")
        return self._process


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
