"""Emulator in a process of its own, with waits and checks of tests."""

import time
from typing import Final

from liveavatar_demo.emulator_control import EmulatorControl
from liveavatar_demo.process import Process

API_KEY: Final = "emulator-key"
"""API key that the emulator accepts by default."""


class Emulator(EmulatorControl):
    """The emulator, and what it saw."""

    def __init__(self, process: Process, url: str, *, connect_retries: int = 0) -> None:
        super().__init__(url, connect_retries=connect_retries)
        self.process = process

    def wait_active(self, count: int, timeout_s: float = 15.0) -> None:
        """Wait until so many sessions are active."""
        give_up_s = time.monotonic() + timeout_s
        while (active := self.active()) != count:
            assert time.monotonic() < give_up_s, f"{active} sessions are active, expected {count}"
            time.sleep(0.05)

    def runs(self, upstream_id: str) -> bool:
        """Return whether a session is active: the question to ask where sessions of others may be."""
        return any(one["id"] == upstream_id and not one["end_reason"] for one in self.sessions())

    def end_all(self) -> None:
        """End what tests before left: it would be counted by the next one, or go while that counts."""
        for one in self.sessions():
            if not one["end_reason"]:
                self.end(one["id"], "USER_CLOSED")
        self.wait_active(0)

    def fault(self, endpoint: str, **fault: object) -> None:
        """Arm a fault of a REST endpoint."""
        self.arm(endpoint=endpoint, **fault)

    def socket_fault(self, kind: str, session: str, **fault: object) -> None:
        """Arm a fault of a session's socket."""
        self.arm(kind=kind, session=session, **fault)

    def end(self, upstream_id: str, reason: str) -> None:
        """End a session behind the gateway's back."""
        self.http.post(
            "/v1/sessions/stop",
            json={"session_id": upstream_id, "reason": reason},
            headers={"X-API-KEY": API_KEY},
        ).raise_for_status()
