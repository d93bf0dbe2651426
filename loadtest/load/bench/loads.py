"""Loads of the benchmark, and its settings. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from load.speech import BYTE_RATE
from stage.cores import Cores
from stage.errors import StageError

_GAP_MS: Final = 600
"""Silence at the end of each turn, in which the avatar finishes speaking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkLoad:
    """Sessions that talk in real time: turn after turn, each an utterance and a short silence."""

    sessions: int
    chunk_ms: int
    turn_ms: int

    def __post_init__(self) -> None:
        """Refuse chunks that do not fill a turn and its silence."""
        if self.turn_ms % self.chunk_ms or _GAP_MS % self.chunk_ms:
            raise StageError(f"chunks of {self.chunk_ms} ms do not fill turns of {self.turn_ms} ms evenly")

    @property
    def name(self) -> str:
        """Name for options and tables."""
        return f"{self.turn_ms / 1000:g}s-{self.chunk_ms}ms"

    @property
    def title(self) -> str:
        """Description for tables."""
        return f"turns of {self.turn_ms / 1000:g} s, {self.sessions} sessions of {self.chunk_ms}-ms chunks"

    @property
    def chunk_bytes(self) -> int:
        """Size of a chunk."""
        return BYTE_RATE * self.chunk_ms // 1000

    @property
    def turn_chunks(self) -> int:
        """Length of a turn with its silence, in chunks."""
        return self.turn_ms // self.chunk_ms

    @property
    def spoken_chunks(self) -> int:
        """Length of an utterance, in chunks."""
        return (self.turn_ms - _GAP_MS) // self.chunk_ms

    def first_position(self, number: int) -> int:
        """Return the chunk of its turn at which session `number` starts, so that turns begin evenly over time."""
        return number * self.turn_chunks // self.sessions


LOADS: Final[Mapping[str, TalkLoad]] = {
    load.name: load
    for load in (
        TalkLoad(turn_ms=15_000, chunk_ms=20, sessions=300),
        TalkLoad(turn_ms=15_000, chunk_ms=100, sessions=700),
        TalkLoad(turn_ms=3_000, chunk_ms=20, sessions=150),
        TalkLoad(turn_ms=3_000, chunk_ms=100, sessions=300),
    )
}
"""Loads by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """Settings of a run of the benchmark."""

    loads: tuple[TalkLoad, ...]
    cores: Cores
    seconds: float = 15.0
    """Length of one measured window. A multiple of the turns' length measures whole turns."""
    warmup_s: float = 2.0
    """Talk before each window."""
    rounds: int = 3
    """Windows of each server per load, in alternation. More give a surer ratio and spread."""
    trees: tuple[Path, ...] = ()
    """Other checkouts whose gateways are measured in the same run."""
    budget_ratio: float | None = None
    """Highest ratio of this checkout's gateway to the floor."""
    budget_first_ms: float | None = None
    """Highest latency of first packets through this checkout's gateway, ms at p99."""
