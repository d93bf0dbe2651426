"""Check that every byte sent reached the avatar, once and in order. Pure.

24 kHz mono s16le passes unchanged, so a completed utterance must arrive with the same digest, and an interrupted
utterance as a prefix of itself. Nothing else may arrive.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

UtteranceOutcome = Literal["completed", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class SpokenUtterance:
    """Utterance as a caller sent it."""

    id: str
    size_bytes: int
    """Bytes sent."""
    outcome: UtteranceOutcome
    """Outcome that its end reported; failed also without an end."""
    digest: Callable[[int], str]
    """Return the SHA-256 of the first bytes, for a number of them."""


@dataclass(frozen=True, slots=True)
class ReceivedUtterance:
    """Utterance as it arrived upstream."""

    size_bytes: int
    sha256: str
    interrupted: bool
    """True if it was interrupted upstream."""


@dataclass(slots=True)
class Findings:
    """Result of the comparison."""

    failures: list[str] = field(default_factory=list)
    arrived_as: dict[int, int] = field(default_factory=dict)
    """Numbers of utterances in the order of arrival, by their number in the order of sending."""
    suspects: list[tuple[int, int]] = field(default_factory=list)
    """Numbers of utterances, sent and arrived, whose bytes differ."""


def compare(spoken: Sequence[SpokenUtterance], received: Sequence[ReceivedUtterance]) -> Findings:
    """Match all utterances sent with all that arrived."""
    findings = Findings()
    at = 0
    for number, one in enumerate(spoken):
        may_repeat = number > 0 and spoken[number - 1].outcome == "interrupted"
        if one.outcome == "completed":
            at = _whole(findings, spoken, received, number, at, may_repeat=may_repeat)
        else:
            at = _beginning(findings, received, one, number, at)
    findings.failures.extend(
        f"{received[index].size_bytes} bytes arrived as utterance {index} upstream that the caller did not send: "
        "repeated, reordered or foreign"
        for index in range(at, len(received))
    )
    return findings


def _whole(
    findings: Findings,
    spoken: Sequence[SpokenUtterance],
    received: Sequence[ReceivedUtterance],
    number: int,
    at: int,
    *,
    may_repeat: bool,
) -> int:
    one = spoken[number]
    if one.size_bytes == 0:
        return at
    # LiveAvatar drops its whole buffer at an interrupt, so utterances behind the interrupted one are sent again.
    while may_repeat and at < len(received) and received[at].interrupted and _begins(one, received[at]):
        if received[at].size_bytes == one.size_bytes and not _follows(one, received, at + 1):
            break
        at += 1
    if at < len(received) and received[at].size_bytes == one.size_bytes and _begins(one, received[at]):
        findings.arrived_as[number] = at
        return at + 1
    later = spoken[number + 1 :]
    if at == len(received) or any(_begins(other, received[at]) for other in later):
        findings.failures.append(f"utterance {one.id}: all of its {one.size_bytes} bytes are missing")
        return at
    got = received[at].size_bytes
    if _begins(one, received[at]):
        findings.failures.append(
            f"utterance {one.id}: the last {one.size_bytes - got} of {one.size_bytes} bytes are missing"
        )
    else:
        findings.failures.append(f"utterance {one.id}: {got} bytes arrived for {one.size_bytes}, and they differ")
        findings.suspects.append((number, at))
    findings.arrived_as[number] = at
    return at + 1


def _beginning(
    findings: Findings, received: Sequence[ReceivedUtterance], one: SpokenUtterance, number: int, at: int
) -> int:
    while at < len(received) and _begins(one, received[at]):
        findings.arrived_as[number] = at
        at += 1
    return at


def _follows(one: SpokenUtterance, received: Sequence[ReceivedUtterance], at: int) -> bool:
    return at < len(received) and _begins(one, received[at])


def _begins(one: SpokenUtterance, received: ReceivedUtterance) -> bool:
    return 0 < received.size_bytes <= one.size_bytes and one.digest(received.size_bytes) == received.sha256
