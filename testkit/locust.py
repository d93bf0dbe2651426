"""Locust as the process users run: the load suite's generator, configured by `LOAD_*`."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from liveavatar_demo.process import Process, module
from load.run_config import Report, RunConfig
from testkit.checkout import PYTHONPATH, ROOT

END_WITHIN_S = 120.0


class Locust(Process):
    """Running Locust."""

    def __init__(self, order: RunConfig | None, folder: Path, arguments: tuple[str, ...]) -> None:
        """Prepare Locust; without `order`, as a user starts it without the load suite's settings."""
        self.order = order
        variables = {} if order is None else {**order.to_environment(), "LOCUST_SKIP_MONKEY_PATCH": "1"}
        shell = {name: value for name, value in os.environ.items() if not name.startswith("LOAD_")}
        super().__init__(
            "locust",
            module("locust", "-f", str(ROOT / "loadtest/locustfile.py"), *arguments),
            folder=folder,
            environment={**shell, **variables, "PYTHONPATH": PYTHONPATH},
            ready_file=False,
        )

    def interrupt(self) -> None:
        """Send what Ctrl-C at its terminal sends: SIGINT to all its processes."""
        self.send_to_group(signal.SIGINT)

    def terminate(self) -> None:
        self.send(signal.SIGTERM)

    def wait(self, timeout_s: float = END_WITHIN_S) -> int:
        try:
            return super().wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"locust did not end within {timeout_s:g} s:\n{self.log}") from None

    def report(self) -> Report:
        assert self.order is not None
        path = Path(self.order.report)
        assert path.exists(), f"no report was written:\n{self.log}"
        return Report.load(path)

    def stop(self, timeouts_s: Iterable[float] = ()) -> None:
        """Kill all its processes."""
        if self.exit_code is None:
            self.send_to_group(signal.SIGKILL)
        super().stop(timeouts_s)


@contextmanager
def locust(
    order: RunConfig | None, folder: Path, *arguments: str, web_port: int | None = None
) -> Iterator[Locust]:
    """Run Locust for a block; with a web page if `web_port` is given."""
    page = ("--headless", "--only-summary") if web_port is None else ("--web-port", str(web_port))
    with Locust(order, folder, (*page, "--exit-code-on-error", "0", *arguments)) as running:
        yield running


def processes(count: int) -> tuple[str, ...]:
    """Return arguments for several processes, with a port that no other test uses."""
    port = str(free_port())
    return ("--processes", str(count), "--master-bind-host", "127.0.0.1", "--master-bind-port", port,
            "--master-port", port)  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
