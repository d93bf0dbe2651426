"""One measurement from start to end: processes up, warm-up, window, figures."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.measure import Figures, Recording, Usage, figures
from bench.settings import BenchError, BenchSettings
from bench.speech import Spoken
from stage import services
from stage.cores import CoreTimes, process_cpu_s
from stage.daemon import Daemon, module

_FETCH_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class _Moment:
    """Clocks at one moment."""

    at_s: float
    measured_cpu_s: float
    generator_cpu_s: float
    emulator_cpu_s: float
    measured_core: CoreTimes
    load_core: CoreTimes


def measure_gateway(settings: BenchSettings, chunk_ms: int) -> Figures:
    """Measure the gateway with callers that send chunks of one size."""
    with (
        _stage(settings) as (emulator, workdir),
        services.gateway(
            str(emulator.info["url"]),
            sessions=settings.sessions + 1,
            cores=[settings.cores.measured],
            workdir=workdir,
        ) as gateway,
    ):
        arguments = [
            *("--address", str(gateway.info["address"])),
            *("--chunk-ms", str(chunk_ms)),
            *("--connections", str(settings.connections)),
        ]
        return _measure(
            settings,
            name=f"gateway, {chunk_ms} ms",
            chunk_ms=chunk_ms,
            emulator=emulator,
            measured=gateway,
            speaker=Daemon(
                "generator",
                module("bench.generator", *arguments, *_speaker_arguments(settings, workdir)),
                cores=[settings.cores.load],
                workdir=workdir,
            ),
            workdir=workdir,
        )


def measure_direct(settings: BenchSettings, packet_ms: int) -> Figures:
    """Measure the sender without a gateway, on the gateway's core."""
    with _stage(settings) as (emulator, workdir):
        arguments = [
            *("--url", str(emulator.info["url"])),
            *("--api-key", services.API_KEY),
            *("--first-packet-ms", str(settings.first_packet_ms)),
            *("--packet-ms", str(packet_ms)),
        ]
        return _measure(
            settings,
            name="direct",
            chunk_ms=None,
            emulator=emulator,
            measured=None,
            speaker=Daemon(
                "direct",
                module("bench.direct", *arguments, *_speaker_arguments(settings, workdir)),
                cores=[settings.cores.measured],
                workdir=workdir,
            ),
            workdir=workdir,
        )


@contextmanager
def _stage(settings: BenchSettings) -> Iterator[tuple[Daemon, Path]]:
    """Give a folder and an emulator that refuses nothing and keeps no audio."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        workdir = Path(name)
        with services.emulator(
            sessions=settings.sessions + 1, cores=[settings.cores.load], workdir=workdir
        ) as emulator:
            yield emulator, workdir


def _speaker_arguments(settings: BenchSettings, workdir: Path) -> list[str]:
    return [
        *("--sessions", str(settings.sessions)),
        *("--utterance-ms", str(settings.utterance_ms)),
        *("--stagger-s", str(settings.stagger_s)),
        *("--result-file", str(_result_file(workdir))),
    ]


def _result_file(workdir: Path) -> Path:
    return workdir / "spoken.json"


def _measure(
    settings: BenchSettings,
    *,
    name: str,
    chunk_ms: int | None,
    emulator: Daemon,
    measured: Daemon | None,
    speaker: Daemon,
    workdir: Path,
) -> Figures:
    """Let a speaker talk through warm-up and window; without a `measured` process the speaker is measured."""

    def now() -> _Moment:
        return _Moment(
            at_s=time.monotonic(),
            measured_cpu_s=process_cpu_s((measured or speaker).pid),
            generator_cpu_s=process_cpu_s(speaker.pid),
            emulator_cpu_s=process_cpu_s(emulator.pid),
            measured_core=CoreTimes.now(settings.cores.measured),
            load_core=CoreTimes.now(settings.cores.load),
        )

    with speaker:
        time.sleep(settings.warmup_s)
        before = now()
        time.sleep(settings.seconds)
        after = now()
        for process in filter(None, (speaker, measured, emulator)):
            process.check()
        recordings = _recordings(str(emulator.info["url"]))
    if not _result_file(workdir).exists():
        raise BenchError(f"{name}: the speaker ended without a result")
    spoken = Spoken.load(_result_file(workdir))
    usage = _usage(before, after, generator_is_measured=measured is None)
    return figures(name, chunk_ms, spoken, [recordings[session.upstream_id] for session in spoken.sessions], usage)


def _usage(before: _Moment, after: _Moment, *, generator_is_measured: bool) -> Usage:
    measured_core_busy = after.measured_core.busy_since(before.measured_core)
    load_core_busy = after.load_core.busy_since(before.load_core)
    return Usage(
        started_s=before.at_s,
        ended_s=after.at_s,
        measured_cpu_s=after.measured_cpu_s - before.measured_cpu_s,
        generator_cpu_s=after.generator_cpu_s - before.generator_cpu_s,
        emulator_cpu_s=after.emulator_cpu_s - before.emulator_cpu_s,
        generator_core_busy=measured_core_busy if generator_is_measured else load_core_busy,
        measured_core_busy=measured_core_busy,
        measured_core_steal=after.measured_core.stolen_since(before.measured_core),
        load_core_steal=after.load_core.stolen_since(before.load_core),
    )


def _recordings(url: str) -> dict[str, Recording]:
    """Ask the emulator what it got, by session."""
    with httpx.Client(base_url=f"{url}/_emulator", timeout=_FETCH_WITHIN_S) as client:
        ids = [row["id"] for row in client.get("/sessions").raise_for_status().json()]
        return {id_: Recording.parse(client.get(f"/sessions/{id_}").raise_for_status().json()) for id_ in ids}
