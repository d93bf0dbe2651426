"""Whether every byte that was spoken reached the avatar, once and in order. Pure.

24 kHz mono s16le passes unchanged, so an utterance that was completed must have arrived with the same digest, and
one that was cut must have arrived as a beginning of itself. Nothing else may have arrived.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Fate = Literal["completed", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class Said:
    """An utterance as a caller spoke it."""

    id: str
    size_bytes: int
    """What was written of it."""
    fate: Fate
    """What its end said; failed also when there was none."""
    digest: Callable[[int], str]
    """SHA-256 of its first so many bytes."""


@dataclass(frozen=True, slots=True)
class Heard:
    """An utterance as it arrived upstream, in the order of arrival."""

    size_bytes: int
    sha256: str
    interrupted: bool
    """Whether it was cut there."""


@dataclass(slots=True)
class Findings:
    """What became of each utterance."""

    failures: list[str] = field(default_factory=list)
    arrived_as: dict[int, int] = field(default_factory=dict)
    """For utterances that arrived, by number in the order of speech: number in the order of arrival."""
    suspects: list[tuple[int, int]] = field(default_factory=list)
    """Numbers of utterances, spoken and arrived, that differ: the first wrong byte is to be looked for there."""


def compare(said: Sequence[Said], heard: Sequence[Heard]) -> Findings:
    """Account for everything that was said and everything that arrived."""
    findings = Findings()
    at = 0
    for number, one in enumerate(said):
        may_repeat = number > 0 and said[number - 1].fate == "interrupted"
        if one.fate == "completed":
            at = _whole(findings, said, heard, number, at, may_repeat=may_repeat)
        else:
            at = _beginning(findings, heard, one, number, at)
    findings.failures.extend(
        f"{heard[index].size_bytes} bytes arrived as utterance {index} upstream that nobody spoke there: "
        "repeated, reordered or foreign"
        for index in range(at, len(heard))
    )
    return findings


def _whole(
    findings: Findings, said: Sequence[Said], heard: Sequence[Heard], number: int, at: int, *, may_repeat: bool
) -> int:
    one = said[number]
    if one.size_bytes == 0:
        return at
    # LiveAvatar drops all it has at an interrupt, so what follows the one that was meant is sent again.
    while may_repeat and at < len(heard) and heard[at].interrupted and _begins(one, heard[at]):
        if heard[at].size_bytes == one.size_bytes and not _follows(one, heard, at + 1):
            break
        at += 1
    if at < len(heard) and heard[at].size_bytes == one.size_bytes and _begins(one, heard[at]):
        findings.arrived_as[number] = at
        return at + 1
    later = said[number + 1 :]
    if at == len(heard) or any(_begins(other, heard[at]) for other in later):
        findings.failures.append(f"utterance {one.id}: all of its {one.size_bytes} bytes are missing")
        return at
    got = heard[at].size_bytes
    if _begins(one, heard[at]):
        findings.failures.append(
            f"utterance {one.id}: the last {one.size_bytes - got} of {one.size_bytes} bytes are missing"
        )
    else:
        findings.failures.append(f"utterance {one.id}: {got} bytes arrived for {one.size_bytes}, and they differ")
        findings.suspects.append((number, at))
    findings.arrived_as[number] = at
    return at + 1


def _beginning(findings: Findings, heard: Sequence[Heard], one: Said, number: int, at: int) -> int:
    while at < len(heard) and _begins(one, heard[at]):
        findings.arrived_as[number] = at
        at += 1
    return at


def _follows(one: Said, heard: Sequence[Heard], at: int) -> bool:
    return at < len(heard) and _begins(one, heard[at])


def _begins(one: Said, heard: Heard) -> bool:
    return 0 < heard.size_bytes <= one.size_bytes and one.digest(heard.size_bytes) == heard.sha256
