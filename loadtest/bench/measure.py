"""From what was written, what arrived and what it cost to the figures of the report. Pure."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from bench.settings import BUSY, BYTE_RATE, LATE_S, BenchError
from bench.speech import Spoken, SpokenSession, Write

_ARRIVED_WITHIN_S = 2.0
"""Audio is given up for lost when it has not arrived after this."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One `agent.speak` as the emulator got it."""

    utterance: int
    size_bytes: int
    arrived_s: float
    """CLOCK_MONOTONIC."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What the emulator got for one session."""

    packets: list[Packet]
    underruns: int

    @classmethod
    def parse(cls, row: dict[str, Any]) -> Self:
        """Read a session of the emulator's control API."""
        packets = [Packet(one["utterance"], one["size_bytes"], one["arrived_mono_s"]) for one in row["packets"]]
        return cls(packets, row["underruns"]["count"])


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet's arrival, and when the newest byte in it was written."""

    arrived_s: float
    age_s: float
    """From the write of the newest byte to the arrival."""
    first: bool
    """Whether it is the first of its utterance."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Middle and tail of a set of times, milliseconds; not a number when there are none."""

    p50_ms: float
    p99_ms: float
    count: int

    @classmethod
    def of(cls, values_s: Sequence[float]) -> Self:
        """Take them from times in seconds."""
        ordered = sorted(values_s)
        return cls(1000 * percentile(ordered, 50), 1000 * percentile(ordered, 99), len(ordered))


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What processes and cores did during the window."""

    started_s: float
    ended_s: float
    measured_cpu_s: float
    """CPU time of the process that is measured."""
    generator_cpu_s: float
    emulator_cpu_s: float
    generator_core_busy: float
    """Share of the core that the generator runs on, 0 to 1."""
    measured_core_busy: float
    """The same of the core of the measured process; what it did not take itself, others took."""
    measured_core_steal: float
    load_core_steal: float

    @property
    def seconds(self) -> float:
        """Length of the window."""
        return self.ended_s - self.started_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one measurement found."""

    name: str
    sessions: int
    chunk_ms: int | None
    """Size of the caller's chunks; None for the sender that has no caller."""
    audio_s: float
    """Audio written within the window, all sessions together."""
    cpu_ms_per_audio_s: float
    core_share: float
    """Share of its core that the measured process took, 0 to 1."""
    measured_core_busy: float
    """Share of that core that anybody took."""
    first_packets: Quantiles
    """Latency of first packets. They leave when their last chunk arrives, so all of it was added on the way."""
    all_packets: Quantiles
    """Age of the newest byte. Later packets leave when the avatar needs them, up to one chunk after it."""
    packet_ms: float
    """Median length of the packets that are neither first nor last of their utterance."""
    packets_per_s: float
    underruns: int
    lateness: Quantiles
    """How late the generator wrote its chunks."""
    generator_share: float
    generator_core_busy: float
    emulator_share: float
    measured_core_steal: float
    load_core_steal: float

    @property
    def generator_was_bottleneck(self) -> bool:
        """Whether the load was not what it should have been, so that the figures say nothing."""
        return self.lateness.p99_ms > 1000 * LATE_S or self.generator_core_busy > BUSY


def percentile(ordered: Sequence[float], rank: float) -> float:
    """Take the nearest-rank percentile of values in ascending order; not a number when there are none."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * rank / 100) - 1)]


def arrivals(session: SpokenSession, packets: Sequence[Packet]) -> list[Arrival]:
    """Find for each packet when the newest byte in it was written.

    Packets hold an utterance's bytes once and in order, so a packet's newest byte lies where all packets up to it
    end; the write that reached that position is the one that completed the packet.

    Raises:
        BenchError: More arrived than was written.
    """
    writes_of: dict[int, list[tuple[int, float]]] = {}
    for write in session.writes:
        writes_of.setdefault(write.utterance, []).append((write.end_byte, write.wrote_s))
    found = []
    arrived_bytes: dict[int, int] = {}
    for packet in packets:
        before = arrived_bytes.get(packet.utterance, 0)
        end = arrived_bytes[packet.utterance] = before + packet.size_bytes
        writes = writes_of.get(packet.utterance, [])
        index = bisect_left(writes, end, key=lambda write: write[0])
        if index == len(writes):
            raise BenchError(
                f"session {session.upstream_id} got {end} bytes of utterance {packet.utterance}, "
                "more than were spoken"
            )
        found.append(Arrival(packet.arrived_s, packet.arrived_s - writes[index][1], before == 0))
    return found


def figures(
    name: str,
    chunk_ms: int | None,
    spoken: Spoken,
    recordings: Sequence[Recording],
    usage: Usage,
) -> Figures:
    """Reckon everything that happened within the window.

    Args:
        name: What was measured.
        chunk_ms: Size of the caller's chunks.
        spoken: What the speaker wrote.
        recordings: What arrived, in the order of `spoken.sessions`.
        usage: What it cost.

    Raises:
        BenchError: The speaker met a problem, bytes were lost, or bytes arrived that were not spoken.
    """
    if spoken.problems:
        raise BenchError(f"{name}: {len(spoken.problems)} problems, the first: {spoken.problems[0]}")

    def inside(moment_s: float) -> bool:
        return usage.started_s <= moment_s < usage.ended_s

    seen: list[Arrival] = []
    middle_sizes: list[int] = []
    for session, recording in zip(spoken.sessions, recordings, strict=True):
        of_session = arrivals(session, recording.packets)
        seen.extend(one for one in of_session if inside(one.arrived_s))
        middle_sizes.extend(
            packet.size_bytes
            for packet, arrival, following in zip(
                recording.packets, of_session, recording.packets[1:], strict=False
            )
            if inside(packet.arrived_s) and not arrival.first and following.utterance == packet.utterance
        )
        _check_complete(name, session, recording, by_s=usage.ended_s - _ARRIVED_WITHIN_S)
    if not seen:
        raise BenchError(f"{name}: no audio arrived at the emulator within the window")
    audio_s = _audio_s(spoken, usage)
    lateness = [
        max(0.0, write.wrote_s - write.due_s)
        for session in spoken.sessions
        for write in session.writes
        if inside(write.due_s)
    ]
    return Figures(
        name=name,
        sessions=len(spoken.sessions),
        chunk_ms=chunk_ms,
        audio_s=audio_s,
        cpu_ms_per_audio_s=1000 * usage.measured_cpu_s / audio_s,
        core_share=usage.measured_cpu_s / usage.seconds,
        measured_core_busy=usage.measured_core_busy,
        first_packets=Quantiles.of([one.age_s for one in seen if one.first]),
        all_packets=Quantiles.of([one.age_s for one in seen]),
        packet_ms=1000 * percentile(sorted(middle_sizes), 50) / BYTE_RATE,
        packets_per_s=len(seen) / usage.seconds,
        underruns=sum(recording.underruns for recording in recordings),
        lateness=Quantiles.of(lateness),
        generator_share=usage.generator_cpu_s / usage.seconds,
        generator_core_busy=usage.generator_core_busy,
        emulator_share=usage.emulator_cpu_s / usage.seconds,
        measured_core_steal=usage.measured_core_steal,
        load_core_steal=usage.load_core_steal,
    )


def _check_complete(name: str, session: SpokenSession, recording: Recording, *, by_s: float) -> None:
    """Make sure that all utterances spoken by a moment arrived whole: what is lost would be cheap."""
    spoken: dict[int, Write] = {}
    for write in session.writes:
        spoken[write.utterance] = write
    arrived: dict[int, int] = {}
    for packet in recording.packets:
        arrived[packet.utterance] = arrived.get(packet.utterance, 0) + packet.size_bytes
    for utterance, last in spoken.items():
        if utterance + 1 in spoken and last.wrote_s < by_s and arrived.get(utterance, 0) != last.end_byte:
            raise BenchError(
                f"{name}: session {session.upstream_id} lost {last.end_byte - arrived.get(utterance, 0)} bytes "
                f"of utterance {utterance}"
            )


def _audio_s(spoken: Spoken, usage: Usage) -> float:
    """Add up the audio that was written within the window."""
    written = 0
    for session in spoken.sessions:
        utterance, at = -1, 0
        for write in session.writes:
            if write.utterance != utterance:
                utterance, at = write.utterance, 0
            if usage.started_s <= write.wrote_s < usage.ended_s:
                written += write.end_byte - at
            at = write.end_byte
    return written / BYTE_RATE
