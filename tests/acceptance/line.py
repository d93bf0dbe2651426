"""Lines of a proof: each has a goal, and a figure that meets it or not."""

import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Self

MAX_STALL_S: Final = 0.5
"""Longest time for which the machine may stand still during a line; a line that saw more is void and repeated."""
_PROBE_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of a line."""

    figure: str
    """Measured values."""
    passed: bool
    void: bool = False
    """True if the measurement says nothing, so that the line is repeated."""
    details: tuple[str, ...] = ()
    """Lines of a table of its own, printed below that of the lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Extent of a run."""

    seed: int
    long: bool
    """True for the whole proof, False for the short profile of CI."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Promise that a run proves."""

    name: str
    goal: str
    run: Callable[[Setting], Awaitable[Outcome]]
    """Measures; raises for what must not happen at all."""
    in_short: bool = True
    """False for a line that the short profile leaves out."""
    measures_time: bool = False
    """True for a line that a machine which stalls makes void."""


class StallProbe:
    """Thread that notices when the machine stands still."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        """Longest standstill so far."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            began_s = time.monotonic()
            time.sleep(_PROBE_S)
            self.longest_s = max(self.longest_s, time.monotonic() - began_s - _PROBE_S)
