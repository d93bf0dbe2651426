"""Invariants under faults. Pure: history and recordings in, violations out."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chaos.history import Recorded, Said, Talk

REPEATED_BYTES = 5 * 48_000
"""Most that may be said twice behind a lost socket, see decision 0010."""
SLACK_S = 0.1
"""Longest delay between a gateway's close of a connection and the proxy's notice."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Bytes of an utterance that LiveAvatar received."""

    upto: int = 0
    repeated: int = 0
    repeats: tuple[tuple[float, int], ...] = ()
    """Arrivals of repeated packets, with the number of repeated bytes."""
    first_s: float = 0.0
    last_s: float = 0.0
    """Arrivals of the first and the last packet."""


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
        repeats = (*before.repeats, (at_s, again)) if again else before.repeats
        heard[name] = Heard(max(before.upto, end), before.repeated + again, repeats, first_s, at_s)
    return heard, wrong


def _find(said: Sequence[Said], packet: bytes, newest: int) -> tuple[int, int] | None:
    for index in [*range(newest, len(said)), *range(newest)]:
        if (start := said[index].pcm.find(packet)) >= 0:
            return index, start
    return None


def timeline(talk: Talk, recorded: Recorded) -> list[str]:
    """Describe in order what LiveAvatar got in one session, for whoever judges a violation."""
    lines = [f"socket {socket}" for socket in recorded.sockets]
    packets = iter(recorded.packets)
    for at_s, kind in recorded.commands:
        line = f"{at_s:8.3f} {kind}"
        if kind == "agent.speak":
            _, pcm = next(packets, (0.0, b""))
            found = _find(talk.said, pcm, 0)
            line += (
                f" {talk.said[found[0]].utterance_id} from {found[1]} to {found[1] + len(pcm)}"
                if found
                else " of nobody"
            )
        lines.append(line)
    return lines


def violations(
    talks: Sequence[Talk],
    recordings: Mapping[str, Recorded],
    *,
    misses_allowed: bool = False,
) -> tuple[list[str], int]:
    """Check every conversation.

    Args:
        talks: What callers sent and were told.
        recordings: What LiveAvatar got, by its session id.
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
            problems += _repeated(heard, recorded)
            repeated += sum(one.repeated for one in heard.values())
        found += [f"{where}: {problem}" for problem in problems]
    return found, repeated


def _repeated(heard: Mapping[str, Heard], recorded: Recorded) -> Iterator[str]:
    """Behind a lost socket a bounded part may come again, and nothing does without a loss."""
    again: Counter[int] = Counter()
    for one in heard.values():
        for at_s, size in one.repeats:
            again[sum(attached_s <= at_s for attached_s in recorded.attached_s)] += size
    for number, size in sorted(again.items()):
        if number <= 1:
            yield f"{size} bytes came twice, though no socket was lost"
        elif size > REPEATED_BYTES:
            yield f"{size} bytes came twice over socket {number}, more than {REPEATED_BYTES}"


def overlaps(sockets: Iterable[tuple[str, float, float | None]]) -> list[str]:
    """Find sessions of which gateways had two sockets at once: two of them drove it.

    LiveAvatar may see two of one gateway: it reads late that the first was reset. So gateways' ends are looked at.

    Args:
        sockets: Address, beginning and end of each, as whoever opened it had it.
    """
    found = []
    last: dict[str, float | None] = {}
    for address, began_s, ended_s in sorted(sockets, key=lambda one: one[1]):
        if address in last and ((before_s := last[address]) is None or before_s > began_s + SLACK_S):
            ended = "now" if before_s is None else f"{before_s - began_s:.3f} s later"
            found.append(
                f"a session had two sockets at once: two gateways drove it ({address[-12:]}, until {ended})"
            )
        last[address] = ended_s
    return found


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
