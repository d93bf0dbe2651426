"""Voices of a session's users for programs without an event loop."""

from types import TracebackType
from typing import Self

from liveavatar.gateway.audio import AudioFormat
from liveavatar.gateway.listener import AsyncListener, UserAudio
from liveavatar.gateway.portal import Portal


class Listener:
    """Audio of a session's users: `for chunk in listener`; the blocking counterpart of `AsyncListener`.

    One thread reads. Close it with `with` or `close`.
    """

    def __init__(self, listener: AsyncListener, portal: Portal) -> None:
        self._listener = listener
        self._portal = portal

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._listener!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> UserAudio:
        chunk = self.next()
        if chunk is None:
            raise StopIteration
        return chunk

    @property
    def format(self) -> AudioFormat:
        """Format of the audio."""
        return self._listener.format

    @property
    def connected(self) -> bool:
        """True while the gateway is in the room; otherwise the stream is being opened, or is over."""
        return self._listener.connected

    def next(self, timeout: float | None = None) -> UserAudio | None:
        """Wait for the next audio; None after the end of the session, or after `close`.

        After a timeout the next call opens another stream.

        Raises:
            DeadlineExceeded: no audio came within `timeout` seconds.
            GatewayError: no gateway was reachable any more, or the gateway refused.
        """
        return self._portal.call(self._listener.next(), timeout)

    def close(self) -> None:
        """Stop listening. Idempotent; has no effect in a fork."""
        if not self._portal.forked:
            self._portal.run(self._listener.close)
