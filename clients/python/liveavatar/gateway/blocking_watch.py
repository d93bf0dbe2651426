"""Watching many sessions without an event loop."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from liveavatar.gateway.portal import Portal
from liveavatar.gateway.watch import AsyncWatch
from liveavatar.gateway.watch_state import WatchChange


class Watch:
    """What happens in many sessions, as `AsyncWatch`, without the awaiting.

    Use it as `with client.watch(...) as changes:` and iterate over it. One thread reads; any may add and remove.
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
        """The last event that was read of each watched session: what to give to `watch` to go on from here."""
        return self._portal.run(lambda: self._watch.sequences)

    @property
    def connected(self) -> bool:
        """Whether the stream is up now; while it is not, it is being opened again."""
        return self._watch.connected

    def open(self) -> Self:
        """Begin to watch and wait until the gateway has answered. `with` does this.

        Raises:
            DeadlineExceeded: no answer within the `timeout` the watch was made with.
            GatewayError: it was refused.
        """
        self._portal.call(self._watch.open(), bound_s=self._open_timeout_s)
        return self

    def next(self, timeout: float | None = None) -> WatchChange | None:
        """The next change; None at the end, see `AsyncWatch.next`.

        Raises:
            DeadlineExceeded: none came within `timeout` seconds; the watch goes on.
            GatewayError: the gateway could not be reached any more, or refused.
        """
        return self._portal.call(self._watch.next(), timeout)

    def add(self, session_id: str, after_sequence: int = 0) -> None:
        """Watch one session more, see `AsyncWatch.add`."""
        self._portal.run(lambda: self._watch.add(session_id, after_sequence))

    def remove(self, session_id: str) -> None:
        """Watch one session less, see `AsyncWatch.remove`."""
        self._portal.run(lambda: self._watch.remove(session_id))

    def close(self) -> None:
        """Stop watching. Idempotent; does nothing in a fork."""
        if not self._portal.forked:
            self._portal.call(self._watch.close())
