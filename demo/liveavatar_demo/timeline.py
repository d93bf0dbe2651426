"""Output of the demo: moments as lines, speech as a bar, verdicts as a list."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from liveavatar_demo.proof import Check
from liveavatar_gateway.escaping import escaped

_PLAIN_STEP_S: Final = 2.0
"""Without a terminal, progress is a line each time so much more was heard."""
_INDENT: Final = 11


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened."""

    at_s: float
    """Seconds since the call began."""
    event: str
    """A short fixed word, for programs."""
    text: str
    """The same for people, with its values."""


class Timeline:
    """Shows moments as they come and keeps them. A terminal gets colours and a bar, all else gets plain lines."""

    def __init__(self, console: Console) -> None:
        """Prepare.

        Args:
            console: Where to; a quiet one shows nothing, and the moments are kept all the same.
        """
        self.moments: list[Moment] = []
        self._console = console
        self._began_mono_s = time.monotonic()

    def begin(self) -> None:
        """Start the clock of the call."""
        self._began_mono_s = time.monotonic()

    def say(self, text: str) -> None:
        """Show a line that belongs to no moment."""
        self._print(Text(escaped(text)))

    def mark(self, event: str, text: str, *, at_mono_s: float | None = None) -> None:
        """Note a moment: now, or when another clock of this machine says it was."""
        at_s = (time.monotonic() if at_mono_s is None else at_mono_s) - self._began_mono_s
        self.moments.append(Moment(round(at_s, 3), event, text))
        self._print(Text.assemble((f"{at_s:7.2f} s  ", "dim"), escaped(text)))

    @contextlib.contextmanager
    def speaking(self, total_s: float) -> Iterator[Callable[[float], None]]:
        """Show speech while it is heard.

        Yields:
            What to call with the seconds heard so far.
        """
        if not self._console.is_terminal:
            yield self._plain_progress(total_s)
            return
        columns = (
            TextColumn(" " * _INDENT),
            BarColumn(bar_width=40),
            TextColumn("played {task.completed:.1f} of {task.total:.1f} s"),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task("", total=total_s)
            yield lambda played_s: progress.update(task, completed=played_s)

    def verdict(self, checks: Sequence[Check]) -> None:
        """Show all checks."""
        yes, no = ("✓", "✗") if "utf" in self._console.encoding.lower() else ("ok", "NO")
        width = max(len(check.name) for check in checks)
        narrow = self._console.is_terminal and self._console.width < width + max(len(c.detail) for c in checks) + 6
        self.say("")
        for check in checks:
            sign = Text(f"{yes if check.ok else no:<3}", "bold green" if check.ok else "bold red")
            gap = "\n      " if narrow else " " * (width - len(check.name) + 2)
            self._print(
                Text.assemble(sign, check.name, gap, (escaped(check.detail), "dim" if check.ok else "red"))
            )
        self.say("")

    def _plain_progress(self, total_s: float) -> Callable[[float], None]:
        shown_s = 0.0

        def show(played_s: float) -> None:
            nonlocal shown_s
            if played_s - shown_s >= _PLAIN_STEP_S:
                shown_s = played_s
                self._print(Text(f"{'':{_INDENT}}played {played_s:.1f} of {total_s:.1f} s"))

        return show

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)
