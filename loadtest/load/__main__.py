"""The command line of the load suite: `python -m load`."""

import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click

from load.order import InvalidOrder, Order
from load.progress import ProgressLine
from load.run import Plan, perform
from load.timeline import TimelineError
from stage.errors import StageError

EX_UNUSABLE = 2
"""Exit code when nothing could be measured: bad options, a service that does not start. As click's own."""
_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Load tests of the gateway: open-loop conversations, judged by objectives.

    \b
    Exit codes: 0 all objectives held, 1 one is broken, 3 void (the generator was the bottleneck, or nothing
    was measured), 2 the run could not be made, 130 interrupted.
    """  # noqa: D301 - \b is how click is told not to wrap


@main.command()
@click.argument("scenario", default="ci")
@click.option("--target", help="A gateway that runs, host:port, instead of one started for the run.")
@click.option("--emulator", help="URL of the emulator behind it; without one, integrity is not checked.")
@click.option("--api-key", default="emulator-key", help="Key that this emulator takes.")
@click.option("--gateway-command", default="", help="What starts the gateway for the run: another build, say.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, help="Processes that generate load here.")
@click.option("--workers", type=click.IntRange(0, 1000), default=0, help="Locust workers to wait for instead.")
@click.option("--bind", default="127.0.0.1:5557", help="Where those come to, host:port.")
@click.option("--web", default="", help="Serve Locust's web page while it runs, at host:port.")
@click.option("--users", type=click.IntRange(1, 100_000), help="In-flight cap.  [default: the scenario's]")
@click.option("--seconds", type=click.FloatRange(1, 86_400), help="Length.  [default: the scenario's]")
@click.option("--rate", type=click.FloatRange(0.001, 10_000), help="Arrivals a second.  [default: the scenario's]")
@click.option("--chunk-ms", type=click.IntRange(5, 1000), help="Chunks of callers.  [default: the scenario's]")
@click.option("--seed", type=int, default=1, help="The same seed gives the same schedule.")
@click.option("--faults", type=click.Path(exists=True, dir_okay=False), help="TOML timeline of faults upstream.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="[default: out/load/SCENARIO-TIME]")
def run(  # noqa: PLR0917 - click passes them by name
    scenario: str,
    target: str | None,
    emulator: str | None,
    api_key: str,
    gateway_command: str,
    processes: int,
    workers: int,
    bind: str,
    web: str,
    users: int | None,
    seconds: float | None,
    rate: float | None,
    chunk_ms: int | None,
    seed: int,
    faults: str | None,
    out: Path | None,
) -> None:
    """Run SCENARIO and judge it by its objectives.

    Without --target, gateway and emulator are started for the run, each pinned to its core. Everything of the run,
    logs included, is in the folder of --out.
    """
    if emulator and not target:
        raise click.UsageError("--emulator says what is behind --target; without a target both are started")
    folder = (out or Path("out/load") / f"{scenario}-{datetime.now(UTC):%Y%m%d-%H%M%S}").resolve()
    order = Order(
        scenario=scenario,
        target=target or "",
        emulator=(emulator or "").rstrip("/"),
        api_key=api_key,
        users=users or 0,
        seconds=seconds or 0.0,
        rate=rate or 0.0,
        chunk_ms=chunk_ms or 0,
        seed=seed,
        faults=str(Path(faults).resolve()) if faults else "",
        report=str(folder / "measured.json"),
    )
    plan = Plan(
        order=order,
        folder=folder,
        embedded=target is None,
        gateway_command=gateway_command,
        processes=processes,
        expect_workers=workers,
        bind=bind,
        web=web,
    )
    progress = ProgressLine()
    try:
        result = perform(plan, progress.show)
    except (StageError, TimelineError, InvalidOrder) as error:
        _unusable(str(error))
    except KeyboardInterrupt:
        click.echo("load: interrupted before anything was measured", err=True)
        sys.exit(_INTERRUPTED)
    finally:
        progress.done()
    result.save(folder / "result.json")
    click.echo(f"{folder / 'result.json'}")
    sys.exit(_INTERRUPTED if "interrupted" in result.environment else 0)


def _unusable(message: str) -> NoReturn:
    click.echo(f"load: {message}", err=True)
    sys.exit(EX_UNUSABLE)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # A supervisor's SIGTERM is a Ctrl-C: what was started is ended, what was measured is kept.
    signal.signal(signal.SIGTERM, _interrupt)
    main()
