"""Player of a timeline of faults against the emulator during a run."""

import threading
import time
from types import TracebackType
from typing import Any, Self

from liveavatar_demo.emulator_control import EmulatorControl, EmulatorError
from load.timeline import Timeline, TimelineEvent
from stage.errors import StageError


class FaultPlayer:
    """Context manager that plays a timeline in a thread of its own, from `begin` on.

    `played` holds the events played so far, for the result. Leaving puts back all settings that are still changed.
    """

    def __init__(self, timeline: Timeline, control: EmulatorControl | None) -> None:
        """Prepare it.

        Raises:
            StageError: the timeline has events, but there is no emulator.
        """
        if timeline.events and control is None:
            raise StageError("faults are played by the emulator: say where it is with --emulator")
        self.played: list[dict[str, Any]] = []
        self.problem = ""
        self._timeline = timeline
        self._control = control
        self._before: dict[int, dict[str, Any]] = {}
        self._zero_mono_s = 0.0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def begin(self, zero_mono_s: float) -> None:
        """Play from the schedule's zero on; a second call changes nothing."""
        if self._thread is None and self._timeline.events:
            self._zero_mono_s = zero_mono_s
            self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
            self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            for at_s, event, undo in self._timeline.steps():
                # At an early end no new fault is played, and all are undone at once.
                over = self._over.wait(max(0.0, self._zero_mono_s + at_s - time.monotonic()))
                if undo:
                    self._undo(event)
                elif not over:
                    self._do(event)
        except EmulatorError as error:
            self.problem = f"faults stopped: {error}"

    def _do(self, event: TimelineEvent) -> None:
        control = self._control
        assert control is not None
        if event.settings is not None:
            known = control.settings()
            self._before[id(event)] = {name: known[name] for name in event.settings if name in known}
            control.change_settings(**event.settings)
        elif event.fault is not None:
            control.arm(**event.fault)
        else:
            control.restart(**(event.restart or {}))
        at_s = time.monotonic() - self._zero_mono_s
        self.played.append({"at_s": round(at_s, 3), "what": event.what, "for_s": event.for_s})

    def _undo(self, event: TimelineEvent) -> None:
        before = self._before.pop(id(event), None)
        if before and self._control is not None:
            self._control.change_settings(**before)
