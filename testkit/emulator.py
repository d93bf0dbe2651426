"""Client of the emulator's control API."""

import time
from typing import Any, Final

import httpx

from liveavatar_demo.process import Process

API_KEY: Final = "emulator-key"
"""API key that the emulator accepts by default."""


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
