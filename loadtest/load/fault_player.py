"""Plays a timeline of faults against the emulator while a run goes on."""

import threading
import time
from types import TracebackType
from typing import Any, Self

from load.control import Control
from load.timeline import Timeline, TimelineEvent
from stage.errors import StageError


class FaultPlayer:
    """Does what the timeline says, in a thread of its own, from `begin` until it is left.

    `played` holds what was done, as the result has it. What it changed for a while and could not put back in time
    is put back on leaving.
    """

    def __init__(self, timeline: Timeline, control: Control | None) -> None:
        """Prepare it.

        Raises:
            StageError: there is something to play and no emulator to play it against.
        """
        if timeline.happenings and control is None:
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
        if self._thread is None and self._timeline.happenings:
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
            for at_s, happening, undo in self._timeline.steps():
                # Over early: nothing new is done, what was done is undone at once.
                over = self._over.wait(max(0.0, self._zero_mono_s + at_s - time.monotonic()))
                if undo:
                    self._undo(happening)
                elif not over:
                    self._do(happening)
        except StageError as error:
            self.problem = f"faults stopped: {error}"

    def _do(self, happening: TimelineEvent) -> None:
        control = self._control
        assert control is not None
        if happening.settings is not None:
            known = control.settings()
            self._before[id(happening)] = {name: known[name] for name in happening.settings if name in known}
            control.call("PATCH", "/settings", happening.settings)
        elif happening.fault is not None:
            control.call("POST", "/faults", happening.fault)
        else:
            control.call("POST", "/restart", happening.restart)
        at_s = time.monotonic() - self._zero_mono_s
        self.played.append({"at_s": round(at_s, 3), "what": happening.what, "for_s": happening.for_s})

    def _undo(self, happening: TimelineEvent) -> None:
        before = self._before.pop(id(happening), None)
        if before and self._control is not None:
            self._control.call("PATCH", "/settings", before)
