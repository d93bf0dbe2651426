"""Watch of many sessions for programs without an event loop."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from liveavatar.gateway.portal import Portal
from liveavatar.gateway.watch import AsyncWatch
from liveavatar.gateway.watch_state import WatchChange


class Watch:
    """Events of many sessions; the blocking counterpart of `AsyncWatch`.

    Use it as `with client.watch(...) as changes:` and iterate over it. One thread reads; any thread may add and
    remove sessions.
    """

    def __init__(self, watch: AsyncWatch, portal: Portal, *, open_timeout_s: float | None) -> None:
        self._watch = watch
        self._portal = portal
        self._open_timeout_s = open_timeout_s

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._watch!r}>"

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> WatchChange:
        change = self.next()
        if change is None:
            raise StopIteration
        return change

    @property
    def sequences(self) -> Mapping[str, int]:
        """Sequence of the last event read of each watched session; given to `watch`, it continues from here."""
        return self._portal.run(lambda: self._watch.sequences)

    @property
    def connected(self) -> bool:
        """True while the stream is up; otherwise it is being opened again, or is over."""
        return self._watch.connected

    def open(self) -> Self:
        """Open the watch and wait until the gateway has answered. `with` does this.

        Raises:
            DeadlineExceeded: no answer within the `timeout` of `watch`.
            GatewayError: the gateway refused.
        """
        self._portal.call(self._watch.open(), bound_s=self._open_timeout_s)
        return self

    def next(self, timeout: float | None = None) -> WatchChange | None:
        """Wait for the next change; None at the end, see `AsyncWatch.next`.

        Raises:
            DeadlineExceeded: no change came within `timeout` seconds; the watch goes on.
            GatewayError: no gateway was reachable any more, or the gateway refused.
        """
        return self._portal.call(self._watch.next(), timeout)

    def add(self, session_id: str, after_sequence: int = 0) -> None:
        """Watch another session; see `AsyncWatch.add`."""
        self._portal.run(lambda: self._watch.add(session_id, after_sequence))

    def remove(self, session_id: str) -> None:
        """Stop watching a session; see `AsyncWatch.remove`."""
        self._portal.run(lambda: self._watch.remove(session_id))

    def close(self) -> None:
        """Stop watching. Idempotent; has no effect in a fork."""
        if not self._portal.forked:
            self._portal.call(self._watch.close())
