"""Starts services of docker-compose.yml as processes of this machine: the same commands and the same environment.

Host names become 127.0.0.1 and ports free ones; nothing else is changed. What only an image of others has
(LiveKit, Prometheus, Grafana) is not started.
"""

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from liveavatar_demo.process import Process, clean_environment
from testkit.checkout import PYTHONPATH, ROOT

FILE = ROOT / "docker-compose.yml"
HEALTHY_WITHIN_S = 60.0
_PROGRAMS = {
    "liveavatar-gateway": [sys.executable, "-m", "liveavatar_gateway"],
    "liveavatar-emulator": [sys.executable, "-m", "liveavatar_emulator"],
    "locust": [sys.executable, "-m", "locust"],
    "python": [sys.executable],
}
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:?-)([^}]*))?\}")


def load(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the file with its variables filled in, as compose does it."""
    given = environment or {}

    def value(match: re.Match[str]) -> str:
        name, operator, default = match.groups()
        if name not in given or (operator == ":-" and not given[name]):
            return default or ""
        return given[name]

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: filled(child) for key, child in node.items()}
        if isinstance(node, list):
            return [filled(child) for child in node]
        return _VARIABLE.sub(value, node) if isinstance(node, str) else node

    return filled(yaml.safe_load(FILE.read_text()))


class Compose:
    """The services that were started, on this machine's ports."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.services = load(variables)["services"]
        self.folder = folder
        self._ports: dict[str, str] = {}
        self._running: list[Process] = []
        names = "|".join(map(re.escape, [*self.services, "0.0.0.0"]))
        self._hosts = re.compile(rf"(?<![\w.-])(?:{names})(?=:\d)")
        self._names = set(self.services) | {"0.0.0.0"}

    def here(self, text: str) -> str:
        """Return a word of the file as it is on this machine."""
        if text in self._names:
            return "127.0.0.1"
        text = text.replace("/app/", f"{ROOT}/").replace("/results", str(self.folder / "results"))
        text = text.replace("/run/emulator", str(self.folder))
        text = self._hosts.sub("127.0.0.1", text)
        return re.sub(r"(?<!\d)(?:50051|9464|8787|8089|5557)(?!\d)", lambda port: self.port(port[0]), text)

    def port(self, port: str) -> str:
        """Return the free port that stands for one of the file's."""
        if port not in self._ports:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self._ports[port] = str(free.getsockname()[1])
        return self._ports[port]

    def start(self, name: str, number: int = 1) -> Process:
        """Start one service."""
        service = self.services[name]
        command = self._command(service["command"])
        environment = {
            **clean_environment(),
            # The image has a volume for it.
            "GATEWAY_REGISTRY_FILE": str(self.folder / "registry.db"),
            "PYTHONPATH": PYTHONPATH,
            **{key: self.here(str(value)) for key, value in service.get("environment", {}).items()},
        }
        running = Process(
            f"{name}-{number}", command, folder=self.folder, environment=environment, ready_file=False
        )
        running.start()
        self._running.append(running)
        return running

    def running(self, name: str) -> Process:
        """Return a started service."""
        return next(service for service in self._running if service.name.rpartition("-")[0] == name)

    def wait_healthy(self, service: Process) -> None:
        """Run the service's own health check until it succeeds."""
        kind, *test = self.services[service.name.rpartition("-")[0]]["healthcheck"]["test"]
        assert kind == "CMD"
        command = self._command(test)
        give_up_s = time.monotonic() + HEALTHY_WITHIN_S
        while subprocess.run(command, capture_output=True, check=False, timeout=30).returncode != 0:
            assert service.exit_code is None, f"{service.name} ended:\n{service.log}"
            assert time.monotonic() < give_up_s, f"{service.name} is not healthy:\n{service.log}"
            time.sleep(0.2)

    def _command(self, words: list[str]) -> list[str]:
        return [*_PROGRAMS[words[0]], *map(self.here, words[1:])]

    def stop(self) -> None:
        for service in reversed(self._running):
            service.stop()
            # A service may have children of its own.
            service.send_to_group(signal.SIGKILL)


@contextlib.contextmanager
def compose(folder: Path, **variables: str) -> Iterator[Compose]:
    """Services of the file, ended at the end."""
    found = Compose(folder, **variables)
    try:
        yield found
    finally:
        found.stop()
