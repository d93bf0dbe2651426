"""Results of runs that never ran, seeded: voice traffic of a healthy gateway, and what is to be wrong with it."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from load.figures import WINDOW_S, Recorder, System
from load.result import GeneratorHealth, RunResult, Sample

HEALTHY = GeneratorHealth(lag_p99_ms=3.1, lag_max_ms=11.0, cpu_share=0.41, core_steal=0.01)
_MIB = 1024 * 1024
_BYTES_PER_S = 48_000


@dataclass(frozen=True, kw_only=True)
class World:
    """Parameters of a simulated run. Times in seconds."""

    seed: int = 1
    duration_s: float = 120.0
    utterances_per_s: float = 3.0
    packet_path_s: float = 0.0
    """Delay that the gateway adds to each packet, beyond the usual millisecond."""
    machine_s: float = 0.0
    """Delay that a slower machine adds to every time, with the gateway and without."""
    stall: tuple[float, float] | None = None
    """From when and for how long nothing moves in the gateway."""
    noise: float = 1.0
    """Noise of the machine; affects both systems."""
    leak_mib_per_h: float = 0.0
    leaked_tasks_per_s: float = 0.0
    cpu_ms_per_audio_s: float = 3.4
    lost_utterances: int = 0
    left_upstream: int = 0
    generator: GeneratorHealth = HEALTHY
    faults: tuple[tuple[float, str], ...] = ()
    errors: tuple[tuple[str, int], ...] = ()
    direct: bool = True
    acks_per_utterance: int = 6


def simulated(world: World | None = None, **changes: object) -> RunResult:
    """Simulate a run of scenario `ci` in that world."""
    world = world or World(**changes)  # type: ignore[arg-type]
    chance = random.Random(world.seed)
    recorder = Recorder(0.0)
    systems: list[System] = ["gateway", "direct"] if world.direct else ["gateway"]
    for system in systems:
        _speak(recorder, system, world, chance)
    for at_s, _ in world.faults:
        for _ in range(4):
            recorder.failed("gateway", "UPSTREAM_LOST", expected=True, at_mono_s=at_s + chance.uniform(0, 2))
    for reason, number in world.errors:
        for _ in range(number):
            recorder.failed("gateway", reason, at_mono_s=chance.uniform(0, world.duration_s))
    for number in range(world.lost_utterances):
        recorder.note_integrity_failure(
            "gateway", f"session s-{number}, utterance {number}: differs from byte {960 * number}"
        )
    return RunResult(
        scenario="ci",
        target="127.0.0.1:50051",
        embedded=True,
        started_at="2026-11-20T09:30:00+00:00",
        duration_s=world.duration_s,
        measured=recorder,
        generator=world.generator,
        samples=_samples(recorder, world, chance),
        left_upstream=world.left_upstream,
        faults=[{"at_s": at_s, "what": what} for at_s, what in world.faults],
        environment={
            "python": "3.11.7",
            "grpcio": "1.85.0",
            "machine": "2 cores, x86_64",
            "seed": str(world.seed),
        },
    )


def _speak(recorder: Recorder, system: System, world: World, chance: random.Random) -> None:
    mine = system == "gateway"
    rate = world.utterances_per_s * (1.0 if mine else 0.34)
    at_s = 0.0
    while (at_s := at_s + chance.expovariate(rate)) < world.duration_s:
        stalled_s = _stalled(at_s, world) if mine else 0.0
        path_s = (
            world.machine_s + stalled_s + ((0.0009 * _tail(chance, world) + world.packet_path_s) if mine else 0.0)
        )

        def took(
            figure: str, value_s: float, *, at_s: float = at_s, when: Callable[[float], float] = lambda at_s: at_s
        ) -> None:
            recorder.record(system, figure, value_s, at_mono_s=when(at_s))

        if chance.random() < 0.25:
            recorder.count(system, "arrivals", at_mono_s=at_s)
            recorder.count(system, "sessions", at_mono_s=at_s)
            took("session open", 0.115 * _tail(chance, world, 0.12) + path_s + (0.012 if mine else 0.0))
            took("session lifetime", chance.uniform(15, 60))
            if mine:
                took("attach", 0.0016 * _tail(chance, world) + path_s)
                took("stream lifetime", chance.uniform(15, 60))
        recorder.count(system, "utterances", at_mono_s=at_s)
        took("first packet upstream", 0.0014 * _tail(chance, world) + path_s)
        took("started", 0.212 * _tail(chance, world, 0.04) + path_s)
        took("chunk lateness", 0.0003 * _tail(chance, world))
        took("deferred", 0.0004 * _tail(chance, world))
        speech_s = chance.uniform(2, 12)
        recorder.count(system, "audio bytes", 2 * int(speech_s * _BYTES_PER_S / 2), at_mono_s=at_s)
        for number in range(world.acks_per_utterance if mine else 0):
            later_s = at_s + number * speech_s / world.acks_per_utterance
            took(
                "ack delay",
                0.1 * chance.random() + 0.001 * _tail(chance, world) + _stalled(later_s, world),
                at_s=later_s,
            )
        cut = chance.random() < 0.15
        if cut:
            took("interrupt to silence", 0.191 + 0.0012 * _tail(chance, world) + path_s, at_s=at_s + speech_s / 2)
        recorder.count(system, "interrupted" if cut else "completed", at_mono_s=at_s + speech_s)
        recorder.count(system, "utterances checked", at_mono_s=at_s + speech_s)


def _stalled(at_s: float, world: World) -> float:
    """Return how long a send due at that moment waits for the end of a stall; faults are small stalls."""
    waits = [0.0]
    for start_s, length_s in (*((world.stall,) if world.stall else ()), *((at, 2.5) for at, _ in world.faults)):
        if start_s <= at_s < start_s + length_s:
            waits.append(start_s + length_s - at_s)
    return max(waits)


def _tail(chance: random.Random, world: World, width: float = 0.45) -> float:
    """Draw a factor around 1 with the long tail of a shared machine."""
    factor = chance.lognormvariate(0.0, width * math.sqrt(world.noise))
    return factor * (1 + (chance.paretovariate(1.6) * world.noise if chance.random() < 0.01 else 0.0))


def _samples(recorder: Recorder, world: World, chance: random.Random) -> list[Sample]:
    spoken = recorder.over_time.get(("gateway", "audio bytes"), {})
    samples, cpu_s, wander = [], 1.2, 0.0
    for step in range(int(world.duration_s) + 1):
        audio_s = spoken.get(step // WINDOW_S, 0) / _BYTES_PER_S / WINDOW_S
        cpu_s += audio_s * world.cpu_ms_per_audio_s / 1000 * chance.uniform(0.9, 1.1) + 0.002
        wander = 0.9 * wander + chance.gauss(0, 0.06)
        warm = 14 * (1 - math.exp(-step / 8))
        grown = world.leak_mib_per_h * step / 3600
        samples.append(
            Sample(
                at_s=float(step),
                cpu_s=cpu_s,
                rss_bytes=int((58 + warm + wander + grown) * _MIB),
                threads=14 + (step > 3),
                open_files=24 + int(audio_s * 2),
                talking=int(audio_s),
                tasks=None if step % 5 else 20 + 8 * int(audio_s) + int(world.leaked_tasks_per_s * step),
            )
        )
    return samples
