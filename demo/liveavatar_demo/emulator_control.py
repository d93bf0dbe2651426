"""Client of the emulator's control API: recordings, faults, settings."""

import json
from types import TracebackType
from typing import Any, Final, Self

import httpx

_TIMEOUT_S: Final = 10.0


class EmulatorError(Exception):
    """Failed call of the control API; the message says which, and why."""


class EmulatorUnreachable(EmulatorError):
    """Emulator that does not answer: it is down, or the address is wrong."""


class EmulatorRefused(EmulatorError):
    """Call that the emulator answered with an error: the session has ended, or the value is not valid."""


class EmulatorControl:
    """Blocking client of the control API. Its owner closes it.

    All calls raise `EmulatorUnreachable` or `EmulatorRefused`.

    Attributes:
        http: HTTP client of the emulator, for requests that have no method here.
    """

    def __init__(self, url: str, *, token: str = "", connect_retries: int = 0) -> None:
        """Prepare the client.

        Args:
            url: Address of the emulator.
            token: Control token of the emulator; empty for one on loopback without a token.
            connect_retries: Number of further attempts to connect; a restart refuses connections for a while.
        """
        self.url = url
        transport = httpx.HTTPTransport(retries=connect_retries)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.Client(
            base_url=url, headers=headers, timeout=_TIMEOUT_S, transport=transport, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    def state(self) -> dict[str, Any]:
        """Return the counters."""
        return self._row("GET", "/state")

    def active(self) -> int:
        """Return the number of sessions that are active."""
        return int(self.state()["sessions"]["active"])

    def settings(self) -> dict[str, Any]:
        """Return all settings."""
        return self._row("GET", "/settings")

    def change_settings(self, **changes: object) -> None:
        """Change settings by name."""
        self._call("PATCH", "/settings", changes)

    def change_account(self, account: str, **changes: object) -> None:
        """Change limits of an account: `concurrency`, `rate`, `credits`, `revoked_keys`; None follows the knob."""
        self._call("PATCH", f"/accounts/{account}", changes)

    def log(self) -> list[dict[str, Any]]:
        """Return the event log."""
        return [json.loads(line) for line in self._call("GET", "/log").text.splitlines()]

    def sessions(self) -> list[dict[str, Any]]:
        """Return all recorded sessions in short, in the order of their start."""
        return self._rows("GET", "/sessions")

    def session(self, upstream_id: str) -> dict[str, Any]:
        """Return the whole recording of a session, without its audio."""
        return self._row("GET", f"/sessions/{upstream_id}")

    def audio(self, upstream_id: str) -> bytes:
        """Return all audio that a session received, 24 kHz mono s16le."""
        return self._call("GET", f"/sessions/{upstream_id}/audio").content

    def utterance_audio(self, upstream_id: str, number: int, *, played: bool = False) -> bytes:
        """Return what an utterance received, or of this what was played, 24 kHz mono s16le."""
        path = f"/sessions/{upstream_id}/utterances/{number}/audio?played={str(played).lower()}"
        return self._call("GET", path).content

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults that are armed, and how often each has fired."""
        return self._rows("GET", "/faults")

    def arm(self, **fault: object) -> int:
        """Arm a fault and return its number."""
        return int(self._call("POST", "/faults", fault).headers["Location"].rpartition("/")[2])

    def disarm(self, number: int) -> None:
        """Take a fault back."""
        self._call("DELETE", f"/faults/{number}")

    def clear_faults(self) -> None:
        """Take all faults back."""
        self._call("DELETE", "/faults")

    def restart(self, **how: object) -> None:
        """Restart the service: `down_s` seconds away, with or without `keep_sessions`."""
        self._call("POST", "/restart", how)

    def drop(self, upstream_id: str, code: int | None) -> None:
        """Close a session's socket with a code, or reset it without one."""
        self._call("POST", f"/sessions/{upstream_id}/drop", {"code": code})

    def inject(self, upstream_id: str, event: dict[str, Any]) -> None:
        """Send an event over a session's socket."""
        self._call("POST", f"/sessions/{upstream_id}/inject", event)

    def _rows(self, method: str, path: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._call(method, path).json()
        return rows

    def _row(self, method: str, path: str) -> dict[str, Any]:
        row: dict[str, Any] = self._call(method, path).json()
        return row

    def _call(self, method: str, path: str, body: object = None) -> httpx.Response:
        try:
            response = self.http.request(method, f"/_emulator{path}", json=body)
        except httpx.TransportError as error:
            raise EmulatorUnreachable(
                f"the emulator at {self.url} does not answer ({type(error).__name__}); is the address right?"
            ) from error
        if not response.is_success:
            raise EmulatorRefused(f"the emulator refuses {method} /_emulator{path}: {response.text}")
        return response
