"""Words of an utterance: the outcome says what was heard, whatever the shape in which their times came."""

import asyncio
import itertools
from datetime import timedelta

import grpc
import pytest
from clients.python.scripted import AudioPeer, opened, played, scripted, status

from liveavatar.gateway import OutcomeKind, Word
from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as pb
from testkit import speech

AVATAR = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
INTERRUPTED = audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED
TEXTS = [f"word-{number}" for number in range(40)]
WORDS = [Word(text, number * 0.2, number * 0.2 + 0.2) for number, text in enumerate(TEXTS)]
ALL = " ".join(TEXTS)


def sound(seconds: float) -> bytes:
    return bytes(range(1, 241)) * round(seconds * speech.BYTE_RATE / 240)


def heard_after(played: timedelta) -> str:
    return " ".join(word.text for word in WORDS if timedelta(seconds=word.start + 0.1) <= played)


# --- a real gateway


async def test_an_interrupted_utterance_says_what_was_heard_of_it(client):
    async with client.open_session(AVATAR) as session:
        utterance = session.say(sound(8), words=WORDS)
        await utterance.started()
        await asyncio.sleep(1.0)
        interruption = await session.interrupt()
        ended = await utterance
    assert ended.kind is OutcomeKind.INTERRUPTED
    assert ended.heard_text == interruption.heard_text == heard_after(ended.played) != ""


def test_the_blocking_client_takes_words_too(blocking):
    with blocking.open_session(AVATAR) as session:
        utterance = session.say(sound(0.6), words=iter(WORDS[:3]))
        assert not utterance.paused
        assert utterance.result(30).heard_text == "word-0 word-1 word-2"


async def test_characters_of_elevenlabs_come_with_their_audio(client):
    async def voice():
        """Stands for messages of its WebSocket, whose times count from the audio of each message."""
        for text in ("Hello, ", "dear ", "world."):
            count = len(text)
            alignment = {
                "chars": list(text),
                "charStartTimesMs": [number * 300 // count for number in range(count)],
                "charDurationsMs": [300 // count] * count,
            }
            yield sound(0.3), alignment
            await asyncio.sleep(0.05)

    async with client.open_session(AVATAR) as session:
        assert (await session.say(voice())).heard_text == "Hello, dear world."


async def test_word_timestamps_of_cartesia_come_between_pieces_of_audio(client):
    async def voice():
        for word in WORDS[:4]:
            yield {"words": [word.text], "start": [word.start], "end": [word.end]}
            yield sound(0.2)

    async with client.open_session(AVATAR) as session:
        assert (await session.say(voice())).heard_text == "word-0 word-1 word-2 word-3"


async def test_words_come_from_a_stream_of_their_own(client):
    async def words():
        for word in WORDS[:5]:
            await asyncio.sleep(0.02)
            yield word

    async with client.open_session(AVATAR) as session:
        assert (await session.say(sound(1), words=words())).heard_text == "word-0 word-1 word-2 word-3 word-4"


async def test_a_pause_says_what_was_heard_and_shows_at_its_utterance(client):
    async with client.open_session(AVATAR) as session:
        utterance = session.say(sound(4), words=WORDS[:20])
        await utterance.started()
        await asyncio.sleep(0.6)
        assert not utterance.paused
        pause = await session.pause()
        async with asyncio.timeout(10):
            while not utterance.paused:
                await asyncio.sleep(0.01)
        assert pause.heard_text == heard_after(pause.played)
        await session.continue_speech()
        async with asyncio.timeout(10):
            while utterance.paused:
                await asyncio.sleep(0.01)
        await session.pause()
        assert (await utterance.interrupt()).heard_text.startswith(pause.heard_text)
        assert not utterance.paused


# --- a scripted gateway


async def test_a_later_stream_gets_all_timings_again():
    received = []

    async def breaks(peer: AudioPeer) -> None:
        await peer.ready()
        received.append((await peer.expect("begin")).text)
        await peer.break_off()

    async def takes(peer: AudioPeer) -> None:
        await peer.ready()
        begun = await peer.expect("begin")
        received.append(begun.text)
        await peer.ack(begun.utterance_id, 0, 96_000)
        while (message := await peer.read()).WhichOneof("message") != "end":
            assert message.WhichOneof("message") == "chunk"
        await peer.ended(begun.utterance_id, INTERRUPTED, played=played(0.45))

    async with scripted(audios=[breaks, takes]) as gateway, opened(gateway) as session:
        outcome = await session.say(sound(1), words=WORDS[:5])
    assert [list(text.texts) for text in received] == [
        ["word-0", *(f" word-{number}" for number in range(1, 5))]
    ] * 2
    # This gateway does not say what was heard, as one that has no timings.
    assert outcome.heard_text == "word-0 word-1"


async def test_refused_timings_do_not_end_the_utterance(caplog):
    async def refuses(peer: AudioPeer) -> None:
        await peer.ready()
        begun = await peer.expect("begin")
        error = status("TIMINGS_INVALID", grpc.StatusCode.INVALID_ARGUMENT)
        await peer.write(rejected=pb.AudioRejected(utterance_id=begun.utterance_id, error=error))
        kinds = [message async for message in _kinds_until_end(peer)]
        assert set(kinds) == {"chunk"}
        await peer.ended(begun.utterance_id, played=played(1.0))

    async def voice():
        for word in itertools.islice(WORDS, 5):
            yield word
            yield sound(0.2)
            await asyncio.sleep(0.1)

    async with scripted(audios=[refuses]) as gateway, opened(gateway) as session:
        outcome = await session.say(voice(), words=WORDS[:1])
    assert outcome.kind is OutcomeKind.PLAYED
    assert "audio.timings_refused" in caplog.text


async def _kinds_until_end(peer: AudioPeer):
    first = True
    while (kind := (await peer.read()).WhichOneof("message")) != "end":
        # Timings may be on their way when the refusal arrives.
        if not (first and kind == "timings"):
            yield kind
        first = False


async def test_words_that_fail_silence_their_utterance():
    async def words():
        yield Word("a", 0)
        raise LookupError("no more words")

    async def silenced(peer: AudioPeer) -> None:
        await peer.ready()
        begun = await peer.expect("begin")
        while (await peer.read()).WhichOneof("message") != "cancel":
            pass
        await peer.ended(begun.utterance_id, INTERRUPTED)

    async with scripted(audios=[silenced]) as gateway, opened(gateway) as session:
        with pytest.raises(LookupError, match="no more words"):
            await session.say(sound(30), words=words())


async def test_an_alignment_without_its_audio_is_refused():
    alignment = {"chars": ["a"], "charStartTimesMs": [0], "charDurationsMs": [10]}

    async def silenced(peer: AudioPeer) -> None:
        await peer.ready()
        begun = await peer.expect("begin")
        await peer.expect("cancel")
        await peer.ended(begun.utterance_id, INTERRUPTED)

    async with scripted(audios=[silenced]) as gateway, opened(gateway) as session:
        with pytest.raises(ValueError, match="yield both together"):
            await session.say(iter([alignment]))
        with pytest.raises(TypeError):
            session.say(sound(1), words=3)
