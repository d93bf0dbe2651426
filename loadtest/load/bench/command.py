"""The benchmark's command: `python -m load bench`."""

import sys
from dataclasses import replace
from pathlib import Path

import click
import uvloop
from rich.console import Console

from liveavatar_gateway.escaping import escaped
from load.bench.loads import LOADS, BenchSettings
from load.bench.report import as_json, breaches, show
from load.bench.run import bench
from stage.cores import choose_cores, on_cores
from stage.errors import StageError

_BROKEN, _UNUSABLE, _VOID = 1, 2, 3


@click.command("bench")
@click.option("--load", "names", type=click.Choice(list(LOADS)), multiple=True, help="One load; repeat for more.")
@click.option("--sessions", type=click.IntRange(1, 2000), help="Sessions of each load instead of its own number.")
@click.option("--seconds", type=click.FloatRange(1, 600), default=15.0, help="Length of one measured window.")
@click.option("--warmup", type=click.FloatRange(0.5, 60), default=2.0, help="Talk before each window, seconds.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, help="Windows of each server, in alternation.")
@click.option(
    "--tree",
    "trees",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    help="Checkout whose gateway is measured in the same run; repeat for more.",
)
@click.option("--budget-ratio", type=float, help="Highest ratio of this checkout's gateway to the floor.")
@click.option("--budget-first-ms", type=float, help="Highest latency of its first packets, ms at p99.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, allow_dash=True), help="Also write JSON.")
def command(
    *,
    names: tuple[str, ...],
    sessions: int | None,
    seconds: float,
    warmup: float,
    rounds: int,
    trees: tuple[Path, ...],
    budget_ratio: float | None,
    budget_first_ms: float | None,
    json_file: str | None,
) -> None:
    """Measure the gateway's CPU per second of audio as a ratio to a bare server with the same contract.

    Gateway and floor talk in alternation on the first core; generator and LiveAvatar's side share the second.

    Exit codes: 0 all budgets hold, 1 a budget is broken, 2 nothing could be measured, 3 void (the generator was
    late, so the figures say nothing of the servers).
    """
    console = Console(stderr=json_file == "-", width=None if sys.stdout.isatty() else 160)
    loads = [LOADS[name] for name in names or LOADS]
    try:
        settings = BenchSettings(
            loads=tuple(replace(load, sessions=sessions) if sessions else load for load in loads),
            cores=choose_cores(),
            seconds=seconds,
            warmup_s=warmup,
            rounds=rounds,
            trees=trees,
            budget_ratio=budget_ratio,
            budget_first_ms=budget_first_ms,
        )
        with on_cores([settings.cores.load]):
            results = uvloop.run(bench(settings, lambda text: click.echo(text, err=True)))
    except StageError as error:
        click.echo(f"bench: {escaped(str(error))}", err=True)
        sys.exit(_UNUSABLE)
    show(console, results)
    if json_file == "-":
        click.echo(as_json(settings, results))
    elif json_file:
        Path(json_file).write_text(as_json(settings, results) + "\n")
    if any(result.problems() for result in results):
        sys.exit(_VOID)
    broken = breaches(settings, results)
    for breach in broken:
        click.echo(f"over budget: {breach}", err=True)
    sys.exit(_BROKEN if broken else 0)
