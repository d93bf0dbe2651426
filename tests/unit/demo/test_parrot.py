"""The parrot answers what it hears, and falls silent when the user speaks."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

import grpc
import numpy as np
import pytest

from liveavatar.gateway import AudioFormat, Interruption, SessionEnded, UserAudio
from liveavatar_demo.conversation import Conversation, Kind
from liveavatar_demo.parrot import Parrot
from liveavatar_demo.speech_gate import GateConfig

CONFIG = GateConfig(silence_s=0.4)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
CHUNK_BYTES = 960
LOUD = (np.sin(np.arange(CHUNK_BYTES // 2) / 20) * 8000).astype("<i2").tobytes()
QUIET = bytes(CHUNK_BYTES)


@dataclass
class Utterance:
    id: str
    audio: bytes
    outcome: object = None


@dataclass
class Session:
    """Session that hears what it was given, and notes what it is asked to do."""

    heard: list[bytes]
    stays: bool = False
    said: list[Utterance] = field(default_factory=list)
    interrupts: int = 0
    attempts: int = 0
    over: bool = False
    listening: dict = field(default_factory=dict)

    def listen(self, **options) -> "Session":
        self.listening = options
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def __aiter__(self) -> AsyncIterator[UserAudio]:
        for number, pcm in enumerate(self.heard):
            at = BEGAN + timedelta(seconds=0.02 * number)
            yield UserAudio(participant="you", captured_at=at, sequence=number + 1, audio=pcm)
        if self.stays:
            await asyncio.sleep(3600)

    def say(self, audio: bytes, *, format: AudioFormat) -> Utterance:  # noqa: A002
        self.attempts += 1
        if self.over:
            raise SessionEnded("over", code=grpc.StatusCode.FAILED_PRECONDITION)
        assert format == AudioFormat(sample_rate_hz=24_000)
        self.said.append(Utterance(f"u{len(self.said) + 1}", audio))
        return self.said[-1]

    async def interrupt(self) -> Interruption:
        self.interrupts += 1
        for utterance in self.said:
            utterance.outcome = "interrupted"
        return Interruption(interrupted=())


def speech(seconds: float) -> list[bytes]:
    return [LOUD] * round(seconds * 50)


def pause(seconds: float) -> list[bytes]:
    return [QUIET] * round(seconds * 50)


def kinds(conversation: Conversation) -> list[Kind]:
    return [entry.kind for entry in conversation._entries]


async def run(session: Session) -> tuple[Parrot, Conversation]:
    conversation = Conversation()
    parrot = Parrot(session, conversation, user="you", config=CONFIG)
    await parrot.run()
    return parrot, conversation


async def test_what_was_said_is_said_again_after_the_silence():
    session = Session([*pause(0.5), *speech(1), *pause(1)])
    parrot, conversation = await run(session)
    assert session.listening["participants"] == ["you"]
    (answer,) = session.said
    assert LOUD * 50 in answer.audio
    assert parrot.has_spoken
    assert parrot.is_speaking
    assert kinds(conversation) == [Kind.USER_BEGAN, Kind.USER_ENDED]
    began, ended = conversation._entries
    assert began.at_s == pytest.approx(BEGAN.timestamp() + 0.5)
    assert ended.at_s == pytest.approx(BEGAN.timestamp() + 1.5)
    assert ended.values == {"duration_ms": 1000}
    assert conversation._expected == {answer.id: pytest.approx(BEGAN.timestamp() + 1.5)}


async def test_a_user_who_speaks_interrupts_the_answer():
    session = Session([*speech(1), *pause(1), *speech(1), *pause(1)])
    _, conversation = await run(session)
    assert session.interrupts == 1
    assert kinds(conversation)[2:] == [Kind.USER_BEGAN, Kind.INTERRUPTED, Kind.USER_ENDED]
    assert [utterance.outcome for utterance in session.said] == ["interrupted", None]


async def test_a_silent_avatar_is_not_interrupted():
    session = Session([*speech(1), *pause(1)])
    await run(session)
    assert session.interrupts == 0


async def test_a_cough_is_not_repeated():
    session = Session([*speech(0.16), *pause(1)])
    parrot, conversation = await run(session)
    assert session.said == []
    assert not parrot.has_spoken
    assert kinds(conversation) == [Kind.USER_BEGAN, Kind.USER_ENDED]


async def test_a_user_who_mutes_in_the_middle_is_answered():
    session = Session(speech(1), stays=True)
    parrot = Parrot(session, Conversation(), user="you", config=CONFIG)
    running = asyncio.create_task(parrot.run())
    async with asyncio.timeout(30):
        while not session.said:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    assert session.said[0].audio.count(LOUD) == 50


async def test_an_end_of_the_session_in_the_middle_is_the_listeners_to_report():
    session = Session(speech(1), stays=True, over=True)
    parrot = Parrot(session, Conversation(), user="you", config=CONFIG)
    running = asyncio.create_task(parrot.run())
    async with asyncio.timeout(30):
        while not session.attempts:
            await asyncio.sleep(0.01)
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])
