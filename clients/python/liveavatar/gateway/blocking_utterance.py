"""Utterance for programs without an event loop."""

from collections.abc import Iterator

from liveavatar.gateway.model import Outcome, Progress
from liveavatar.gateway.portal import Portal
from liveavatar.gateway.utterance import AsyncUtterance


class Utterance:
    """Utterance on its way to the avatar; the blocking counterpart of `AsyncUtterance`."""

    def __init__(self, utterance: AsyncUtterance, portal: Portal) -> None:
        self._utterance = utterance
        self._portal = portal

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._utterance!r}>"

    @property
    def id(self) -> str:
        """Id of the utterance, in events and for `interrupt`."""
        return self._utterance.id

    @property
    def outcome(self) -> Outcome | None:
        """Final outcome, also of a failed utterance; None until the utterance ends."""
        return self._utterance.outcome

    @property
    def progress(self) -> Progress:
        """Progress by the newest ack."""
        return self._utterance.progress

    @property
    def paused(self) -> bool:
        """True while speech is paused at this utterance, by whichever process."""
        return self._utterance.paused

    def result(self, timeout: float | None = None) -> Outcome:
        """Wait until the utterance was played or interrupted, and return its outcome.

        Raises:
            DeadlineExceeded: the wait took longer than `timeout` seconds; the utterance goes on.
            GatewayError: the utterance failed; the class is the reason.
            Exception: the iterator of the audio raised this, or the file could not be read.
        """
        return self._portal.call(self._utterance.result(), timeout)

    def started(self, timeout: float | None = None) -> bool:
        """Wait for the first sound; return False when the utterance ended before it was heard."""
        return self._portal.call(self._utterance.started(), timeout)

    def progress_updates(self, timeout: float | None = None) -> Iterator[Progress]:
        """Iterate over the progress, after each change; see `AsyncUtterance.progress_updates`."""
        return self._portal.iterate(self._utterance.progress_updates(), timeout)

    def interrupt(self, timeout: float | None = None) -> Outcome:
        """Silence the utterance and wait for its outcome. Has no effect on an utterance that has ended."""
        return self._portal.call(self._utterance.interrupt(), timeout)
