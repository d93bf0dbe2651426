"""Emulator and gateway of the demo, on free ports of 127.0.0.1."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from liveavatar_demo.process import Process, clean_environment, module

EMULATOR_KEY: Final = "emulator-key"
"""API key that the emulator accepts by default."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Emulator, and the gateway in front of it."""

    emulator_url: str
    """Address of its REST and control API."""
    gateway_address: str
    """Address of the gateway, "host:port"."""
    processes: tuple[Process, ...]

    def log_tail(self) -> str:
        """Return the last lines of both logs."""
        return "\n".join(process.log_tail() for process in self.processes)


@contextlib.contextmanager
def servers(
    *, ready_delay_ms: int, emulator_settings: Mapping[str, str], gateway_settings: Mapping[str, str] | None = None
) -> Iterator[Servers]:
    """Run both servers for a block; the gateway ends first, so that it can still stop its upstream sessions.

    Args:
        ready_delay_ms: Time that the emulated avatar takes to get ready.
        emulator_settings: Environment variables for the emulator alone.
        gateway_settings: Environment variables for the gateway alone.

    Raises:
        StartFailed: one of them did not become ready.
    """
    with tempfile.TemporaryDirectory(prefix="liveavatar-demo-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)

        def run(package: str, arguments: list[str], settings: Mapping[str, str]) -> Process:
            command = module(package, "serve", "--port", "0", *arguments)
            environment = {**clean_environment(), **settings}
            return stack.enter_context(Process(package, command, folder=folder, environment=environment))

        delay = ["--ready-delay-ms", str(ready_delay_ms)]
        emulator = run("liveavatar_emulator", delay, emulator_settings)
        url = emulator.info["url"]
        settings = {
            "LIVEAVATAR_API_URL": url,
            "LIVEAVATAR_API_KEY": EMULATOR_KEY,
            "GATEWAY_ACK_INTERVAL_S": "0.1",  # a smoother progress bar
            "GATEWAY_DRAIN_GRACE_S": "0",
            "GATEWAY_REGISTRY_FILE": str(folder / "registry.db"),
            **(gateway_settings or {}),
        }
        gateway = run("liveavatar_gateway", [], settings)
        yield Servers(url, gateway.info["address"], (emulator, gateway))
