"""Readiness of an avatar: an open socket is not enough, and some builds never send `connected`."""

from dataclasses import dataclass
from enum import Enum, unique

from liveavatar_gateway.core import messages as wire
from liveavatar_gateway.core.errors import ReadyTimeout


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadinessConfig:
    """Deadlines, in seconds."""

    ready_timeout_s: float = 20.0
    """Longest time from the open socket to a ready avatar. LiveAvatar's own clients wait 15 to 20 s."""
    probe_after_s: float = 5.0
    """Delay and period of a harmless interrupt that probes a socket without `connected`."""
    connected_wait_s: float = 3.0
    """Longest wait for `connected` on a socket that was opened again. Some builds send `connected` once per
    session, others again for each socket, and these may lose commands that come earlier. Lower resumes speech
    sooner."""


@unique
class Due(Enum):
    """Action that is due while an avatar is not ready."""

    NOTHING = "nothing"
    PROBE = "probe"
    """Send an interrupt: no other command is answered by a silent avatar without an effect on it."""
    READY = "ready"
    """Treat the avatar as ready."""
    GIVE_UP = "give up"


class Readiness:
    """Watch over a socket from its opening until its avatar is ready. No clock: times are arguments."""

    __slots__ = ("_config", "_give_up_at_s", "_probe_at_s", "_probed", "_ready_at_s")

    def __init__(self, config: ReadinessConfig) -> None:
        self._config = config
        self._give_up_at_s: float | None = None
        self._probe_at_s: float | None = None
        self._ready_at_s: float | None = None
        self._probed = False

    def open(self, now_s: float, *, fresh: bool) -> None:
        """Start to watch an open socket; `fresh` when its avatar was never ready before."""
        self.close()
        if fresh:
            self._give_up_at_s = now_s + self._config.ready_timeout_s
            self._probe_at_s = now_s + self._config.probe_after_s
        else:
            self._ready_at_s = now_s + self._config.connected_wait_s

    def close(self) -> None:
        """Stop all waits."""
        self._give_up_at_s = self._probe_at_s = self._ready_at_s = None
        self._probed = False

    def is_shown_by(self, event: wire.Event) -> bool:
        """Return True when an event proves that commands are handled: `connected`, or the answer to a probe."""
        if isinstance(event, wire.StateUpdated):
            return event.state == "connected"
        return self._probed and not isinstance(event, wire.Unknown | wire.PongReceived)

    @property
    def deadline_s(self) -> float | None:
        """Time of the next `tick`."""
        waits = (self._give_up_at_s, self._probe_at_s, self._ready_at_s)
        return min((at_s for at_s in waits if at_s is not None), default=None)

    def tick(self, now_s: float) -> Due:
        """Return the action that is due by now."""
        if self._give_up_at_s is not None and now_s >= self._give_up_at_s:
            return Due.GIVE_UP
        if self._probe_at_s is not None and now_s >= self._probe_at_s:
            self._probed = True
            self._probe_at_s = now_s + self._config.probe_after_s
            return Due.PROBE
        if self._ready_at_s is not None and now_s >= self._ready_at_s:
            return Due.READY
        return Due.NOTHING

    def timeout(self) -> ReadyTimeout:
        """Return the error for an avatar that was not ready in time."""
        timeout_s = self._config.ready_timeout_s
        return ReadyTimeout(f"the avatar was not ready within {timeout_s:g} s; try again", timeout_s=timeout_s)
