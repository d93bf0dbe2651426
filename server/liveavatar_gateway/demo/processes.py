"""The demo's two servers: children on free ports of 127.0.0.1, ended on every way out."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

EMULATOR_KEY: Final = "emulator-key"
"""The API key that the emulator takes unless told otherwise."""

_START_TIMEOUT_S: Final = 20.0
_STOP_TIMEOUT_S: Final = 8.0
_POLL_S: Final = 0.02
_TAIL_LINES: Final = 12
_OURS: Final = ("GATEWAY_", "EMULATOR_", "LIVEAVATAR_", "LIVEKIT_")


class StartFailed(RuntimeError):
    """A server did not come up; the message holds the end of its log."""


class Child:
    """One server. Invariant: left by the context manager, its process has ended.

    It is in a process group of its own, so that Ctrl-C reaches the demo alone, which ends its servers in order.
    """

    def __init__(self, module: str, arguments: Sequence[str], settings: Mapping[str, str], folder: Path) -> None:
        """Prepare; nothing runs yet.

        Args:
            module: What `python -m` runs; its command is `serve`.
            arguments: Options of `serve`.
            settings: Environment variables on top of the caller's, without settings that its shell may have.
            folder: Where its log and its ready file go.
        """
        self._module = module
        self._ready_path = folder / f"{module}.json"
        self._log_path = folder / f"{module}.log"
        self._command = [sys.executable, "-m", module, "serve", "--port", "0"]
        self._command += ["--ready-file", str(self._ready_path), *arguments]
        self._environment = {**clean_environment(os.environ), **settings}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is None:
            return
        try:
            process.terminate()
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        except BaseException:
            # A second Ctrl-C: no patience left, but no child left either.
            process.kill()
            process.wait()
            raise

    def wait_ready(self) -> dict[str, Any]:
        """Wait for its ready file.

        Raises:
            StartFailed: it ended, or took too long.
        """
        give_up_mono_s = time.monotonic() + _START_TIMEOUT_S
        while not self._ready_path.exists():
            if self._process is None or self._process.poll() is not None:
                raise StartFailed(f"{self._module} did not start; its log ends with\n{self.log_tail()}")
            if time.monotonic() > give_up_mono_s:
                raise StartFailed(
                    f"{self._module} was not ready within {_START_TIMEOUT_S:.0f} s; its log ends with\n"
                    f"{self.log_tail()}"
                )
            time.sleep(_POLL_S)
        found: dict[str, Any] = json.loads(self._ready_path.read_text(encoding="utf-8"))
        return found

    def log_tail(self) -> str:
        """The last lines that it logged, each with the module's name."""
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {self._module}: {line}" for line in lines[-_TAIL_LINES:])


@dataclass(frozen=True, slots=True)
class Servers:
    """The emulator and, in front of it, the gateway."""

    emulator_url: str
    """Its REST and control API."""
    gateway_address: str
    """Where calls go: "host:port"."""
    children: tuple[Child, ...]

    def log_tail(self) -> str:
        """The last lines of both."""
        return "\n".join(child.log_tail() for child in self.children)


@contextlib.contextmanager
def servers(*, ready_delay_ms: int, emulator_settings: Mapping[str, str]) -> Iterator[Servers]:
    """Run both servers for a block; the gateway ends first, so that it can still stop what it started.

    Args:
        ready_delay_ms: How long the emulated avatar takes to get ready.
        emulator_settings: Environment variables for the emulator alone.

    Raises:
        StartFailed: one of them did not come up.
    """
    with tempfile.TemporaryDirectory(prefix="liveavatar-demo-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        knobs = ["--ready-delay-ms", str(ready_delay_ms)]
        emulator = stack.enter_context(Child("liveavatar_emulator", knobs, emulator_settings, folder))
        url = emulator.wait_ready()["url"]
        settings = {
            "LIVEAVATAR_API_URL": url,
            "LIVEAVATAR_API_KEY": EMULATOR_KEY,
            "GATEWAY_ACK_INTERVAL_S": "0.1",  # a smoother progress bar
            "GATEWAY_DRAIN_GRACE_S": "0",
        }
        gateway = stack.enter_context(Child("liveavatar_gateway", [], settings, folder))
        yield Servers(url, gateway.wait_ready()["address"], (emulator, gateway))


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings of ours, and without proxies, since all of it stays on 127.0.0.1."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_OURS) and not name.lower().endswith("_proxy")
    }
