"""Streams and waiting calls of a session. A session without any is abandoned after its grace."""

import asyncio
import time
from collections.abc import Callable

from liveavatar_gateway.core.errors import AttachSuperseded, AudioStreamSuperseded, GatewayError
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.upstream.standstill import EXTRA_WAIT_S, STOOD_STILL_S


def _do_nothing() -> None:
    """Do nothing, for a stream that leaves nothing behind when it is superseded."""


class Attachment:
    """Stream or waiting call. A session with an attachment is not abandoned."""

    def __init__(
        self, attachments: "Attachments", on_superseded: Callable[[], None], wakeup: Wakeup | None = None
    ) -> None:
        self._attachments = attachments
        self._on_superseded = on_superseded
        self.wakeup = wakeup or Wakeup()
        """Set when the session has news."""
        self.superseded: GatewayError | None = None
        """Error for the stream once another has taken its role; None before."""

    def supersede(self, error: GatewayError) -> None:
        """Release the attachment, and end its stream with an error.

        The release does not wait for the stream, since a caller that reads nothing never gets the error.
        """
        self.superseded = error
        self._attachments.release(self)
        self._on_superseded()
        self.wakeup.set()

    def detach(self) -> None:
        """Stop keeping the session alive; its news still arrive until `release`. Idempotent."""
        self._attachments.detach(self)

    def release(self) -> None:
        """End the attachment. Idempotent."""
        self._attachments.release(self)


class Attachments:
    """All attachments of one session. Needs the running loop for its one timer."""

    def __init__(
        self,
        session_id: str,
        *,
        grace_s: float,
        abandon: Callable[[], None],
        changed: Callable[[], None],
        on_stream: Callable[[], None] = _do_nothing,
    ) -> None:
        """Begin without an attachment, and without a running grace.

        Args:
            session_id: The gateway's id of the session.
            grace_s: Time that a session without an attachment waits for one.
            abandon: Called at the end of that time.
            changed: Called when `detached_until_s` changes.
            on_stream: Called when a stream is opened.
        """
        self._session_id = session_id
        self._grace_s = grace_s
        self._abandon = abandon
        self._changed = changed
        self._on_stream = on_stream
        self._all: set[Attachment] = set()
        # Streams whose caller has closed its side and still waits for something, and those that only observe.
        self._detached: set[Attachment] = set()
        self._attach: Attachment | None = None
        self._audio: Attachment | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.detached_until_s: float | None = None
        """End of the running grace, monotonic seconds; None while none runs."""

    @property
    def attached(self) -> bool:
        """True while an `Attach` stream is open."""
        return self._attach is not None

    @property
    def is_empty(self) -> bool:
        """True while no stream or waiting call is attached."""
        return not self._all

    def add(self, on_superseded: Callable[[], None] = _do_nothing) -> Attachment:
        """Add an attachment, which counts until its `release`."""
        attachment = Attachment(self, on_superseded)
        self._all.add(attachment)
        self._stop_grace()
        return attachment

    def observe(self, wakeup: Wakeup | None = None) -> Attachment:
        """Add an attachment that has the session's news and does not keep it alive: its grace runs regardless.

        Args:
            wakeup: Set when the session has news; None for one of its own.
        """
        attachment = Attachment(self, _do_nothing, wakeup)
        self._detached.add(attachment)
        return attachment

    def add_attach_stream(self) -> Attachment:
        """Add the session's `Attach` stream; an earlier one is superseded."""
        self._on_stream()
        earlier, self._attach = self._attach, self.add()
        if earlier is not None:
            earlier.supersede(AttachSuperseded(self._session_id))
        return self._attach

    def add_audio_stream(self, on_superseded: Callable[[], None]) -> Attachment:
        """Add the session's `StreamAudio` stream; an earlier one is superseded.

        Args:
            on_superseded: Called before a later stream does anything, to orphan an utterance that the later stream
                may continue.
        """
        self._on_stream()
        earlier, self._audio = self._audio, self.add(on_superseded)
        if earlier is not None:
            earlier.supersede(AudioStreamSuperseded(self._session_id))
        return self._audio

    def release(self, attachment: Attachment) -> None:
        """End an attachment. Without any, the grace starts."""
        self._detached.discard(attachment)
        self._audio = None if self._audio is attachment else self._audio
        self._drop(attachment)

    def detach(self, attachment: Attachment) -> None:
        """Detach a stream. `StreamAudio` can still be superseded: another may continue its speech."""
        if attachment in self._all:
            self._detached.add(attachment)
            self._drop(attachment)

    def _drop(self, attachment: Attachment) -> None:
        if attachment not in self._all:
            return
        self._all.discard(attachment)
        self._attach = None if self._attach is attachment else self._attach
        self.start_grace(self._grace_s)

    def start_grace(self, grace_s: float) -> None:
        """Abandon the session after `grace_s` seconds, unless it has or gets an attachment."""
        if self._all or self._closed:
            return
        self._stop_grace()
        self._timer = asyncio.get_running_loop().call_later(grace_s, self._end_grace)
        self.detached_until_s = time.monotonic() + grace_s
        self._changed()

    def _end_grace(self) -> None:
        """Abandon the session. After a standstill, first read what callers sent meanwhile."""
        assert self.detached_until_s is not None  # noqa: S101 - set with the timer
        if time.monotonic() > self.detached_until_s + STOOD_STILL_S:
            self.start_grace(min(self._grace_s, EXTRA_WAIT_S))
        else:
            self._abandon()

    def _stop_grace(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.detached_until_s = None
            self._changed()

    def wake(self) -> None:
        """Wake every stream of the session: it has news."""
        for attachment in (*self._all, *self._detached):
            attachment.wakeup.set()

    def supersede_all(self, error: GatewayError) -> None:
        """End every stream with an error: another process owns the session."""
        for attachment in (*self._all, *self._detached):
            attachment.supersede(error)

    def close(self) -> None:
        """Start no further grace: the session is over."""
        self._closed = True
        self._stop_grace()
