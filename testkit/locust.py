"""Locust as the process users run: the load suite's generator, told what to do by `LOAD_*`."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from load.run_config import Report, RunConfig
from testkit.checkout import PYTHONPATH, ROOT

END_WITHIN_S = 120.0


class Locust:
    """A running one; its output is kept to be shown when something fails."""

    def __init__(self, order: RunConfig | None, folder: Path, arguments: tuple[str, ...]) -> None:
        """Start it; without an order it is plain Locust, as somebody types it."""
        self.order = order
        variables = {} if order is None else {**order.to_environment(), "LOCUST_SKIP_MONKEY_PATCH": "1"}
        self.log_path = folder / "locust.log"
        self._log = self.log_path.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest/locustfile.py"), *arguments],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("LOAD_")},
                **variables,
                "PYTHONPATH": PYTHONPATH,
            },
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def interrupt(self) -> None:
        """Ctrl-C at its terminal: all its processes get it."""
        os.killpg(self._process.pid, signal.SIGINT)

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, timeout_s: float = END_WITHIN_S) -> int:
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"locust did not end within {timeout_s:g} s:\n{self.log}") from None

    def report(self) -> Report:
        assert self.order is not None
        path = Path(self.order.report)
        assert path.exists(), f"no report was written:\n{self.log}"
        return Report.load(path)

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(5)
        self._log.close()


@contextmanager
def locust(
    order: RunConfig | None, folder: Path, *arguments: str, web_port: int | None = None
) -> Iterator[Locust]:
    """Run it; without its web page unless that has a port."""
    page = ("--headless", "--only-summary") if web_port is None else ("--web-port", str(web_port))
    running = Locust(order, folder, (*page, "--exit-code-on-error", "0", *arguments))
    try:
        yield running
    finally:
        running.close()


def processes(count: int) -> tuple[str, ...]:
    """Arguments for several processes, on a port that no other test has."""
    port = str(free_port())
    return ("--processes", str(count), "--master-bind-host", "127.0.0.1", "--master-bind-port", port,
            "--master-port", port)  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
