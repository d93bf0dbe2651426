"""Client of the emulator's control API."""

from types import TracebackType
from typing import Any, Self

import httpx

from stage.errors import StageError

_TIMEOUT_S = 10.0


class Control:
    """Client of the emulator's control API. Its owner closes it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=f"{url}/_emulator", timeout=_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def state(self) -> dict[str, Any]:
        """Return the counters.

        Raises:
            StageError: it does not answer.
        """
        return self._row(self.call("GET", "/state"))

    def active(self) -> int:
        """Return the number of sessions that live upstream.

        Raises:
            StageError: it does not answer.
        """
        return int(self.state()["sessions"]["active"])

    def settings(self) -> dict[str, Any]:
        """Return all settings.

        Raises:
            StageError: it does not answer.
        """
        return self._row(self.call("GET", "/settings"))

    def sessions(self) -> list[dict[str, Any]]:
        """Return all recorded sessions in short, in the order of their start.

        Raises:
            StageError: it does not answer.
        """
        rows = self.call("GET", "/sessions")
        return rows if isinstance(rows, list) else []

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Call the API and return the answer as plain values; None when it has no body.

        Raises:
            StageError: it does not answer, or refuses.
        """
        try:
            response = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise StageError(
                f"the emulator at {self.url} does not answer: {type(error).__name__}; is --emulator right?"
            ) from error
        if not response.is_success:
            raise StageError(f"the emulator refuses {method} /_emulator{path}: {response.text}")
        return response.json() if response.content else None

    @staticmethod
    def _row(answer: Any) -> dict[str, Any]:
        return answer if isinstance(answer, dict) else {}
