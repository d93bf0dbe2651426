"""What is measured, and for how long."""

from dataclasses import dataclass, field
from typing import Final

from stage.cores import Cores
from stage.errors import StageError

AVATAR_ID: Final = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
"""Any id will do: the emulator takes all but one."""

BYTE_RATE: Final = 48_000
"""Bytes per second of 24 kHz mono s16le, which all speakers send."""

LATE_S: Final = 0.015
"""A generator later than this at its 99th percentile no longer talks in real time."""

BUSY: Final = 0.9
"""A generator's core busier than this has nothing left for punctuality."""


class BenchError(StageError):
    """The measurement cannot be made, or what was measured is not what was meant; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """One run of the benchmark."""

    sessions: int = 60
    """Sessions that talk at once. Higher shows the knee, and needs a stronger core for the generator."""
    chunks_ms: tuple[int, ...] = (20, 100)
    """Chunk sizes of the callers, one measurement each. Smaller costs more: a chunk is a message."""
    seconds: float = 12.0
    """Length of the window that is measured. Longer averages the machine's noise out."""
    warmup_s: float = 3.0
    """From the first chunk of the last session to the window."""
    utterance_ms: int = 10_000
    """Length of one utterance, as long as a spoken turn; the next follows at once. Shorter gives more first
    packets, which are where latency is seen undisturbed, and costs more: each has a begin, a start, an end."""
    stagger_s: float = 1.0
    """Sessions start to talk evenly over this time, so that they are not in step."""
    connections: int = 0
    """HTTP/2 connections that the sessions share; 0 gives each its own, as callers on many machines have."""
    direct: bool = True
    """Measure the sender without a gateway too."""
    packet_ms: int = 0
    """Packets of that sender after the first; 0 takes what the gateway was seen to send, up to its first."""
    first_packet_ms: int = 400
    """First packet of each of its utterances."""
    budgets: dict[int, float] = field(default_factory=dict)
    """Most CPU of the gateway in ms per second of audio, by chunk size in ms."""
    budget_first_ms: float | None = None
    """Most latency of first packets through the gateway, ms at p99."""
    cores: Cores

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        for chunk_ms in self.chunks_ms:
            if self.utterance_ms % chunk_ms:
                raise BenchError(
                    f"an utterance of {self.utterance_ms} ms is no whole number of {chunk_ms}-ms chunks"
                )
        for chunk_ms in self.budgets:
            if chunk_ms not in self.chunks_ms:
                raise BenchError(f"there is a budget for {chunk_ms}-ms chunks, which are not measured")
        if self.utterance_ms <= self.first_packet_ms:
            raise BenchError(f"an utterance must be longer than its first packet, {self.first_packet_ms} ms")
