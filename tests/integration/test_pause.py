"""A pause silences the avatar and loses nothing: speech goes on from what was heard."""

import asyncio
import contextlib
import random
import struct

import pytest

from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from testkit import processes, speech
from testkit.caller import Caller, refused
from testkit.caller import caller as connect

BYTE_RATE = speech.BYTE_RATE


def _words(seconds: float, seed: int = 1) -> bytes:
    """Return noise with a silence of 160 ms in each 800 ms; no two seconds are alike."""
    source = random.Random(seed)
    count = round(seconds * BYTE_RATE / 2)
    samples = [source.randint(-6_000, 6_000) if index % 19_200 < 15_360 else 0 for index in range(count)]
    return struct.pack(f"<{count}h", *samples)


async def _pause(caller: Caller, session_id: str, **fields: object) -> sessions.PauseResult:
    request = sessions.PauseSessionRequest(session_id=session_id, pause=sessions.Pause(**fields))
    return (await caller.sessions.PauseSession(request, timeout=10)).result


async def _continue(caller: Caller, session_id: str) -> sessions.ContinueResult:
    request = sessions.ContinueSessionRequest(session_id=session_id)
    return (await caller.sessions.ContinueSession(request, timeout=10)).result


def _assert_whole(first: bytes, rest: bytes, pcm: bytes, repeated_s: float) -> None:
    """Check that the second part begins within or at the end of the first, and that the sum is the utterance."""
    assert pcm.endswith(rest)
    assert pcm.startswith(first)
    overlap = len(first) - (len(pcm) - len(rest))
    assert overlap >= 0, f"{-overlap} bytes were lost"
    # The emulator's own position differs from the gateway's estimate by the way of the interrupt.
    assert overlap / BYTE_RATE <= repeated_s + 0.5


def _parts(emulator: processes.Emulator, upstream_id: str) -> list[bytes]:
    """Return the audio that was played of each utterance of LiveAvatar."""
    utterances = emulator.session(upstream_id)["utterances"]
    return [
        emulator.utterance_audio(upstream_id, index)[: one["played_bytes"]] for index, one in enumerate(utterances)
    ]


@pytest.mark.parametrize("profile", ["classic", "modern", "acks_only"])
async def test_speech_goes_on_from_what_was_heard(profile):
    pcm = _words(6.0)
    with processes.emulator(profile=profile) as emulator, processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            await stream.say(pcm, "long")
            for index in (1, 2):
                await stream.say(_words(1.0, seed=index + 1), f"behind-{index}")
            await stream.until("started")
            await asyncio.sleep(1.6)
            paused = await attachment.command("pause", pause=sessions.Pause(utterance_id="long"))
            assert (paused.pause.utterance_id, paused.pause.paused) == ("long", True)
            assert (await caller.get(attachment.session_id)).paused
            event = await attachment.event("speech_paused")
            assert event.played == paused.pause.played
            before = len(_parts(emulator, attachment.upstream_id))
            await asyncio.sleep(2.0)
            assert len(_parts(emulator, attachment.upstream_id)) == before
            result = (await attachment.command("go", continue_speech=sessions.ContinueSpeech())).continue_speech
            assert (result.utterance_id, result.was_paused) == ("long", True)
            ended = [await stream.until("ended") for _ in range(3)]
            session = await caller.end(attachment.session_id)
        assert [one.outcome for one in ended] == [audio_pb2.UTTERANCE_OUTCOME_COMPLETED] * 3
        repeated_s = result.repeated.ToTimedelta().total_seconds()
        assert ended[0].repeated.ToTimedelta().total_seconds() == pytest.approx(repeated_s, abs=0.3)
        assert ended[0].played.ToTimedelta().total_seconds() == pytest.approx(6.0, abs=0.05)
        assert session.usage.repeated_duration == ended[0].repeated
        parts = _parts(emulator, attachment.upstream_id)
        _assert_whole(parts[0], parts[1], pcm, repeated_s)
        assert parts[-2:] == [_words(1.0, seed=2), _words(1.0, seed=3)]


async def test_a_pause_keeps_its_audio_while_the_socket_is_lost(caller, emulator):
    pcm = _words(6.0)
    attachment = await caller.attach()
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.say(pcm, "long")
    await stream.until("started")
    await asyncio.sleep(1.2)
    await _pause(caller, attachment.session_id)
    emulator.drop(attachment.upstream_id, 1011)
    await attachment.event("reconnected")
    count = len(_parts(emulator, attachment.upstream_id))
    await asyncio.sleep(1.0)
    assert len(_parts(emulator, attachment.upstream_id)) == count
    result = await _continue(caller, attachment.session_id)
    ended = await stream.until("ended")
    await caller.end(attachment.session_id)
    assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    first, rest = _parts(emulator, attachment.upstream_id)
    _assert_whole(first, rest, pcm, result.repeated.ToTimedelta().total_seconds())


async def test_a_pause_survives_kill_minus_9(tmp_path):
    pcm = _words(6.0)
    with processes.emulator() as emulator, contextlib.ExitStack() as stack:
        settings = {"registry_file": tmp_path / "registry", "detach_grace_s": 20}
        gateway = stack.enter_context(processes.gateway(emulator.url, **settings))
        port = int(gateway.address.rpartition(":")[2])
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            await stream.say(pcm, "long")
            await stream.until("started")
            await asyncio.sleep(1.6)
            paused = await _pause(caller, attachment.session_id, at_timeout=sessions.PAUSE_TIMEOUT_ACTION_CONTINUE)
            assert paused.utterance_id == "long"
            ack = await stream.until("ack")
        gateway.process.kill()
        gateway = stack.enter_context(processes.gateway(emulator.url, port=port, **settings))
        async with connect(gateway.address) as caller:
            resumed = await caller.resume(attachment.opened.handle, skip_compacted=True)
            assert resumed.opened.session.paused
            stream = await caller.speak(attachment.session_id)
            again = await stream.resume("long")
            assert ack.confirmed_bytes <= again.received_bytes < len(pcm)
            await stream.say_on(pcm, again.received_bytes)
            await asyncio.sleep(1.0)
            assert len(_parts(emulator, attachment.upstream_id)) == 1, "it spoke during the pause"
            result = await _continue(caller, attachment.session_id)
            assert (result.utterance_id, result.was_paused) == ("long", True)
            ended = await stream.until("ended")
            await caller.end(attachment.session_id)
        assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
        assert ended.played.ToTimedelta().total_seconds() == pytest.approx(6.0, abs=0.05)
        first, rest = _parts(emulator, attachment.upstream_id)
        _assert_whole(first, rest, pcm, result.repeated.ToTimedelta().total_seconds())


async def test_an_interrupt_ends_a_pause(caller, emulator):
    attachment = await caller.attach()
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.say(_words(6.0), "long")
    await stream.until("started")
    await asyncio.sleep(0.8)
    paused = await _pause(caller, attachment.session_id)
    result = await attachment.command("barge", interrupt=sessions.Interrupt())
    (ended,) = result.interrupt.interrupted
    assert (ended.utterance_id, ended.played) == ("long", paused.played)
    event = await attachment.event("speech_continued")
    assert event.cause == sessions.CONTINUE_CAUSE_INTERRUPT
    assert not (await caller.get(attachment.session_id)).paused
    await caller.end(attachment.session_id)


async def test_a_pause_is_over_at_its_timeout(caller):
    attachment = await caller.attach()
    await attachment.until_ready()
    pause = sessions.Pause()
    pause.timeout.FromMilliseconds(300)
    result = await attachment.command("pause", pause=pause)
    assert (result.pause.paused, result.pause.utterance_id) == (True, "")
    event = await attachment.event("speech_continued")
    assert event.cause == sessions.CONTINUE_CAUSE_TIMEOUT
    assert not (await _continue(caller, attachment.session_id)).was_paused
    await caller.end(attachment.session_id)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"timeout": {"nanos": 1_000_000}}, "pause.timeout"),
        ({"timeout": {"seconds": 601}}, "pause.timeout"),
        ({"at_timeout": 9}, "pause.at_timeout"),
        ({"utterance_id": "x" * 129}, "pause.utterance_id"),
    ],
)
async def test_a_pause_out_of_its_bounds_is_refused(caller, fields, field):
    attachment = await caller.attach()
    why = await refused(_pause(caller, attachment.session_id, **fields))
    assert (why.reason, why.field) == ("INVALID_FIELD", field)
    await caller.end(attachment.session_id)
