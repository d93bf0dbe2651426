"""How late the emulator's clock is while many sessions talk at once: `python -m emulator_clock`."""

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import httpx

from bench.speech import Spoken
from stage import services
from stage.cores import Cores, CoreTimes, choose_cores, process_cpu_s
from stage.daemon import Daemon, module
from stage.errors import StageError

PACKET_MS = 1000
"""What official clients send: one packet per second of speech."""
STAGGER_S = 1.0
"""Sessions begin evenly over this time, as strangers would."""


@dataclass(frozen=True, slots=True)
class Kept:
    """How the emulator kept time during the window."""

    sessions: int
    seconds: float
    moments: int
    """Things that were due: starts and ends of speech, dry buffers, arrivals that came after one of them."""
    p50_ms: float
    p99_ms: float
    max_ms: float
    packets_per_s: float
    cpu_share: float
    """Of its one core."""
    core_taken: float
    """Share of that core that went to other processes and machines: with much of it the figures are theirs."""

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"{self.sessions} sessions talking for {self.seconds:.0f} s, {self.packets_per_s:.0f} packets/s",
            f"late by p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms, max {self.max_ms:.2f} ms",
            f"{self.moments} moments; CPU {self.cpu_share:.0%} of its core, others {self.core_taken:.0%}",
        ]


def measure(sessions: int, seconds: float, warmup_s: float, utterance_ms: int, cores: Cores) -> Kept:
    """Run the emulator alone on one core and its callers on the other.

    Raises:
        StageError: A process ended early, or not all sessions talked.
    """
    with tempfile.TemporaryDirectory(prefix="emulator-clock-") as name:
        workdir = Path(name)
        # Recordings with their audio are a part of what it does.
        keeping = {"keep_audio_mb": 64}
        with services.emulator(
            sessions=sessions, cores=[cores.measured], workdir=workdir, knobs=keeping
        ) as emulator:
            arguments = [
                *("--url", str(emulator.info["url"]), "--api-key", services.API_KEY, "--sessions", str(sessions)),
                *("--utterance-ms", str(utterance_ms), "--packet-ms", str(PACKET_MS)),
                *("--first-packet-ms", str(PACKET_MS), "--stagger-s", str(STAGGER_S)),
                *("--result-file", str(workdir / "spoken.json")),
            ]
            callers = Daemon("callers", module("bench.direct", *arguments), cores=[cores.load], workdir=workdir)
            with callers:
                kept = _window(sessions, seconds, warmup_s, emulator, cores)
                callers.check()
            if problems := Spoken.load(workdir / "spoken.json").problems:
                raise StageError(f"{len(problems)} of {sessions} sessions did not talk on; {problems[0]}")
    return kept


def _window(sessions: int, seconds: float, warmup_s: float, emulator: Daemon, cores: Cores) -> Kept:
    with httpx.Client(base_url=str(emulator.info["url"]), trust_env=False) as http:

        def state() -> dict[str, Any]:
            answer: dict[str, Any] = http.get("/_emulator/state").raise_for_status().json()
            return answer

        time.sleep(warmup_s)
        before = state()
        http.delete("/_emulator/clock/late").raise_for_status()
        began_s, cpu_s = time.monotonic(), process_cpu_s(emulator.pid)
        core = CoreTimes.now(cores.measured)
        time.sleep(seconds)
        took_s = time.monotonic() - began_s
        used_s = process_cpu_s(emulator.pid) - cpu_s
        busy = CoreTimes.now(cores.measured).busy_since(core)
        after = state()
    if (active := after["sessions"]["active"]) != sessions:
        raise StageError(f"{active} of {sessions} sessions are active at the end")
    late = after["clock"]["late"]
    return Kept(
        sessions=sessions,
        seconds=took_s,
        moments=late["count"],
        p50_ms=late["p50_ms"],
        p99_ms=late["p99_ms"],
        max_ms=late["max_ms"],
        packets_per_s=(after["totals"]["packets"] - before["totals"]["packets"]) / took_s,
        cpu_share=used_s / took_s,
        core_taken=max(0.0, busy - used_s / took_s),
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--sessions", type=click.IntRange(1, 2000), default=200, help="Sessions that talk at once.")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=30.0, help="Length of the measured window.")
@click.option("--warmup", type=click.FloatRange(0, 60), default=3.0, help="Talk before it, seconds.")
@click.option(
    "--utterance-ms",
    type=click.IntRange(PACKET_MS, 60_000),
    default=4_000,
    help="Length of one utterance; the next follows at once.",
)
@click.option("--limit-ms", type=click.FloatRange(0.1), default=20.0, help="Most lateness at the 99th percentile.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(
    *, sessions: int, seconds: float, warmup: float, utterance_ms: int, limit_ms: float, as_json: bool
) -> None:
    """Measure how late the emulator notices what is due, in real time, on a core of its own, without media.

    Exit status: 0 when the 99th percentile is within the limit, 1 when it is not, 2 when it could not be measured.
    """
    try:
        kept = measure(sessions, seconds, warmup, utterance_ms, choose_cores())
    except (StageError, httpx.HTTPError) as error:
        click.echo(f"emulator-clock: {error}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(json.dumps(asdict(kept)))
    else:
        click.echo("\n".join(kept.lines()))
    if kept.p99_ms > limit_ms:
        click.echo(f"emulator-clock: p99 {kept.p99_ms:.2f} ms is above {limit_ms:g} ms", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
