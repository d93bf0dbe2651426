"""Starts the emulator and the gateway as the processes users run, on free ports of 127.0.0.1."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from testkit.clock import HastenedClock, WallClock
from testkit.livekit import LiveKitServer

API_KEY = "emulator-key"
START_TIMEOUT_S = 30.0
LOG_TIMEOUT_S = 10.0
_TAKES_TERMINAL = (
    "-c",
    (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    ),
)
"""Makes standard input the controlling terminal of a new session, then goes on as Python with what follows."""


class Process:
    """A running server of ours; its output is kept to be shown when something fails."""

    def __init__(
        self,
        arguments: list[str],
        environment: dict[str, str],
        folder: Path,
        *,
        port: int = 0,
        log_fd: int | None = None,
        terminal_fd: int | None = None,
        program: Path | None = None,
    ) -> None:
        """Start `python -m ARGUMENTS`, or an installed `program` with the arguments behind the first."""
        self.log_path = folder / f"{arguments[0].rpartition('_')[2]}.log"
        self._log = self.log_path.open("wb")
        self._ready_path = folder / f"{arguments[0]}.ready.json"
        taking = _TAKES_TERMINAL if terminal_fd is not None else ()
        command = (
            [sys.executable, *taking, "-m", *arguments] if program is None else [str(program), *arguments[1:]]
        )
        self._process = subprocess.Popen(
            [*command, "--port", str(port), "--ready-file", str(self._ready_path)],
            env={**_clean_environment(), **environment},
            stdout=self._log if log_fd is None else log_fd,
            stderr=subprocess.STDOUT,
            stdin=terminal_fd,
            start_new_session=terminal_fd is not None,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def logged(self, *texts: str, times: int = 1) -> bool:
        """Return whether any of some texts are in the log so often, all together, now or soon.

        Lines are written by a thread of their own, so they come a moment after what they tell of.
        """
        give_up_s = time.monotonic() + LOG_TIMEOUT_S
        while (seen := sum(map(self.log.count, texts))) < times and time.monotonic() < give_up_s:
            time.sleep(0.02)
        return seen >= times

    def wait_ready(self) -> dict[str, Any]:
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while not self._ready_path.exists():
            if self._process.poll() is not None or time.monotonic() > give_up_s:
                raise RuntimeError(f"did not start:\n{self.log}")
            time.sleep(0.02)
        return json.loads(self._ready_path.read_text())

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """What nothing can be done against: the process is gone before its next instruction."""
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)
        self._log.close()


class Emulator:
    """The emulator, and what it saw."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=10)

    def state(self) -> dict[str, Any]:
        return self.http.get("/_emulator/state").raise_for_status().json()

    def active(self) -> int:
        return int(self.state()["sessions"]["active"])

    def wait_active(self, count: int, timeout_s: float = 15.0) -> None:
        """Wait until so many sessions are active."""
        give_up_s = time.monotonic() + timeout_s
        while (active := self.active()) != count:
            assert time.monotonic() < give_up_s, f"{active} sessions are active, expected {count}"
            time.sleep(0.05)

    def runs(self, upstream_id: str) -> bool:
        """Return whether a session is active: the question to ask where sessions of others may be."""
        found = self.http.get("/_emulator/sessions").raise_for_status().json()
        return any(one["id"] == upstream_id and not one["end_reason"] for one in found)

    def end_all(self) -> None:
        """End what tests before left: it would be counted by the next one, or go while that counts."""
        for one in self.http.get("/_emulator/sessions").raise_for_status().json():
            if not one["end_reason"]:
                self.end(one["id"], "USER_CLOSED")
        self.wait_active(0)

    def settings(self, **changes: object) -> None:
        self.http.patch("/_emulator/settings", json=changes).raise_for_status()

    def fault(self, endpoint: str, **fault: object) -> None:
        self.http.post("/_emulator/faults", json={"endpoint": endpoint, **fault}).raise_for_status()

    def socket_fault(self, kind: str, session: str, **fault: object) -> None:
        fault = {"kind": kind, "session": session, **fault}
        self.http.post("/_emulator/faults", json=fault).raise_for_status()

    def clear_faults(self) -> None:
        self.http.delete("/_emulator/faults").raise_for_status()

    def session(self, upstream_id: str) -> dict[str, Any]:
        return self.http.get(f"/_emulator/sessions/{upstream_id}").raise_for_status().json()

    def audio(self, upstream_id: str) -> bytes:
        return self.http.get(f"/_emulator/sessions/{upstream_id}/audio").raise_for_status().content

    def utterance_audio(self, upstream_id: str, number: int) -> bytes:
        path = f"/_emulator/sessions/{upstream_id}/utterances/{number}/audio"
        return self.http.get(path).raise_for_status().content

    def drop(self, upstream_id: str, code: int | None) -> None:
        self.http.post(f"/_emulator/sessions/{upstream_id}/drop", json={"code": code}).raise_for_status()

    def end(self, upstream_id: str, reason: str) -> None:
        """End a session behind the gateway's back."""
        self.http.post(
            "/v1/sessions/stop",
            json={"session_id": upstream_id, "reason": reason},
            headers={"X-API-KEY": API_KEY},
        ).raise_for_status()

    def inject(self, upstream_id: str, event: dict[str, Any]) -> None:
        self.http.post(f"/_emulator/sessions/{upstream_id}/inject", json=event).raise_for_status()


class Gateway:
    """The gateway, and where it listens."""

    def __init__(
        self, process: Process, address: str, *, admin_address: str = "", metrics: str | None = None
    ) -> None:
        self.process = process
        self.address = address
        self.admin_address = admin_address
        """Empty unless `admin_port` is set."""
        self.metrics = metrics


def _clean_environment() -> dict[str, str]:
    """The environment without settings and proxies that someone's shell may have."""
    ours = ("GATEWAY_", "EMULATOR_", "LIVEAVATAR_", "LIVEKIT_")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) and not name.lower().endswith("_proxy")
    }


@contextlib.contextmanager
def emulator(*, livekit: LiveKitServer | None = None, **knobs: object) -> Iterator[Emulator]:
    """Run an emulator: quick to be ready, no rate limit and room for 200 sessions unless `knobs` say otherwise.

    With `livekit` its sessions have real rooms there.
    """
    knobs = {"ready_delay_ms": 50, "concurrency": 200, "rate": 0, **knobs}
    environment = {f"EMULATOR_{name.upper()}": str(value) for name, value in knobs.items()}
    if livekit is not None:
        environment |= {
            "EMULATOR_LIVEKIT_URL": livekit.url,
            "EMULATOR_LIVEKIT_KEY": livekit.api_key,
            "EMULATOR_LIVEKIT_SECRET": livekit.api_secret,
        }
    with tempfile.TemporaryDirectory() as folder:
        process = Process(["liveavatar_emulator", "serve"], environment, Path(folder))
        try:
            found = Emulator(process, process.wait_ready()["url"])
            with found.http:
                yield found
        finally:
            process.stop()


@contextlib.contextmanager
def gateway(
    upstream: str,
    *arguments: str,
    port: int = 0,
    clock: HastenedClock | WallClock | None = None,
    variables: Mapping[str, str] | None = None,
    log_fd: int | None = None,
    terminal_fd: int | None = None,
    **settings: object,
) -> Iterator[Gateway]:
    """Run a gateway in front of `upstream`: 200 sessions, short graces, no tail, unless `settings` say otherwise.

    It has a registry of its own, unless `settings` name one; `clock` sets its date, or hastens it; `variables` are
    those that are no settings. `log_fd` takes its output in place of a file; `terminal_fd` becomes its controlling
    terminal.
    """
    settings = {"max_sessions": 200, "settle_s": 0, "ack_interval_s": 0.1, "end_tail_s": 0, **settings}
    with tempfile.TemporaryDirectory() as folder:
        settings = {"registry_file": f"{folder}/registry.db", **settings}
        environment = {f"GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
        environment["LIVEAVATAR_API_URL"] = upstream
        if not {"api_key", "api_key_file"} & set(settings):
            environment["LIVEAVATAR_API_KEY"] = API_KEY
        environment |= variables or {}
        if clock is not None:
            environment |= clock.environment()
        command = ["liveavatar_gateway", "serve", *arguments]
        process = Process(command, environment, Path(folder), port=port, log_fd=log_fd, terminal_fd=terminal_fd)
        try:
            ready = process.wait_ready()
            yield Gateway(
                process,
                ready["address"],
                admin_address=ready["admin_address"],
                metrics=ready.get("metrics"),
            )
        finally:
            process.stop()
