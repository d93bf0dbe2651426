"""Rates of audit lines by caller: what a caller repeats is counted, and comes as one line."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final

PERIOD_S: Final = 1.0
_REFUSALS: Final = 10
"""Lines about refusals of one caller in one second."""
_ACTS: Final = 200
"""Lines about acts of one caller in one second: far above what opens and ends of sessions need."""
_TOTAL: Final = 500
"""Lines of all callers in one second, of acts and of refusals each."""
_MAX_CALLERS: Final = 1000

Fields = Mapping[str, object]
Write = Callable[[str, str, Fields], object]


@dataclass(slots=True)
class _LeftOut:
    count: int
    fields: Fields
    """Fields of the last line that was left out."""


@dataclass(slots=True)
class _Lines:
    """Lines of one kind in the present second. The kinds share no limit, so refusals displace no act."""

    limit: int
    """Lines of one caller."""
    total_limit: int
    total: int = 0
    written: dict[Hashable, int] = field(default_factory=dict)
    left_out: dict[tuple[Hashable, str, str], _LeftOut] = field(default_factory=dict)

    def take(self, caller: Hashable) -> bool:
        """Count a line that is to be written; False above a limit."""
        written = self.written.get(caller, 0)
        if written >= self.limit or self.total >= self.total_limit:
            return False
        self.written[caller] = written + 1
        self.total += 1
        return True

    def leave_out(self, caller: Hashable, event: str, outcome: str, fields: Fields) -> None:
        """Count a line that is not written."""
        key = caller, event, outcome
        if key not in self.left_out and len(self.left_out) >= _MAX_CALLERS:
            # Addresses are cheap for some; all further callers share a line.
            key = "", event, outcome
        counted = self.left_out.setdefault(key, _LeftOut(0, {}))
        counted.count += 1
        counted.fields = fields

    def begin(self) -> dict[tuple[Hashable, str, str], _LeftOut]:
        """Begin the next second; return what was left out in the former one."""
        left_out, self.left_out = self.left_out, {}
        self.total, self.written = 0, {}
        return left_out


class LineRate:
    """Writer of lines that limits how many a caller can cause in a second.

    Lines above the limit are not lost without a trace: at the end of the second, each caller, event and outcome
    has one line with `repeated`, the number of lines that it stands for, and the fields of the last of them.
    """

    def __init__(
        self,
        write: Write,
        *,
        refusals: int = _REFUSALS,
        acts: int = _ACTS,
        total: int = _TOTAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without lines.

        Args:
            write: Writes a line: event, outcome and fields.
            refusals: Lines of one caller about refusals in one second.
            acts: Lines of one caller about acts in one second.
            total: Lines of all callers in one second, of acts and of refusals each.
            clock: Monotonic time, seconds.
        """
        self._write = write
        self._acts, self._refusals = _Lines(acts, total), _Lines(refusals, total)
        self._clock = clock
        self._began_s = clock()
        self._timer: asyncio.TimerHandle | None = None

    def write(self, caller: Hashable, event: str, outcome: str, fields: Fields, *, is_act: bool) -> None:
        """Write a line, or count it.

        Args:
            caller: Tenant or address.
            event: Event of the line.
            outcome: Outcome of the line.
            fields: Other fields.
            is_act: True for an act that succeeded, False for a refusal.
        """
        if self._clock() - self._began_s >= PERIOD_S:
            self.flush()
        lines = self._acts if is_act else self._refusals
        if lines.take(caller):
            self._write(event, outcome, fields)
            return
        lines.leave_out(caller, event, outcome, fields)
        if self._timer is None:
            with contextlib.suppress(RuntimeError):
                self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self.flush)

    def flush(self) -> None:
        """Write the lines that stand for those left out, and begin the next second."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._began_s = self._clock()
        for lines in (self._acts, self._refusals):
            for (_, event, outcome), counted in lines.begin().items():
                self._write(event, outcome, {**counted.fields, "repeated": counted.count})
