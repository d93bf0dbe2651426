"""Check of received packets, byte by byte, against what was said: lost, repeated, out of order.

What is said is noise, so that every few bytes are found at one place only.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from testkit.emulator import Emulator

BYTES_PER_SECOND = 48_000


def noise(seconds: float, seed: int = 1) -> bytes:
    """Return noise, 24 kHz mono s16le."""
    return random.Random(seed).randbytes(round(seconds * BYTES_PER_SECOND / 2) * 2)


@dataclass(frozen=True, slots=True)
class Arrival:
    """Bytes of one utterance that arrived."""

    upto: int = 0
    """Bytes from its beginning on that arrived."""
    repeats: tuple[tuple[int, int], ...] = ()
    """Numbers of the packets that repeat something, each with its repeated bytes."""
    longest_jump_back: int = 0
    """Bytes."""
    first: int = 0
    last: int = 0
    """Numbers of its first and last packet."""

    @property
    def repeated(self) -> int:
        """Return the number of bytes that arrived twice."""
        return sum(size for _, size in self.repeats)


def place(
    said: Mapping[str, bytes], packets: Sequence[bytes], *, may_go_back: Collection[int] = ()
) -> tuple[dict[str, Arrival], list[str]]:
    """Find every packet in what was said.

    Args:
        said: Utterances by id, in the order in which they were said.
        packets: Packets in the order of their arrival.
        may_go_back: Numbers of packets that may be of an utterance before the newest, which then comes again.

    Returns:
        What arrived of each utterance, and what is wrong with the packets.
    """
    names = list(said)
    arrived = {name: Arrival() for name in names}
    wrong: list[str] = []
    newest = 0
    for number, packet in enumerate(packets):
        found = _find([said[name] for name in names], [arrived[name].upto for name in names], packet, newest)
        if found is None:
            wrong.append(f"packet {number} of {len(packet)} bytes was never said")
            continue
        index, start = found
        name = names[index]
        if number in may_go_back:
            newest = index
        before = arrived[name]
        if index < newest:
            wrong.append(f"packet {number} is of utterance {name}, after a later one had begun")
        if start > before.upto:
            wrong.append(f"bytes {before.upto} to {start} of utterance {name} never came")
        newest = max(newest, index)
        end = start + len(packet)
        again = max(0, min(before.upto, end) - start)
        arrived[name] = Arrival(
            upto=max(before.upto, end),
            repeats=(*before.repeats, (number, again)) if again else before.repeats,
            longest_jump_back=max(before.longest_jump_back, before.upto - start),
            first=before.first if before.upto else number,
            last=number,
        )
    return arrived, wrong


def find(said: Mapping[str, bytes], packet: bytes) -> tuple[str, int] | None:
    """Return the utterance and the place of a packet; None when it was never said."""
    for name, pcm in said.items():
        if (start := pcm.find(packet)) >= 0:
            return name, start
    return None


def _find(said: Sequence[bytes], upto: Sequence[int], packet: bytes, newest: int) -> tuple[int, int] | None:
    """Look where the newest utterance goes on, then in the later ones, then in the earlier ones."""
    if said and said[newest].startswith(packet, upto[newest]):
        return newest, upto[newest]
    for index in [*range(newest, len(said)), *range(newest)]:
        if (start := said[index].find(packet)) >= 0:
            return index, start
    return None


@dataclass(frozen=True, slots=True)
class Continuity:
    """Bytes of a source that never arrived, or arrived twice."""

    lost: int
    repeated: int
    repeated_packets: int
    longest_jump_back: int


def continuity(source: bytes, emulator: Emulator, upstream_id: str) -> Continuity:
    """Place every packet that the emulator got in `source`; fails when it is not from there, or leaves a hole."""
    audio = emulator.audio(upstream_id)
    packets: list[bytes] = []
    at = 0
    for packet in emulator.session(upstream_id)["packets"]:
        packets.append(audio[at : at + packet["size_bytes"]])
        at += packet["size_bytes"]
    arrived, wrong = place({"source": source}, packets)
    assert not wrong, wrong
    got = arrived["source"]
    return Continuity(len(source) - got.upto, got.repeated, len(got.repeats), got.longest_jump_back)
