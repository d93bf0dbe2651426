"""Turns of a user in a real room: cut by Silero VAD, while the emulated avatar gives way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
import pytest

from liveavatar.gateway import (
    AsyncClient,
    AsyncSession,
    AsyncUserTurns,
    InterruptRules,
    OutcomeKind,
    SpeechContinuedEvent,
    SpeechPausedEvent,
    TurnEnd,
    TurnRules,
    TurnVerdict,
)
from testkit import processes, spoken
from testkit.caller import AVATAR
from testkit.talker import RATE_HZ, Talker, talking

pytestmark = pytest.mark.timeout(180)

QUESTION = "Excuse me, could you please tell me what time it is in London?"


def question() -> np.ndarray:
    return spoken.sentence(QUESTION, rate_hz=RATE_HZ)


def tone(seconds: float) -> bytes:
    """A steady sound of the avatar, so that silence is the user's doing."""
    times = np.arange(round(seconds * 24_000)) / 24_000
    return (np.sin(2 * np.pi * 440 * times) * 8_000).astype("<i2").tobytes()


@pytest.fixture(scope="module")
def gateway(rooms):
    with processes.gateway(rooms.url, detach_grace_s=60) as found:
        yield found


@contextlib.asynccontextmanager
async def staged(gateway, **options) -> AsyncIterator[tuple[AsyncSession, Talker, AsyncUserTurns]]:
    """Open a session with a user in its room, whose words have begun to arrive."""
    async with AsyncClient(gateway.address) as client, client.open_session(AVATAR, quality="low") as session:
        await session.ready()
        async with (
            talking(session.room.url, session.room.viewer_token) as user,
            session.user_turns(**options) as turns,
        ):
            async with asyncio.timeout(90):
                while not await arrived(turns):
                    await user.say(spoken.sentence("hello there, can you hear me", rate_hz=RATE_HZ))
                while await arrived(turns, 4.0):
                    pass
            yield session, user, turns


async def arrived(turns: AsyncUserTurns, seconds: float = 5.0) -> bool:
    """Return whether a turn comes, and ends."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            turn = await turns.next()
        await turn.complete()
        return True
    return False


def seen(session: AsyncSession, kind: type, found: list) -> asyncio.Task[None]:
    async def collect() -> None:
        async for event in session.events():
            found.extend([event] if isinstance(event, kind) else [])

    return asyncio.create_task(collect())


async def test_a_sentence_is_a_turn_with_its_first_syllable(gateway):
    async with staged(gateway) as (_session, user, turns), asyncio.timeout(60):
        await user.say(question())
        turn = await turns.next()
        assert turn.participant == "viewer"
        chunks = b"".join([chunk async for chunk in turn])
        assert (turn.end, turn.audio, turn.interrupted) == (TurnEnd.SILENCE, chunks, None)
        heard = np.abs(np.frombuffer(chunks, np.int16).astype(int))
        # Quiet before the first syllable, the voice, and the silence that ended the turn.
        assert heard[:1_600].max() < heard.max() / 4
        assert heard[-4_800:].max() < heard.max() / 4
        assert heard.max() > 5_000


async def test_a_sentence_silences_the_avatar_and_interrupts_it(gateway, record_property):
    async with staged(gateway) as (session, user, turns):
        pauses: list[SpeechPausedEvent] = []
        collecting = seen(session, SpeechPausedEvent, pauses)
        utterance = session.say(tone(60.0))
        await user.until_loud()
        await asyncio.sleep(1.0)
        began_s = await user.say(question())
        async with asyncio.timeout(60):
            turn = await turns.next()
        last_s = await user.until_silent()
        record_property("figure", f"silence in the room {last_s - began_s:.2f} s after the user's first syllable")
        async with asyncio.timeout(30):
            await turn.complete()
            assert (await utterance).kind is OutcomeKind.INTERRUPTED
        assert not user.loud_after(last_s)
        assert pauses[0].utterance_id == utterance.id
        (cut,) = turn.interrupted.interrupted
        assert cut.utterance_id == utterance.id
        # The interrupt cut nothing that the user had not missed since the pause.
        assert cut.played == turn.interrupted.played == pauses[-1].played
        collecting.cancel()


async def test_a_short_burst_pauses_the_avatar_and_it_continues(gateway, record_property):
    async with staged(gateway) as (session, user, turns):
        continued: list[SpeechContinuedEvent] = []
        collecting = seen(session, SpeechContinuedEvent, continued)
        utterance = session.say(tone(60.0))
        await user.until_loud()
        # A busy machine may lose a sound as short as this on its way.
        async with asyncio.timeout(50):
            while not continued:
                began_s = await user.say(spoken.sentence("ah", rate_hz=RATE_HZ))
                await user.say(spoken.silence(2.0, RATE_HZ))
                await asyncio.sleep(2.5)
        silent_s = [at for at, piece in user.heard if at > began_s and not piece.any()]
        record_property("figure", f"silence in the room {silent_s[0] - began_s:.2f} s after a short burst")
        assert {event.utterance_id for event in continued} == {utterance.id}
        assert utterance.outcome is None
        await user.until_loud()
        turns.close()
        assert await turns.next() is None
        collecting.cancel()


async def test_a_cough_and_a_noise_do_not_end_the_avatars_speech(gateway):
    async with staged(gateway) as (session, user, turns):
        utterance = session.say(tone(8.0))
        await user.until_loud()
        for seed in (1, 2):
            await user.say(spoken.cough(seed, rate_hz=RATE_HZ))
            await user.say(spoken.silence(1.0, RATE_HZ))
        await user.say(spoken.noise("keyboard", 1.0, rate_hz=RATE_HZ))
        async with asyncio.timeout(60):
            assert (await utterance).kind is OutcomeKind.PLAYED
        turns.close()
        assert await turns.next() is None


async def test_words_decide_where_the_program_counts_them(gateway):
    rules = InterruptRules(min_words=2, word_timeout=0.3)
    async with staged(gateway, interrupts=rules) as (session, user, turns):
        utterance = session.say(tone(30.0))
        await user.until_loud()
        async with asyncio.timeout(60):
            await user.say(spoken.sentence("absolutely", rate_hz=RATE_HZ))
            turn = await turns.next()
            assert turn.verdict is TurnVerdict.OPEN
            turn.report_words(1)
            await turn.complete()
            while turn.verdict is TurnVerdict.OPEN:
                await asyncio.sleep(0.01)
            assert turn.verdict is TurnVerdict.REFUSED
            await user.until_loud()
            await user.say(question())
            turn = await turns.next()
            turn.report_words(2)
            while turn.interrupted is None:
                await asyncio.sleep(0.01)
        assert (await utterance).kind is OutcomeKind.INTERRUPTED


async def test_a_user_who_leaves_in_mid_sentence_has_ended_the_turn(gateway):
    async with (
        AsyncClient(gateway.address) as client,
        client.open_session(AVATAR, quality="low") as session,
        session.user_turns(rules=TurnRules(end_silence=0.4)) as turns,
    ):
        await session.ready()
        async with asyncio.timeout(120):
            async with talking(session.room.url, session.room.viewer_token) as user:
                await user.say(np.concatenate([question()] * 20))
                turn = await turns.next()
            await turn.complete()
        assert turn.end is TurnEnd.SILENCE
