"""What a speaker wrote and when: the file it leaves when it is told to stop."""

import asyncio
import json
import os
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from bench.settings import BYTE_RATE


@dataclass(frozen=True, slots=True)
class Write:
    """One write of audio. Times are CLOCK_MONOTONIC, comparable between processes of one machine."""

    utterance: int
    """Counts from 0 in each session."""
    end_byte: int
    """Position in the utterance's PCM after it."""
    due_s: float
    """When it should have been written."""
    wrote_s: float
    """When it was handed to the library that sends it."""


@dataclass(frozen=True, slots=True)
class SpokenSession:
    """Everything one session was given, in order."""

    upstream_id: str
    """LiveAvatar's id, under which the emulator knows it."""
    writes: list[Write] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a speaker did, and what went wrong meanwhile."""

    sessions: list[SpokenSession]
    problems: list[str]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        rows = {
            "sessions": [
                {
                    "upstream_id": session.upstream_id,
                    "writes": [(one.utterance, one.end_byte, one.due_s, one.wrote_s) for one in session.writes],
                }
                for session in self.sessions
            ],
            "problems": self.problems,
        }
        path.write_text(json.dumps(rows))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        rows = json.loads(path.read_text())
        return cls(
            [
                SpokenSession(row["upstream_id"], [Write(*write) for write in row["writes"]])
                for row in rows["sessions"]
            ],
            rows["problems"],
        )


def noise(ms: int) -> bytes:
    """Loud PCM of a length; the same each time."""
    return random.Random(ms).randbytes(BYTE_RATE * ms // 1000)


def say_ready(path: Path, **info: object) -> None:
    """Tell whoever waits for it that all sessions talk."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"pid": os.getpid(), **info}))
    part.rename(path)


def stop_signal() -> asyncio.Event:
    """Give an event that SIGTERM sets."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return stop
