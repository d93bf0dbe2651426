"""What must hold whatever goes wrong. Pure: history and recordings in, violations out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chaos.history import Recorded, Said, Talk


@dataclass(frozen=True, slots=True)
class Heard:
    """How much of an utterance LiveAvatar got, in bytes."""

    upto: int = 0
    repeated: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    """When its first and its last packet came."""


def place(said: Sequence[Said], recorded: Recorded) -> tuple[dict[str, Heard], list[str]]:
    """Find every packet in what was said, which is noise, so that each is found at one place only.

    Returns:
        What was heard of each utterance, and what is wrong with the order.
    """
    heard = {one.utterance_id: Heard() for one in said}
    wrong: list[str] = []
    newest = 0
    for number, (at_s, packet) in enumerate(recorded.packets):
        found = _find(said, packet, newest)
        if found is None:
            wrong.append(f"packet {number} of {len(packet)} bytes was never said")
            continue
        index, start = found
        name = said[index].utterance_id
        before = heard[name]
        if index < newest:
            wrong.append(f"packet {number} is of utterance {name}, after a later one had begun")
        if start > before.upto:
            wrong.append(f"bytes {before.upto} to {start} of utterance {name} never came")
        newest = max(newest, index)
        end = start + len(packet)
        again = max(0, min(before.upto, end) - start)
        first_s = before.first_s if before.upto else at_s
        heard[name] = Heard(max(before.upto, end), before.repeated + again, first_s, at_s)
    return heard, wrong


def _find(said: Sequence[Said], packet: bytes, newest: int) -> tuple[int, int] | None:
    for index in [*range(newest, len(said)), *range(newest)]:
        if (start := said[index].pcm.find(packet)) >= 0:
            return index, start
    return None


def violations(
    talks: Sequence[Talk],
    recordings: Mapping[str, Recorded],
    *,
    repeats_allowed: bool,
    misses_allowed: bool = False,
) -> tuple[list[str], int]:
    """Check every conversation.

    Args:
        talks: What callers sent and were told.
        recordings: What LiveAvatar got, by its session id.
        repeats_allowed: Whether audio may have come twice.
        misses_allowed: Whether events may have been told to be kept no more.

    Returns:
        What is violated, and how many bytes came twice.
    """
    found: list[str] = []
    repeated = 0
    for talk in talks:
        where = f"caller {talk.caller}, session {talk.session_id or 'never opened'}"
        problems = [*_told(talk)]
        if talk.missed and not misses_allowed:
            problems.append(f"{talk.missed} events were not kept, though no gateway came in place of another")
        if talk.upstream_id:
            recorded = recordings.get(talk.upstream_id, Recorded())
            heard, wrong = place(talk.said, recorded)
            problems += [*wrong, *_heard(talk, heard, recorded)]
            if recorded.replaced:
                problems.append(f"it had two sockets at once, {recorded.replaced} times: two gateways drove it")
            twice = sum(one.repeated for one in heard.values())
            repeated += twice
            if twice and not repeats_allowed:
                problems.append(f"{twice} bytes came twice")
        found += [f"{where}: {problem}" for problem in problems]
    return found, repeated


def _told(talk: Talk) -> Iterator[str]:
    if talk.hung:
        yield f"waited in vain for {talk.hung}"
    for before, after in pairwise([0, *talk.sequences]):
        if after != before + 1:
            yield f"event {after} came after event {before}"
    yield from _ends(talk)
    for one in talk.said:
        if not one.outcome and not talk.hung:
            yield f"utterance {one.utterance_id} has no end"


def _ends(talk: Talk) -> Iterator[str]:
    if len(talk.ends) > 1:
        yield f"ended {len(talk.ends)} times: {', '.join(talk.ends)}"
    told = [*talk.ends, *([talk.answered_end] if talk.answered_end else [])]
    if talk.session_id and not told and not talk.events_error and not talk.hung:
        yield "its events stopped without an end and without an error"
    if told and not talk.record_end:
        yield "its final record could not be had"
    for reason in told:
        if talk.record_end and reason != talk.record_end:
            yield f"was told {reason}, but the record says {talk.record_end}"


def _heard(talk: Talk, heard: Mapping[str, Heard], recorded: Recorded) -> Iterator[str]:
    interrupts = recorded.interrupts
    read_last_s = max((at_s for at_s, _ in recorded.packets), default=0.0)
    for one in talk.said:
        got = heard[one.utterance_id]
        if one.outcome == "played" and got.upto != len(one.pcm):
            yield f"utterance {one.utterance_id} was played, but {len(one.pcm) - got.upto} bytes of it never came"
        if one.outcome == "interrupted" and any(got.first_s < at_s < got.last_s for at_s in interrupts):
            yield f"audio of utterance {one.utterance_id} came after the interrupt that cut it"
        # What LiveAvatar had not read when the session ended is recorded nowhere: only that it read on is proof.
        went_on = got.upto and read_last_s > got.last_s
        if one.outcome == "interrupted" and went_on and not any(at_s >= got.last_s for at_s in interrupts):
            yield f"utterance {one.utterance_id} was cut, but no interrupt came between it and later audio"
