"""The benchmark: `python -m bench`."""

import sys
from pathlib import Path

import click
from rich.console import Console

from bench.measure import Figures
from bench.report import as_json, breaches, show
from bench.runs import measure_direct, measure_gateway
from bench.settings import BenchSettings
from stage.cores import choose_cores, on_cores
from stage.errors import StageError


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--sessions", type=click.IntRange(1, 1000), default=60, help="Sessions that talk at once.")
@click.option("--seconds", type=click.FloatRange(1, 600), default=12.0, help="Length of the measured window.")
@click.option("--warmup", type=click.FloatRange(0, 60), default=3.0, help="Talk before it, seconds.")
@click.option(
    "--chunk-ms",
    "chunks_ms",
    type=click.IntRange(5, 1000),
    multiple=True,
    default=(20, 100),
    help="Chunk size of the callers; repeat for more, one measurement each.",
)
@click.option(
    "--utterance-ms",
    type=click.IntRange(500, 60_000),
    default=10_000,
    help="Length of one utterance; the next follows at once. Short ones show more first packets, and cost more.",
)
@click.option(
    "--connections", type=click.IntRange(0, 1000), default=0, help="HTTP/2 connections shared; 0: one per session."
)
@click.option("--direct/--no-direct", default=True, help="Measure a sender without a gateway too.")
@click.option(
    "--packet-ms",
    type=click.IntRange(0, 1000),
    default=0,
    help="Its packets; 0: as long as the gateway's, at most 400.",
)
@click.option("--budget-20ms", type=float, help="Most CPU of the gateway, ms per second of audio, 20-ms chunks.")
@click.option("--budget-100ms", type=float, help="The same for 100-ms chunks.")
@click.option("--budget-first-ms", type=float, help="Most latency of first packets, ms at p99.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, allow_dash=True), help="Also write JSON.")
def main(  # noqa: PLR0917 - click passes them by name
    sessions: int,
    seconds: float,
    warmup: float,
    chunks_ms: tuple[int, ...],
    utterance_ms: int,
    connections: int,
    direct: bool,  # noqa: FBT001 - click's
    packet_ms: int,
    budget_20ms: float | None,
    budget_100ms: float | None,
    budget_first_ms: float | None,
    json_file: str | None,
) -> None:
    """Measure what the gateway costs and adds, against an emulator on this machine.

    The gateway has the first core for itself; the callers and the emulator share the second. Exit status: 0 when
    all budgets hold, 1 when one is broken, 2 when it could not be measured.
    """
    console = Console(stderr=json_file == "-")
    try:
        settings = BenchSettings(
            sessions=sessions,
            seconds=seconds,
            warmup_s=warmup,
            chunks_ms=chunks_ms,
            utterance_ms=utterance_ms,
            connections=connections,
            direct=direct,
            packet_ms=packet_ms,
            budgets={
                size: budget for size, budget in ((20, budget_20ms), (100, budget_100ms)) if budget is not None
            },
            budget_first_ms=budget_first_ms,
            cores=choose_cores(),
        )
        with on_cores([settings.cores.load]):
            results = _measure(console, settings)
    except StageError as error:
        console.print(f"bench: {error}", style="bold red", markup=False)
        sys.exit(2)
    show(console, settings, results)
    if json_file == "-":
        click.echo(as_json(settings, results))
    elif json_file:
        Path(json_file).write_text(as_json(settings, results) + "\n")
    broken = breaches(settings, results)
    for breach in broken:
        console.print(f"over budget: {breach}", style="bold red")
    sys.exit(1 if broken else 0)


def _measure(console: Console, settings: BenchSettings) -> list[Figures]:
    results = []
    for chunk_ms in settings.chunks_ms:
        console.print(f"measuring the gateway with {chunk_ms}-ms chunks ...", style="dim")
        results.append(measure_gateway(settings, chunk_ms))
    if settings.direct:
        console.print("measuring the sender without a gateway ...", style="dim")
        seen_ms = round(results[0].packet_ms) if results else settings.first_packet_ms
        # In real time a packet longer than the first comes too late: the avatar would run dry before it.
        results.append(measure_direct(settings, settings.packet_ms or min(seen_ms, settings.first_packet_ms)))
    return results


if __name__ == "__main__":
    main()
