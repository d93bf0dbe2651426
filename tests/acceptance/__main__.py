"""`python -m acceptance AREA`: run every line of an area, and print one table.

make acceptance AREA=auth                      # the whole proof
make acceptance AREA=auth ARGS="--short"       # in short
make acceptance AREA=auth ARGS="--only matrix" # one line
"""

import asyncio
import importlib
import os
import random
import sys
import time
import traceback
from collections.abc import Sequence

import click

from acceptance.line import MAX_STALL_S, Line, Outcome, Setting, StallProbe

AREAS = ("auth", "limits", "pool")
_VOID_REPEATS = 3


@click.command()
@click.argument("area", type=click.Choice(AREAS))
@click.option("--short", is_flag=True, help="Run the short profile, as CI does.")
@click.option(
    "--measured", is_flag=True, help="Run only the lines that measure times; `make test` runs the others."
)
@click.option("--only", help="Run the lines whose names contain this text.")
@click.option("--seed", type=int, help="Repeat a run; without it, the seed is fresh and printed.")
def main(area: str, *, short: bool, measured: bool, only: str | None, seed: int | None) -> None:
    """Run the proof of AREA; exit 1 if a line fails, 3 if the machine stalled too often to tell."""
    # The gateway refuses keys that others can read.
    os.umask(0o077)
    setting = Setting(seed=random.SystemRandom().randrange(1_000_000) if seed is None else seed, long=not short)
    lines: Sequence[Line] = importlib.import_module(f"acceptance.{area}").LINES
    chosen = [line for line in lines if _is_chosen(line, short=short, measured=measured, only=only)]
    if not chosen:
        raise click.BadParameter(
            f"no line is named like {only!r}; there are {', '.join(one.name for one in lines)}"
        )
    click.echo(f"acceptance {area}: {len(chosen)} lines, seed {setting.seed}")
    rows = []
    for number, line in enumerate(chosen, 1):
        began_s = time.monotonic()
        click.echo(f"[{number}/{len(chosen)}] {line.name} ...", err=True)
        outcome = _run(line, setting)
        verdict = "void" if outcome is None else "pass" if outcome.passed else "FAIL"
        figure = "the machine stalled in each attempt" if outcome is None else outcome.figure
        rows.append((line.name, line.goal, figure, verdict))
        click.echo(f"      {verdict} after {time.monotonic() - began_s:.0f} s: {figure}", err=True)
    _print_table(("line", "goal", "figure", "verdict"), rows)
    verdicts = {row[3] for row in rows}
    sys.exit(1 if "FAIL" in verdicts else 3 if "void" in verdicts else 0)


def _is_chosen(line: Line, *, short: bool, measured: bool, only: str | None) -> bool:
    if only is not None:
        return only in line.name
    return (line.in_short or not short) and (line.measures_time or not measured)


def _run(line: Line, setting: Setting) -> Outcome | None:
    """Run a line, again while the machine stalls; None if it stalled in each attempt."""
    for _ in range(_VOID_REPEATS):
        with StallProbe() as probe:
            try:
                outcome = asyncio.run(line.run(setting))
            except Exception:  # noqa: BLE001 - the other lines are run nevertheless
                outcome = Outcome(figure=traceback.format_exc().strip().splitlines()[-1][:300], passed=False)
                traceback.print_exc()
        stalled = line.measures_time and probe.longest_s > MAX_STALL_S
        if outcome.passed or not (stalled or outcome.void):
            return outcome
        reason = outcome.figure if outcome.void else f"the machine stood still for {probe.longest_s:.1f} s"
        click.echo(f"      void: {reason}", err=True)
    return None


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, ["-" * width for width in widths], *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
