"""An utterance without an event loop."""

from collections.abc import Iterator

from liveavatar.gateway.model import Outcome, Progress
from liveavatar.gateway.portal import Portal
from liveavatar.gateway.utterance import AsyncUtterance


class Utterance:
    """An utterance on its way, as `AsyncUtterance`, without the awaiting. Spoken whether or not anybody waits."""

    def __init__(self, utterance: AsyncUtterance, portal: Portal) -> None:
        self._utterance = utterance
        self._portal = portal

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._utterance!r}>"

    @property
    def id(self) -> str:
        """Its id, in events and for `interrupt`."""
        return self._utterance.id

    @property
    def outcome(self) -> Outcome | None:
        """What became of it, also where it failed; None while it lives."""
        return self._utterance.outcome

    @property
    def progress(self) -> Progress:
        """How far it has come, by the newest ack."""
        return self._utterance.progress

    def result(self, timeout: float | None = None) -> Outcome:
        """Wait for its end: played or interrupted.

        Raises:
            DeadlineExceeded: it took longer than `timeout` seconds; the utterance goes on.
            GatewayError: it failed; the class says why.
            Exception: its audio's own iterator raised this, or its file could not be read.
        """
        return self._portal.call(self._utterance.result(), timeout)

    def started(self, timeout: float | None = None) -> bool:
        """Wait for its first sound; False when it ended before anything was heard."""
        return self._portal.call(self._utterance.started(), timeout)

    def progress_updates(self, timeout: float | None = None) -> Iterator[Progress]:
        """Its progress, each time it changed, to its end. A slow reader skips to the newest."""
        return self._portal.drawn(self._utterance.progress_updates(), timeout)

    def interrupt(self, timeout: float | None = None) -> Outcome:
        """Silence it, wherever it is, and wait for its end: a no-op when it has ended."""
        return self._portal.call(self._utterance.interrupt(), timeout)
