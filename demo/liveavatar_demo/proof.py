"""Comparison of the demo's claims with the emulator's recording: evidence in, verdicts out, no I/O."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from liveavatar_gateway.audio.formats import NATIVE_BYTE_RATE, NATIVE_RATE_HZ

AGREEMENT_S: Final = 0.4
"""Largest accepted difference between the gateway's and LiveAvatar's count of the audio played.

The gateway computes it from what it is told and when; this covers how late each process of a busy machine notices.
"""

_SAMPLE_BYTES: Final = 2
_HASH_CHARS: Final = 12
_PROBE: Final = "agent.interrupt"
"""Command with which the gateway finds out that a socket works where `connected` never comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """Utterance as sent, as received and as both sides report its playout. Audio is 24 kHz s16le."""

    name: str
    """Its file."""
    expected: bytes
    """The file, converted in one go."""
    recorded: bytes
    """All that the emulator received."""
    heard_bytes: int
    """Bytes played by the emulator's playback clock."""
    told_outcome: str
    """Outcome that the gateway reports: "played", "interrupted" or "failed"."""
    told_s: float
    """Seconds played, as the gateway reports them."""

    @property
    def heard_s(self) -> float:
        """Seconds played, as the emulator reports them."""
        return self.heard_bytes / NATIVE_BYTE_RATE

    @property
    def whole_s(self) -> float:
        """Seconds of the whole utterance."""
        return len(self.expected) / NATIVE_BYTE_RATE

    @property
    def disagreement_s(self) -> float:
        """Seconds between the two reports."""
        return abs(self.told_s - self.heard_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of a demo's session once it is over."""

    greeting: Spoken
    """Spoken to its end, and handed over before the avatar was ready."""
    story: Spoken
    """Cut by an interrupt."""
    ready_to_first_packet_s: float | None
    """From the avatar's readiness to its first audio; None when there was none."""
    commands_before_ready: int
    """Commands that an avatar would have missed; probes, which may be missed, do not count."""
    underruns: int
    """Underruns inside utterances."""
    interrupts: int
    """Interrupts that the emulator took."""
    packets_after_interrupt: int
    """Audio that came after one, whatever it belonged to."""
    active_sessions: int
    """Sessions that the account still pays for."""


@dataclass(frozen=True, slots=True)
class Check:
    """Claim and its verdict."""

    name: str
    ok: bool
    detail: str
    """The values that decided it."""


def examine(evidence: Evidence) -> list[Check]:
    """Check every claim; none is skipped because another failed."""
    return [
        _arrived_whole(evidence.greeting),
        _heard_whole(evidence.greeting),
        _arrived_cut(evidence.story),
        _agreed(evidence.story),
        _never_dry(evidence),
        _held_until_ready(evidence),
        _silent_after_interrupt(evidence),
        _stopped(evidence),
    ]


def packets_after_interrupt(recording: Mapping[str, Any]) -> int:
    """Count audio that reached the emulator after its first interrupt, of a cut utterance or of any other."""
    late: int = recording["audio_after_interrupt"]["packets"]
    if recording["interrupts"]:
        since_s = recording["interrupts"][0]["received_at_s"]
        late += sum(packet["arrived_at_s"] > since_s for packet in recording["packets"])
    return late


def commands_before_ready(recording: Mapping[str, Any]) -> int:
    """Count commands before readiness, without the interrupts that probe a socket whose readiness takes long."""
    ready_at_s = recording["ready_at_s"]
    return sum(
        command["type"] != _PROBE and (ready_at_s is None or command["at_s"] < ready_at_s)
        for command in recording["commands"]
    )


def ready_to_first_packet_s(recording: Mapping[str, Any]) -> float | None:
    """Return the seconds from the avatar's readiness to its first audio; None when either is missing."""
    packets: Sequence[Mapping[str, Any]] = recording["packets"]
    if recording["ready_at_s"] is None or not packets:
        return None
    return float(packets[0]["arrived_at_s"] - recording["ready_at_s"])


def first_difference(expected: bytes, recorded: bytes) -> int | None:
    """Index of the first sample that differs; None where one is the other's beginning."""
    size = min(len(expected), len(recorded)) // _SAMPLE_BYTES
    differing = np.flatnonzero(np.frombuffer(expected, "<i2", size) != np.frombuffer(recorded, "<i2", size))
    return int(differing[0]) if differing.size else None


def _arrived_whole(spoken: Spoken) -> Check:
    name = f"{spoken.name} arrived sample for sample"
    damage = _damage(spoken)
    if damage is None and len(spoken.recorded) != len(spoken.expected):
        damage = f"{_samples(spoken.recorded):,} samples arrived, {_samples(spoken.expected):,} were expected"
    if damage is not None:
        return Check(name, ok=False, detail=damage)
    return Check(name, ok=True, detail=f"{_samples(spoken.recorded):,} samples, sha256 {_hash(spoken.recorded)}")


def _heard_whole(spoken: Spoken) -> Check:
    return Check(
        f"{spoken.name} was heard to its end",
        ok=spoken.told_outcome == "played"
        and spoken.heard_bytes == len(spoken.expected)
        and spoken.disagreement_s <= AGREEMENT_S,
        detail=f"{spoken.told_outcome}; {_both(spoken)} of {spoken.whole_s:.2f} s",
    )


def _arrived_cut(spoken: Spoken) -> Check:
    name = f"{spoken.name} arrived unaltered as far as it was sent"
    damage = _damage(spoken)
    if damage is None and not 0 < len(spoken.recorded) < len(spoken.expected):
        damage = (
            f"{_samples(spoken.recorded):,} of {_samples(spoken.expected):,} samples arrived, so nothing was cut"
        )
    if damage is not None:
        return Check(name, ok=False, detail=damage)
    kept_s = spoken.whole_s - len(spoken.recorded) / NATIVE_BYTE_RATE
    return Check(
        name,
        ok=True,
        detail=f"the first {_samples(spoken.recorded):,} of {_samples(spoken.expected):,} samples, "
        f"sha256 {_hash(spoken.recorded)}; {kept_s:.2f} s never left",
    )


def _agreed(spoken: Spoken) -> Check:
    return Check(
        f"both sides agree how much of {spoken.name} was heard",
        ok=spoken.told_outcome == "interrupted" and spoken.heard_s > 0 and spoken.disagreement_s <= AGREEMENT_S,
        detail=f"{spoken.told_outcome}; {_both(spoken)}, {spoken.disagreement_s * 1000:.0f} ms apart "
        f"(at most {AGREEMENT_S * 1000:.0f})",
    )


def _never_dry(evidence: Evidence) -> Check:
    return Check("the avatar never ran dry", ok=evidence.underruns == 0, detail=f"{evidence.underruns} underruns")


def _held_until_ready(evidence: Evidence) -> Check:
    after_s = evidence.ready_to_first_packet_s
    came = "no audio came" if after_s is None else f"first audio {after_s * 1000:.1f} ms after it"
    return Check(
        "no speech was sent before the avatar was ready",
        ok=evidence.commands_before_ready == 0 and after_s is not None and after_s >= 0,
        detail=f"{evidence.commands_before_ready} commands before ready, {came}",
    )


def _silent_after_interrupt(evidence: Evidence) -> Check:
    return Check(
        "no audio followed the interrupt",
        ok=evidence.interrupts == 1 and evidence.packets_after_interrupt == 0,
        detail=f"{evidence.interrupts} interrupt, {evidence.packets_after_interrupt} packets after it",
    )


def _stopped(evidence: Evidence) -> Check:
    return Check(
        "the session was stopped",
        ok=evidence.active_sessions == 0,
        detail=f"{evidence.active_sessions} sessions active at LiveAvatar",
    )


def _damage(spoken: Spoken) -> str | None:
    """Describe how the recorded audio differs from the beginning of the expected audio; None when it does not."""
    if len(spoken.recorded) % _SAMPLE_BYTES:
        return f"{len(spoken.recorded):,} bytes are no whole number of samples"
    at = first_difference(spoken.expected, spoken.recorded)
    if at is not None:
        return (
            f"sample {at:,} ({at / NATIVE_RATE_HZ:.3f} s) is {_sample(spoken.recorded, at)}, "
            f"expected {_sample(spoken.expected, at)}"
        )
    if len(spoken.recorded) > len(spoken.expected):
        surplus = _samples(spoken.recorded) - _samples(spoken.expected)
        return f"{surplus:,} samples follow the end"
    return None


def _both(spoken: Spoken) -> str:
    return f"gateway {spoken.told_s:.2f} s, LiveAvatar {spoken.heard_s:.2f} s"


def _samples(pcm: bytes) -> int:
    return len(pcm) // _SAMPLE_BYTES


def _sample(pcm: bytes, at: int) -> int:
    return int.from_bytes(pcm[at * _SAMPLE_BYTES : (at + 1) * _SAMPLE_BYTES], "little", signed=True)


def _hash(pcm: bytes) -> str:
    return hashlib.sha256(pcm).hexdigest()[:_HASH_CHARS]
