"""Invariants under faults. Pure: history and recordings in, violations out."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from chaos.history import Recorded, Talk

from testkit.continuity import Arrival, find, place

REPEATED_BYTES = 5 * 48_000
"""Most that may be said twice behind a lost socket, see decision 0010, or behind a pause, see decision 0024."""
SLACK_S = 0.1
"""Longest delay between a gateway's close of a connection and the proxy's notice."""


def timeline(talk: Talk, recorded: Recorded) -> list[str]:
    """Describe in order what LiveAvatar got in one session, for whoever judges a violation."""
    lines = [f"socket {socket}" for socket in recorded.sockets]
    packets = iter(recorded.packets)
    said = {one.utterance_id: one.pcm for one in talk.said}
    for at_s, kind in recorded.commands:
        line = f"{at_s:8.3f} {kind}"
        if kind == "agent.speak":
            _, pcm = next(packets, (0.0, b""))
            found = find(said, pcm)
            line += f" {found[0]} from {found[1]} to {found[1] + len(pcm)}" if found else " of nobody"
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
            said = {one.utterance_id: one.pcm for one in talk.said}
            begins = _begins_again(recorded) if talk.pauses else frozenset()
            arrived, wrong = place(said, [packet for _, packet in recorded.packets], may_go_back=begins)
            problems += [*wrong, *_heard(talk, arrived, recorded)]
            problems += _repeated(talk, arrived, recorded)
            repeated += sum(one.repeated for one in arrived.values())
        found += [f"{where}: {problem}" for problem in problems]
    return found, repeated


def _repeated(talk: Talk, arrived: Mapping[str, Arrival], recorded: Recorded) -> Iterator[str]:
    """Behind a lost socket or a pause a bounded part may come again, and nothing does without either."""
    again: Counter[tuple[int, int]] = Counter()
    for one in arrived.values():
        for packet, size in one.repeats:
            at_s, _ = recorded.packets[packet]
            # LiveAvatar knows no pause: it gets an interrupt.
            pauses = sum(cut_s <= at_s for cut_s in recorded.interrupts) if talk.pauses else 0
            again[sum(attached_s <= at_s for attached_s in recorded.attached_s), pauses] += size
    for (number, pauses), size in sorted(again.items()):
        if number <= 1 and not pauses:
            yield f"{size} bytes came twice, though no socket was lost"
        elif size > REPEATED_BYTES:
            behind = f" and {pauses} interrupts" if pauses else ""
            yield f"{size} bytes came twice over socket {number}{behind}, more than {REPEATED_BYTES}"


def _begins_again(recorded: Recorded) -> frozenset[int]:
    """Return the numbers of packets with which paused speech may go on: behind interrupts, and on new sockets."""
    found = set()
    for cut_s in (*recorded.interrupts, *recorded.attached_s):
        behind = (number for number, (at_s, _) in enumerate(recorded.packets) if at_s >= cut_s)
        found.add(next(behind, -1))
    return frozenset(found)


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


def _heard(talk: Talk, arrived: Mapping[str, Arrival], recorded: Recorded) -> Iterator[str]:
    interrupts = recorded.interrupts
    read_last_s = max((at_s for at_s, _ in recorded.packets), default=0.0)
    for one in talk.said:
        got = arrived[one.utterance_id]
        first_s, last_s = (recorded.packets[number][0] if got.upto else 0.0 for number in (got.first, got.last))
        if one.outcome == "played" and got.upto != len(one.pcm):
            yield f"utterance {one.utterance_id} was played, but {len(one.pcm) - got.upto} bytes of it never came"
        inside = sum(first_s < at_s < last_s for at_s in interrupts)
        if one.outcome == "interrupted" and inside > talk.pauses:
            yield f"audio of utterance {one.utterance_id} came after the interrupt that cut it"
        # What LiveAvatar had not read when the session ended is recorded nowhere: only that it read on is proof.
        went_on = got.upto and read_last_s > last_s
        if one.outcome == "interrupted" and went_on and not any(at_s >= last_s for at_s in interrupts):
            yield f"utterance {one.utterance_id} was cut, but no interrupt came between it and later audio"
