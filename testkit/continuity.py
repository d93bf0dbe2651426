"""Bytes of a long utterance that never arrived, or arrived twice."""

import random
from dataclasses import dataclass
from typing import Any

from testkit import processes

BYTES_PER_SECOND = 48_000


@dataclass(frozen=True)
class Continuity:
    """Bytes of a source that an avatar got."""

    lost: int
    repeated: int
    repeated_packets: int
    longest_jump_back: int


def noise(seconds: float, seed: int = 1) -> bytes:
    """Audio in LiveAvatar's format in which every few bytes are found at one place only."""
    return random.Random(seed).randbytes(round(seconds * BYTES_PER_SECOND / 2) * 2)


def continuity(source: bytes, emulator: processes.Emulator, upstream_id: str) -> Continuity:
    """Place every packet that the emulator got in `source`; fails when it is not from there, or leaves a hole."""
    audio = emulator.audio(upstream_id)
    packets: list[dict[str, Any]] = emulator.session(upstream_id)["packets"]
    upto = at = repeated = repeated_packets = jump = 0
    for packet in packets:
        pcm = audio[at : at + packet["size_bytes"]]
        at += len(pcm)
        begin = upto if source.startswith(pcm, upto) else source.find(pcm)
        assert begin >= 0, f"packet {packets.index(packet)} is not of the source"
        assert begin <= upto, f"bytes {upto} to {begin} never came"
        jump = max(jump, upto - begin)
        again = min(upto, begin + len(pcm)) - begin
        repeated += again
        repeated_packets += again > 0
        upto = max(upto, begin + len(pcm))
    return Continuity(len(source) - upto, repeated, repeated_packets, jump)
