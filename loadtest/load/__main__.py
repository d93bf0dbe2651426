"""The command line of the load suite: `python -m load`."""

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from rich.console import Console

from liveavatar_demo.emulator_control import EmulatorError
from liveavatar_gateway.escaping import escaped
from load.behaviours import expected_s
from load.bench.command import command as bench_command
from load.comparison import Comparison, compare
from load.judging import judge
from load.knee import Knee, SearchRange, find_knee
from load.machine import description
from load.objectives import DEFAULT_FILE, ObjectivesError, ScenarioObjectives, read_objectives
from load.progress import ProgressLine
from load.report.compared import comparison_markdown, show_comparison
from load.report.console import show
from load.report.knee import show_knee, write_knees
from load.report.write import write_all
from load.result import NoResult, RunResult
from load.run import Plan, perform
from load.run_config import PREFIX, InvalidRunConfig, RunConfig
from load.scenarios import SCENARIOS
from load.timeline import TimelineError
from load.verdict import EXIT_CODES
from stage.errors import StageError

EX_UNUSABLE = 2
"""Exit code when nothing could be measured: bad options, a service that does not start. As click's own."""
_INTERRUPTED = 130
_WIDTH = 140

_Command = TypeVar("_Command", bound=Callable[..., Any])

_UNUSABLE = (StageError, EmulatorError, TimelineError, InvalidRunConfig, ObjectivesError)
_TALK = "talk"

_scenario = click.Choice(list(SCENARIOS))
_folder = click.Path(file_okay=False, path_type=Path)
_result_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_objectives = click.option(
    "--objectives",
    "objectives_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=DEFAULT_FILE,
    help="TOML file of objectives.",
)


def _variable(name: str, **attributes: Any) -> Callable[[_Command], _Command]:
    """Return an option that is also a variable `LOAD_*`, which workers on other machines take too."""
    return click.option(f"--{name}", envvar=f"{PREFIX}{name.replace('-', '_').upper()}", **attributes)


_CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110}


@click.group(context_settings=_CONTEXT)
def main() -> None:
    """Load tests of the gateway: open-loop conversations, judged by objectives.

    \b
    Exit codes: 0 all objectives held, 1 an objective is broken, 3 void (the generator was the bottleneck, or
    there were too few values), 2 the run could not be made, 130 interrupted.
    """  # noqa: D301 - \b is how click is told not to wrap


main.add_command(bench_command)


@main.command()
@click.argument("scenario", type=_scenario, default="ci", envvar=f"{PREFIX}SCENARIO")
@_variable("target", default="", help="Running gateway, host:port; without it, one is started for the run.")
@_variable("emulator", default="", help="URL of the emulator behind it; without it, integrity is not checked.")
@_variable("emulator-token-file", default="", help="File with the control token of this emulator.")
@_variable("api-key", default="emulator-key", help="API key of this emulator.")
@click.option(
    "--api-key-file",
    "key_files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    envvar=f"{PREFIX}KEY_FILES",
    help="File with an API key of the gateway; repeat to spread users over keys, and so over tenants.",
)
@_variable(
    "one-clock", is_flag=True, help="The emulator runs on this machine, although its address does not show it."
)
@click.option("--gateway-command", default="", help="Command of the gateway for the run, such as another build's.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, help="Processes that generate load here.")
@click.option(
    "--workers",
    type=click.IntRange(0, 1000),
    default=0,
    help="Locust workers on other machines to wait for instead.",
)
@click.option("--bind", default="127.0.0.1:5557", help="Address for those workers, host:port.")
@click.option("--web", default="", help="Serve Locust's web page during the run, at host:port.")
@_variable(
    "users", type=click.IntRange(0, 100_000), default=0, help="Most sessions in flight; 0 for the scenario's own."
)
@_variable(
    "seconds",
    type=click.FloatRange(0, 86_400),
    default=0,
    help="Length of the arrivals; 0 for the scenario's own.",
)
@_variable(
    "rate", type=click.FloatRange(0, 10_000), default=0, help="Arrivals per second; 0 for the scenario's own."
)
@_variable(
    "chunk-ms", type=click.IntRange(0, 1000), default=0, help="Chunk size of callers; 0 for the scenario's own."
)
@_variable(
    "streams-per-connection", type=click.IntRange(1, 10_000), default=1, help="Users that share a connection."
)
@_variable("seed", type=int, default=1, help="Seed of the schedule; the same seed gives the same schedule.")
@click.option("--warm", is_flag=True, help="Keep sessions warm, as callers come; for the scenario arrivals.")
@_variable("faults", type=click.Path(exists=True, dir_okay=False), help="TOML timeline of faults upstream.")
@click.option("--baseline", type=_result_file, help="result.json of an earlier run, to compare with.")
@click.option(
    "--again-when-void", type=click.IntRange(0, 10), default=0, help="Times to run again while the run is void."
)
@_objectives
@click.option("--out", type=_folder, help="[default: out/load/SCENARIO-TIME]")
def run(
    *,
    target: str,
    emulator: str,
    key_files: tuple[Path, ...],
    gateway_command: str,
    processes: int,
    workers: int,
    bind: str,
    web: str,
    warm: bool,
    faults: str | None,
    baseline: Path | None,
    again_when_void: int,
    objectives_file: Path,
    out: Path | None,
    **config: Any,
) -> None:
    """Run SCENARIO and judge it by its objectives.

    Without --target, gateway and emulator are started for the run, each pinned to its core. All reports and logs
    are in the folder of --out; open report.html first.
    """
    if emulator and not target:
        raise click.UsageError("--emulator names the emulator behind --target; without a target both are started")
    if SCENARIOS[config["scenario"]].neighbour and (target or key_files):
        raise click.UsageError(
            f"the scenario {config['scenario']} starts a gateway with tenants and keys of its own; "
            "leave out --target and --api-key-file"
        )
    if warm and (target or not SCENARIOS[config["scenario"]].warm):
        raise click.UsageError("--warm is for the scenario arrivals, with a gateway of its own; leave it out")
    folder = (out or Path("out/load") / f"{config['scenario']}-{datetime.now(UTC):%Y%m%d-%H%M%S}").resolve()
    plan = Plan(
        config=RunConfig(
            target=target,
            emulator=emulator.rstrip("/"),
            key_files=os.pathsep.join(str(file.resolve()) for file in key_files),
            faults=str(Path(faults).resolve()) if faults else "",
            report=str(folder / "measured.json"),
            **config,
        ),
        folder=folder,
        embedded=not target,
        gateway_command=gateway_command,
        processes=processes,
        expect_workers=workers,
        bind=bind,
        web=web,
        warm=warm,
    )
    try:
        wanted = read_objectives(objectives_file).of(plan.config.scenario)
        plan = replace(plan, floor=wanted.with_floor)
        earlier = _loaded(baseline) if baseline else None
        status = _judged_run(plan, wanted, earlier)
        for number in range(1, again_when_void + 1):
            if status != EXIT_CODES["void"]:
                break
            aside = folder.with_name(f"{folder.name}-void-{number}")
            click.echo(f"load: void, running again; the void run is in {aside}", err=True)
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            status = _judged_run(plan, wanted, earlier)
    except _UNUSABLE as error:
        _unusable(str(error))
    except KeyboardInterrupt:
        click.echo("load: interrupted before the first measurement", err=True)
        sys.exit(_INTERRUPTED)
    sys.exit(status)


def _judged_run(plan: Plan, wanted: ScenarioObjectives, earlier: RunResult | None) -> int:
    """Run, judge, write and show; returns the exit code."""
    result = _performed(plan)
    verdict = judge(result, wanted)
    comparison = compare(earlier, result, limits=wanted.generator) if earlier else None
    written = write_all(plan.folder, result, verdict, comparison)
    console = _console()
    show(console, result, verdict)
    if comparison is not None:
        show_comparison(console, comparison)
    console.print(f"{written.page}", style="dim", soft_wrap=True)
    return _INTERRUPTED if "interrupted" in result.environment else _exit_code(verdict.exit_code, comparison)


def _performed(plan: Plan) -> RunResult:
    progress = ProgressLine()
    try:
        return perform(plan, progress.show)
    finally:
        progress.done()


def _exit_code(verdict: int, comparison: Comparison | None) -> int:
    """Return the verdict's exit code, or 1 for a regression; a comparison that cannot be made changes nothing."""
    return verdict or (1 if comparison is not None and comparison.change == "regressed" else 0)


@main.command("find-knee")
@click.option(
    "--chunk-ms",
    "chunks_ms",
    type=click.IntRange(5, 1000),
    multiple=True,
    default=(20, 100),
    help="Chunk size of the callers; repeat for more, one search each.",
)
@click.option("--start", type=click.IntRange(1, 100_000), default=25, help="Sessions of the first step.")
@click.option("--most", type=click.IntRange(1, 100_000), default=2000, help="Most sessions of a step.")
@click.option("--seconds", type=click.FloatRange(40, 3600), default=60, help="Length of one step.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, help="Processes that generate load here.")
@_objectives
@click.option("--out", type=_folder, help="[default: out/load/knee-TIME]")
def knee(
    *,
    chunks_ms: tuple[int, ...],
    start: int,
    most: int,
    seconds: float,
    processes: int,
    objectives_file: Path,
    out: Path | None,
) -> None:
    """Find how many sessions can talk at once before an objective breaks, with a gateway on a core of its own.

    \b
    Each step runs the scenario "talk" with more sessions, until an objective breaks; then the gap is halved.
    Exit codes: 0 a step held for each chunk size, 3 not.
    """  # noqa: D301
    folder = (out or Path("out/load") / f"knee-{datetime.now(UTC):%Y%m%d-%H%M%S}").resolve()
    busy_s = expected_s(SCENARIOS[_TALK].style)["Talker"]
    steps = itertools.count(1)

    def step(sessions: int, chunk_ms: int) -> RunResult:
        place = folder / f"{next(steps):02}-{sessions}x{chunk_ms}ms"
        click.echo(f"{sessions} sessions, {chunk_ms}-ms chunks", err=True)
        config = RunConfig(
            scenario=_TALK,
            # By Little's law this many talk at once; the cap is far above, so that it defers no arrival.
            rate=sessions / busy_s,
            users=2 * sessions,
            seconds=seconds,
            chunk_ms=chunk_ms,
            report=str(place / "measured.json"),
        )
        result = _performed(Plan(config=config, folder=place, processes=processes))
        if "interrupted" in result.environment:
            raise KeyboardInterrupt
        result.save(place / "result.json")
        return result

    console, found = _console(), list[Knee]()
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        wanted = read_objectives(objectives_file).of(_TALK)
        where = SearchRange(start=start, most=most)
        for chunk_ms in chunks_ms:
            found.append(find_knee(step, objectives=wanted, chunk_ms=chunk_ms, where=where))
            show_knee(console, found[-1])
    except (*_UNUSABLE, ValueError) as error:
        _unusable(str(error))
    except KeyboardInterrupt:
        click.echo("load: interrupted; the steps until then are in the folder", err=True)
        sys.exit(_INTERRUPTED)
    files = write_knees(folder, found, description(), started_at)
    console.print(f"{files.page}", style="dim", soft_wrap=True)
    sys.exit(0 if all(one.best for one in found) else EXIT_CODES["void"])


@main.command("compare")
@click.argument("before", type=_result_file)
@click.argument("now", type=_result_file)
@click.option("--markdown", is_flag=True, help="Print Markdown, for a job's summary.")
def compare_runs(before: Path, now: Path, *, markdown: bool) -> None:
    """Compare the result.json of two runs, with a confidence interval for each difference.

    \b
    Exit codes: 0 no figure regressed, 1 a figure regressed, 3 the runs cannot be compared.
    """  # noqa: D301
    comparison = compare(_loaded(before), _loaded(now))
    if markdown:
        click.echo(comparison_markdown(comparison))
    else:
        show_comparison(_console(), comparison)
    sys.exit(comparison.exit_code)


@main.command()
@click.argument("result_file", metavar="RESULT.JSON", type=_result_file)
@_objectives
@click.option("--out", type=_folder, help="[default: the folder of RESULT.JSON]")
def report(result_file: Path, objectives_file: Path, out: Path | None) -> None:
    """Judge a stored result again and write all its reports, such as after a change of objectives."""
    result = _loaded(result_file)
    try:
        verdict = judge(result, read_objectives(objectives_file).of(result.scenario))
    except ObjectivesError as error:
        _unusable(str(error))
    written = write_all(out or result_file.parent, result, verdict)
    console = _console()
    show(console, result, verdict)
    console.print(f"{written.page}", style="dim", soft_wrap=True)
    sys.exit(verdict.exit_code)


def _loaded(path: Path) -> RunResult:
    try:
        return RunResult.load(path)
    except NoResult as error:
        _unusable(str(error))


def _console() -> Console:
    """Return a console as wide as the terminal, or wide enough for the tables where there is none, as in CI."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH)


def _unusable(message: str) -> NoReturn:
    click.echo(f"load: {escaped(message)}", err=True)
    sys.exit(EX_UNUSABLE)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # SIGTERM acts as Ctrl-C: processes are ended, and the measurements so far are kept.
    signal.signal(signal.SIGTERM, _interrupt)
    main()
