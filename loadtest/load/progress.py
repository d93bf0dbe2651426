"""Progress of a run as a line."""

import sys
import time

import click

from load.run import Progress

_EVERY_S = 10.0
"""Interval of lines where there is no terminal, as in CI."""


class ProgressLine:
    """Progress on standard error: a line that changes in place on a terminal, or a line now and then elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._phase = ""
        self._next_s = 0.0

    def show(self, progress: Progress) -> None:
        """Show the progress."""
        now_s = time.monotonic()
        if not self._live and progress.phase == self._phase and now_s < self._next_s:
            return
        self._phase, self._next_s = progress.phase, now_s + _EVERY_S
        text = line(progress)
        if self._live:
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)
        else:
            click.echo(text, err=True)

    def done(self) -> None:
        """Leave the line."""
        if self._live:
            click.echo("\r\x1b[K", err=True, nl=False)


def line(progress: Progress) -> str:
    """Format progress, such as "load  35/120 s  14 talking  18 sessions  gateway 21 % of its core, 84 MiB"."""
    parts = [progress.phase]
    if progress.seconds:
        parts.append(f"{progress.at_s:.0f}/{progress.seconds:.0f} s")
    if progress.last is not None:
        parts.append(f"{progress.last.talking} talking")
        parts.append(f"{progress.last.active} sessions")
        cpu = "" if progress.cpu_share is None else f"{progress.cpu_share:.0%} of a core, "
        parts.append(f"gateway {cpu}{progress.last.rss_bytes / 2**20:.0f} MiB")
    return "  ".join(parts)
