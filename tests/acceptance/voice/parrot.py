"""Parrot: a caller that hears the users of a session and repeats each sentence, through gRPC alone."""

import asyncio
import bisect
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from liveavatar.gateway import AsyncSession, AsyncUtterance
from testkit.watcher import RATE_HZ

END_S: Final = 0.8
"""Silence that ends what a user says."""
ANSWERED_S: Final = 30.0
"""Longest wait for an answer."""
_LEVEL: Final = 250.0
"""Loudness of 20 ms above which a user speaks."""
_PREROLL_S: Final = 0.2
_SETTLED_CHUNKS: Final = 50


@dataclass(slots=True)
class Answer:
    """Sentence that a parrot heard, and said."""

    pcm: bytes
    said_s: float
    """Time at which it was given to the client."""
    utterance: AsyncUtterance


@dataclass(slots=True)
class Parrot:
    """Caller that hears the users of a session through `ListenAudio`, and repeats them through `StreamAudio`."""

    session: AsyncSession
    answers: list[Answer] = field(default_factory=list)
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """Time at which each chunk came, and the number of samples from the first chunk to its end."""
    dropped_s: float = 0.0
    _heard: bytearray = field(default_factory=bytearray)

    @property
    def heard(self) -> np.ndarray:
        """All samples that were heard."""
        return np.frombuffer(bytes(self._heard), "<i2").astype(float)

    def arrived_s(self, sample: int) -> float:
        """Return the time at which the chunk with a sample came."""
        return self.arrivals[bisect.bisect_right(self.arrivals, sample, key=lambda one: one[1])][0]

    async def run(self) -> None:
        """Repeat each sentence, until cancelled."""
        sentence, quiet_s = bytearray(), 0.0
        is_speech = False
        async for chunk in self.session.listen():
            self.dropped_s += chunk.dropped.total_seconds()
            self._heard += chunk.audio
            self.arrivals.append((time.monotonic(), len(self._heard) // 2))
            samples = np.frombuffer(chunk.audio, "<i2").astype(float)
            is_loud = float(np.sqrt(np.mean(samples**2))) > _LEVEL
            is_speech = is_speech or is_loud
            quiet_s = 0.0 if is_loud else quiet_s + len(samples) / RATE_HZ
            sentence += chunk.audio
            if not is_speech:
                del sentence[: -round(_PREROLL_S * RATE_HZ) * 2]
            elif quiet_s > END_S:
                self._answer(bytes(sentence))
                sentence, is_speech = bytearray(), False

    def _answer(self, pcm: bytes) -> None:
        said_s = time.monotonic()
        self.answers.append(Answer(pcm, said_s, self.session.say(pcm)))

    async def heard_room(self) -> None:
        """Wait until audio of a user comes."""
        async with asyncio.timeout(ANSWERED_S):
            while len(self.arrivals) < _SETTLED_CHUNKS:
                await asyncio.sleep(0.02)

    async def answered(self, count: int) -> None:
        """Wait until so many sentences were answered, and the last answer was played."""
        async with asyncio.timeout(ANSWERED_S):
            while len(self.answers) < count or self.answers[-1].utterance.outcome is None:
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def parrot_of(session: AsyncSession) -> AsyncIterator[Parrot]:
    """Let a parrot answer the users of a session for a block; its failure ends the block."""
    parrot = Parrot(session)
    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(parrot.run(), name="parrot")
        yield parrot
        listening.cancel()
