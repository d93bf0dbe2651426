"""Waits, on one session, for so much audio or so many seconds, then acts: what faults and scenarios hang on."""

from collections.abc import Callable

from liveavatar_emulator.clock import Clock, Timer
from liveavatar_emulator.driver import LiveSession
from liveavatar_emulator.faults import Trigger


class ArmedTrigger:
    """Acts `trigger.times` times, counting anew after each, then calls `on_done`. Closed by `stop`.

    With `needs_socket` it acts only while a client is attached, and otherwise as soon as one is.
    """

    def __init__(
        self,
        live: LiveSession,
        trigger: Trigger,
        clock: Clock,
        *,
        act: Callable[[], None],
        on_done: Callable[[], None],
        needs_socket: bool = False,
    ) -> None:
        self._live = live
        self._trigger = trigger
        self._clock = clock
        self._act = act
        self._on_done = on_done
        self._needs_socket = needs_socket
        self._left = trigger.times
        self._timer: Timer | None = None
        self._wants_bytes: int | None = None
        self._wants_packets: int | None = None
        self._wants_socket = False

    def start(self) -> None:
        """Take hold of the session; acts at once when there is nothing to wait for."""
        self._live.watchers.append(self)
        if self._trigger.at_once:
            self._due()
        else:
            self._count_anew()

    def stop(self) -> None:
        """Let go of the session."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self in self._live.watchers:
            self._live.watchers.remove(self)

    def attached(self) -> None:
        """A socket was attached."""
        if self._wants_socket:
            self._wants_socket = False
            self._fire()

    def heard(self) -> None:
        """A command was taken in."""
        recording = self._live.core.recording
        if (self._wants_bytes is not None and recording.received_bytes >= self._wants_bytes) or (
            self._wants_packets is not None and recording.packet_count >= self._wants_packets
        ):
            self._wants_bytes = self._wants_packets = None
            self._due()

    def _count_anew(self) -> None:
        trigger, recording = self._trigger, self._live.core.recording
        if trigger.after_bytes is not None:
            self._wants_bytes = recording.received_bytes + trigger.after_bytes
        elif trigger.after_packets is not None:
            self._wants_packets = recording.packet_count + trigger.after_packets
        elif trigger.after_s is not None:
            self._timer = self._clock.call_at(self._clock.now_s() + trigger.after_s, self._due)
        else:
            # Nothing tells one time from the next but another socket.
            self._wants_socket = True

    def _due(self) -> None:
        self._timer = None
        if self._needs_socket and not self._live.socket_open:
            self._wants_socket = True
        else:
            self._fire()

    def _fire(self) -> None:
        self._left -= 1
        if self._left > 0:
            self._count_anew()
        else:
            self.stop()
        self._act()
        if self._left == 0:
            self._on_done()
