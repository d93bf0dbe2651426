"""Tells what was found: a table for people, JSON for programs, and which budgets were broken."""

import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.measure import Figures, Quantiles
from bench.settings import BUSY, LATE_S, BenchSettings

_ROWS: Final[Sequence[tuple[str, Callable[[Figures], str]]]] = (
    ("CPU per second of audio", lambda one: f"{one.cpu_ms_per_audio_s:.2f} ms"),
    ("its core: taken, busy", lambda one: f"{one.core_share:.0%}, {one.measured_core_busy:.0%}"),
    ("first packets' latency, p50 / p99", lambda one: _quantiles(one.first_packets)),
    ("newest byte's age, p50 / p99", lambda one: _quantiles(one.all_packets)),
    ("packets", lambda one: f"{one.packet_ms:.0f} ms, {one.packets_per_s:.0f}/s"),
    ("underruns", lambda one: str(one.underruns)),
    ("generator late, p50 / p99", lambda one: _quantiles(one.lateness)),
    ("generator's core: taken, busy", lambda one: f"{one.generator_share:.0%}, {one.generator_core_busy:.0%}"),
    ("emulator took", lambda one: f"{one.emulator_share:.0%}"),
    (
        "stolen, measured / load core",
        lambda one: f"{one.measured_core_steal:.0%} / {one.load_core_steal:.0%}",
    ),
)


def show(console: Console, settings: BenchSettings, results: Sequence[Figures]) -> None:
    """Print the table, and what to think of it."""
    table = Table(
        title=f"{settings.sessions} sessions talking in real time, {settings.seconds:g} s",
        title_justify="left",
    )
    table.add_column("")
    for one in results:
        table.add_column(one.name, justify="right", no_wrap=True)
    for label, cell in _ROWS:
        table.add_row(label, *(cell(one) for one in results))
    console.print(table)
    console.print(
        "Latency counts from handing the newest byte of a packet to the library that sends it to the packet's "
        "arrival. First packets leave the gateway when their last chunk arrives. Later ones leave when the avatar "
        "needs them, so their newest byte may have waited there for up to one chunk.",
        style="dim",
    )
    for one in results:
        if one.generator_was_bottleneck:
            whose = "figures are not the gateway's" if one.chunk_ms else "figures are not the sender's best"
            console.print(
                f"{one.name}: the generator was the bottleneck, {whose} "
                f"(late by {one.lateness.p99_ms:.1f} ms at p99, limit {1000 * LATE_S:g} ms; "
                f"core {one.generator_core_busy:.0%} busy, limit {BUSY:.0%})",
                style="bold red",
            )


def breaches(settings: BenchSettings, results: Sequence[Figures]) -> list[str]:
    """Say which budgets were broken. They are the gateway's: the sender without one has none."""
    broken = []
    for one in results:
        if one.chunk_ms is None:
            continue
        cpu_ms = settings.budgets.get(one.chunk_ms)
        if cpu_ms is not None and one.cpu_ms_per_audio_s > cpu_ms:
            broken.append(
                f"{one.name}: {one.cpu_ms_per_audio_s:.2f} ms of CPU per second of audio, "
                f"the budget is {cpu_ms:g} ms"
            )
        first_ms = settings.budget_first_ms
        if first_ms is not None and one.first_packets.p99_ms > first_ms:
            broken.append(
                f"{one.name}: first packets took {one.first_packets.p99_ms:.1f} ms at p99, "
                f"the budget is {first_ms:g} ms"
            )
    return broken


def as_json(settings: BenchSettings, results: Sequence[Figures]) -> str:
    """Write everything down. What could not be measured is null."""
    return json.dumps(
        {
            "machine": {
                "system": platform.platform(),
                "cpu_count": os.cpu_count(),
                "python": platform.python_version(),
                "grpcio": version("grpcio"),
            },
            "settings": asdict(settings),
            "results": [
                {
                    **asdict(one, dict_factory=_without_nan),
                    "generator_was_bottleneck": one.generator_was_bottleneck,
                }
                for one in results
            ],
            "breaches": breaches(settings, results),
        },
        indent=2,
    )


def _without_nan(items: list[tuple[str, object]]) -> dict[str, object]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in items}


def _quantiles(of: Quantiles) -> str:
    if math.isnan(of.p50_ms):
        return "none"
    return f"{of.p50_ms:.1f} / {of.p99_ms:.1f} ms"
