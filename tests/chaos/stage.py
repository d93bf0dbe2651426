"""Stage of a run: the emulator, two gateways on one registry, and proxies between all of them."""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from chaos.proxy import Proxy

from testkit import processes
from testkit.clock import WallClock


def _lasting_port() -> int:
    """Return a free port that the system gives to no other process while the owner is dead."""
    first_given_out = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(first_given_out // 2, first_given_out), 100):
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")


class Node:
    """Gateway process that may die and restart on the same port, behind a proxy for its callers."""

    def __init__(self, upstream: str, registry: Path, name: str) -> None:
        self._upstream = upstream
        self._registry = registry
        self.name = name
        self._stack = contextlib.ExitStack()
        self._port = _lasting_port()
        self.busy = asyncio.Lock()
        """Held by a fault that ends its process, until that runs again."""
        self.clock = WallClock(registry.with_name(f"{name}.clock"))
        self.gateway: processes.Gateway | None = None
        self.proxy: Proxy | None = None
        self._numbers = itertools.count(1)
        self._log = registry.with_name(f"{name}.log")
        self._reader: subprocess.Popen[bytes] | None = None
        self.logs: list[str] = []
        self.exit_code: int | None = None
        """Of the last of its processes; None while that runs."""

    def start(self) -> None:
        """Start it, on the port that it had."""
        settings: dict[str, Any] = {
            "registry_file": self._registry,
            "sweep_s": 1,
            "detach_grace_s": 15,
            "drain_grace_s": 4,
            "reconnect_budget_s": 10,
            "log_level": "info",
        }
        reading, writing = os.pipe()
        self._log = self._registry.with_name(f"{self.name}-{next(self._numbers)}.log")
        try:
            with self._log.open("wb") as log:
                # A process of its own, so that its end closes the only reading end.
                self._reader = subprocess.Popen(["cat"], stdin=reading, stdout=log)
            self.gateway = self._stack.enter_context(
                processes.gateway(self._upstream, port=self._port, clock=self.clock, log_fd=writing, **settings)
            )
        finally:
            os.close(reading)
            os.close(writing)
        if self.proxy is None:
            self.proxy = self._stack.enter_context(Proxy(self.gateway.address))

    def send(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        assert self.gateway is not None
        self.gateway.process.send(number)

    def kill(self) -> None:
        """End its process between two instructions."""
        assert self.gateway is not None
        self.gateway.process.kill()
        self.keep_log()

    def drained(self) -> int:
        """Wait until SIGTERM has done its work; returns the exit code."""
        assert self.gateway is not None
        code = self.gateway.process.wait(30)
        self.keep_log()
        return code

    def stop_reading_the_log(self) -> None:
        """End whoever reads what its process writes: each further line fails."""
        assert self._reader is not None
        self._reader.kill()
        self._reader.wait(10)

    def keep_log(self) -> None:
        """Keep what the process that has ended wrote."""
        assert self._reader is not None
        self._reader.wait(10)
        self.logs.append(self._log.read_text(errors="replace"))

    def close(self) -> None:
        """End it, and keep what it wrote up to its end."""
        if self.gateway is not None:
            self.gateway.process.stop()
            self.exit_code = self.gateway.process.wait(1)
            self.keep_log()
        self._stack.close()


class Stage:
    """All processes of one run."""

    def __init__(self, profile: str, folder: Path) -> None:
        self._stack = contextlib.ExitStack()
        self.emulator = self._stack.enter_context(
            # A restart refuses connections for up to 2 s, also to whoever wants to do the next fault.
            processes.emulator(profile=profile, credits=1_000_000, keep_sessions=100_000, connect_retries=4)
        )
        self.upstream = self._stack.enter_context(Proxy(self.emulator.url))
        self.registry = folder / "registry.db"
        self.nodes = [Node(f"http://{self.upstream.address}", self.registry, f"gateway-{name}") for name in "ab"]
        for node in self.nodes:
            self._stack.callback(node.close)
            node.start()

    @property
    def targets(self) -> list[str]:
        """Addresses for callers, in order of preference."""
        return [node.proxy.address for node in self.nodes if node.proxy is not None]

    def close(self) -> None:
        """End all of it."""
        self._stack.close()
