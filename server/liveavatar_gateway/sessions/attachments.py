"""Who holds a session: streams and waiting calls. A session that nobody holds is abandoned after its grace."""

import asyncio
import time
from collections.abc import Callable

from liveavatar_gateway.core.errors import AttachSuperseded, GatewayError
from liveavatar_gateway.sessions.wakeup import Wakeup

_STOOD_STILL_S = 0.5
"""A grace whose end is noticed later than this ended while the process stood still."""
_HEARING_S = 2.0
"""How long whoever came back meanwhile has to be heard."""


def _nothing() -> None:
    """What most holders do at once when another takes their part."""


class Attachment:
    """One stream's (or waiting call's) grip on a session. While there is one, the session is not abandoned."""

    def __init__(self, holds: "Attachments", on_superseded: Callable[[], None]) -> None:
        self._holds = holds
        self._on_superseded = on_superseded
        self.signal = Wakeup()
        """Set when the session has news."""
        self.superseded: GatewayError | None = None

    def supersede(self, error: GatewayError) -> None:
        """Tell the holder that another took its part.

        It does not hold the session any more, even when its caller reads nothing and so never hears of it.
        """
        self.superseded = error
        self._holds.let_go(self)
        self._on_superseded()
        self.signal.set()

    def detach(self) -> None:
        """Keep the session alive no longer, and still be told of its news until `release`. Idempotent."""
        self._holds.detach(self)

    def release(self) -> None:
        """Let go. Idempotent."""
        self._holds.let_go(self)


class Attachments:
    """All holds of one session. Needs the running loop for its one timer."""

    def __init__(
        self,
        session_id: str,
        *,
        grace_s: float,
        abandon: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        """Begin without a hold, and without a grace that runs.

        Args:
            session_id: Whose they are.
            grace_s: How long the session waits for somebody once nobody holds it.
            abandon: Called when that time is over.
            changed: Called when `detached_until_s` is another.
        """
        self._session_id = session_id
        self._grace_s = grace_s
        self._abandon = abandon
        self._changed = changed
        self._all: set[Attachment] = set()
        # Of streams whose caller has closed its side while something is still owed to it.
        self._detached: set[Attachment] = set()
        self._attach: Attachment | None = None
        self._audio: Attachment | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.detached_until_s: float | None = None
        """Until when the session waits for somebody, monotonic seconds; None while it does not."""

    @property
    def attached(self) -> bool:
        """Whether an `Attach` stream holds the session."""
        return self._attach is not None

    def hold(self, on_superseded: Callable[[], None] = _nothing) -> Attachment:
        """Keep the session from being abandoned, until `release`."""
        hold = Attachment(self, on_superseded)
        self._all.add(hold)
        self._stop_grace()
        return hold

    def attach(self) -> Attachment:
        """Hold it as its `Attach` stream; an earlier one is superseded."""
        earlier, self._attach = self._attach, self.hold()
        if earlier is not None:
            earlier.supersede(AttachSuperseded(self._session_id))
        return self._attach

    def speak(self, error_for_earlier: GatewayError, on_superseded: Callable[[], None]) -> Attachment:
        """Hold it as its `StreamAudio` stream; an earlier one is superseded.

        Args:
            error_for_earlier: Why the earlier one ends.
            on_superseded: Called when a later one takes over, before that one does anything: the place to leave
                open what it may go on with.
        """
        earlier, self._audio = self._audio, self.hold(on_superseded)
        if earlier is not None:
            earlier.supersede(error_for_earlier)
        return self._audio

    def let_go(self, hold: Attachment) -> None:
        """Called by `Attachment.release`. Without any hold the session lives for its grace."""
        self._detached.discard(hold)
        self._audio = None if self._audio is hold else self._audio
        self._drop(hold)

    def detach(self, hold: Attachment) -> None:
        """Detach a stream. `StreamAudio` can still be superseded: another may go on with its speech."""
        if hold in self._all:
            self._detached.add(hold)
            self._drop(hold)

    def _drop(self, hold: Attachment) -> None:
        if hold not in self._all:
            return
        self._all.discard(hold)
        self._attach = None if self._attach is hold else self._attach
        self.expect_somebody(self._grace_s)

    def expect_somebody(self, grace_s: float) -> None:
        """Unless somebody holds the session, wait so long for that."""
        if self._all or self._closed:
            return
        self._stop_grace()
        self._timer = asyncio.get_running_loop().call_later(grace_s, self._end_grace)
        self.detached_until_s = time.monotonic() + grace_s
        self._changed()

    def _end_grace(self) -> None:
        """Abandon the session, unless this process stood still: somebody may have come back meanwhile, unheard."""
        assert self.detached_until_s is not None  # noqa: S101 - set with the timer
        if time.monotonic() > self.detached_until_s + _STOOD_STILL_S:
            self.expect_somebody(min(self._grace_s, _HEARING_S))
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
        for hold in (*self._all, *self._detached):
            hold.signal.set()

    def supersede(self, error: GatewayError) -> None:
        """Another process has the session: tell everybody who holds it here."""
        for hold in (*self._all, *self._detached):
            hold.supersede(error)

    def close(self) -> None:
        """The session is over: nobody is waited for any more."""
        self._closed = True
        self._stop_grace()
