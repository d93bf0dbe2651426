"""Triggers on one session that run an action: the base of faults and scenarios."""

from collections.abc import Callable

from liveavatar_emulator.clock import Clock, Timer
from liveavatar_emulator.driver import SessionDriver
from liveavatar_emulator.faults import Trigger


class ArmedTrigger:
    """Trigger on a session that runs `action` `trigger.times` times, counting anew after each. Closed by `stop`.

    With `needs_socket` the action waits until a client is attached. `on_done` is called after the last run.
    """

    def __init__(
        self,
        driver: SessionDriver,
        trigger: Trigger,
        clock: Clock,
        *,
        action: Callable[[], None],
        on_done: Callable[[], None],
        needs_socket: bool = False,
    ) -> None:
        self._driver = driver
        self._trigger = trigger
        self._clock = clock
        self._action = action
        self._on_done = on_done
        self._needs_socket = needs_socket
        self._left = trigger.times
        self._timer: Timer | None = None
        self._due_at_bytes: int | None = None
        self._due_at_packets: int | None = None
        self._due_at_attach = False

    def start(self) -> None:
        """Observe the session; fires at once if the trigger has no condition."""
        self._driver.add_observer(self)
        if self._trigger.at_once:
            self._reach()
        else:
            self._count_anew()

    def stop(self) -> None:
        """Stop observing the session."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._driver.remove_observer(self)

    def on_attach(self) -> None:
        """Fire if the trigger waits for a socket."""
        if self._due_at_attach:
            self._due_at_attach = False
            self._fire()

    def on_command(self) -> None:
        """Fire if the command completes the awaited bytes or packets."""
        recording = self._driver.session.recording
        if (self._due_at_bytes is not None and recording.received_bytes >= self._due_at_bytes) or (
            self._due_at_packets is not None and recording.packet_count >= self._due_at_packets
        ):
            self._due_at_bytes = self._due_at_packets = None
            self._reach()

    def _count_anew(self) -> None:
        trigger, recording = self._trigger, self._driver.session.recording
        if trigger.after_bytes is not None:
            self._due_at_bytes = recording.received_bytes + trigger.after_bytes
        elif trigger.after_packets is not None:
            self._due_at_packets = recording.packet_count + trigger.after_packets
        elif trigger.after_s is not None:
            self._timer = self._clock.call_at(self._clock.now_s() + trigger.after_s, self._reach)
        else:
            # Without a condition only a new socket separates two runs.
            self._due_at_attach = True

    def _reach(self) -> None:
        self._timer = None
        if self._needs_socket and not self._driver.socket_open:
            self._due_at_attach = True
        else:
            self._fire()

    def _fire(self) -> None:
        self._left -= 1
        if self._left > 0:
            self._count_anew()
        else:
            self.stop()
        self._action()
        if self._left == 0:
            self._on_done()
