"""An interrupt silences the avatar, reports how much was heard, and spares what comes after it."""

import asyncio

import pytest

from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from testkit import speech
from testkit.caller import Caller
from testkit.processes import Emulator

PACKET_TICK_S = 0.4
"""A packet of a real-time source."""


async def _by_stream(attachment, utterance_id: str) -> sessions.InterruptResult:
    result = await attachment.command("barge", interrupt=sessions.Interrupt(utterance_id=utterance_id))
    assert result.status.code == 0
    return result.interrupt


async def _by_call(caller: Caller, session_id: str, utterance_id: str) -> sessions.InterruptResult:
    request = sessions.InterruptSessionRequest(session_id=session_id, utterance_id=utterance_id)
    return (await caller.sessions.InterruptSession(request, timeout=10)).result


@pytest.mark.parametrize("how", ["stream", "call"])
@pytest.mark.parametrize("named", [True, False])
async def test_nothing_of_a_cut_utterance_follows_its_interrupt(caller, emulator, how, named, record_property):
    attachment = await caller.attach()
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.say(speech.sound(8.0), "long")
    await stream.until("started")
    await asyncio.sleep(1.3)
    name = "long" if named else ""
    if how == "stream":
        result = await _by_stream(attachment, name)
    else:
        result = await _by_call(caller, attachment.session_id, name)
    next_one = speech.sound(1.5, seed=9)
    await stream.say(next_one, "next")
    cut = await stream.until("ended")
    spoken = await stream.until("ended")
    await caller.end(attachment.session_id)

    assert [one.utterance_id for one in result.interrupted] == ["long"]
    assert (cut.utterance_id, cut.outcome) == ("long", audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED)
    assert cut.played == result.interrupted[0].played
    assert (spoken.utterance_id, spoken.outcome) == ("next", audio_pb2.UTTERANCE_OUTCOME_COMPLETED)

    recording = emulator.session(attachment.upstream_id)
    assert recording["audio_after_interrupt"]["packets"] == 0
    first, second = recording["utterances"]
    assert first["outcome"] == "interrupted"
    assert emulator.utterance_audio(attachment.upstream_id, 1) == next_one
    assert second["played_bytes"] == len(next_one)
    ours_s = cut.played.ToTimedelta().total_seconds()
    theirs_s = first["played_bytes"] / speech.BYTE_RATE
    record_property("played_difference_ms", round(abs(ours_s - theirs_s) * 1000, 1))
    assert ours_s == pytest.approx(theirs_s, abs=PACKET_TICK_S)


async def test_chunks_on_their_way_are_dropped_and_counted(caller: Caller, emulator: Emulator):
    created = await caller.create()
    stream = await caller.speak(created.session.id)
    await stream.begin("long")
    await stream.chunk(speech.sound(3.0)[:96_000])
    await stream.until("started")
    await _by_call(caller, created.session.id, "long")
    await stream.chunk(speech.sound(0.5, seed=4))
    await stream.end()
    await stream.say(speech.sound(0.5, seed=5), "next")
    await stream.until("ended")
    await stream.until("ended")
    session = await caller.end(created.session.id)
    recording = emulator.session(created.session.upstream_session_id)
    assert recording["audio_after_interrupt"]["packets"] == 0
    assert emulator.utterance_audio(created.session.upstream_session_id, 1) == speech.sound(0.5, seed=5)
    waited = 96_000 - recording["utterances"][0]["received_bytes"]
    assert session.usage.dropped_bytes == waited + 24_000


async def test_a_blocked_writer_does_not_speak_into_the_next_utterance(caller: Caller, emulator: Emulator):
    """Audio, `end` and `cancel` that name the cut utterance change nothing of the one that is open by then."""
    created = await caller.create()
    stream = await caller.speak(created.session.id)
    await stream.begin("answer")
    await stream.chunk(speech.sound(2.0), utterance_id="answer")
    await stream.until("started")
    await _by_call(caller, created.session.id, "answer")
    assert (await stream.until("ended")).utterance_id == "answer"
    pcm, stale = speech.sound(0.6, seed=5), speech.sound(0.3, seed=4)
    # Before the next one is begun, inside it, and behind it.
    await stream.end("answer")
    await stream.chunk(stale, utterance_id="answer")
    await stream.begin("next")
    await stream.chunk(stale, 96_000, utterance_id="answer")
    await stream.chunk(pcm[:14_400], 0, utterance_id="next")
    await stream.cancel("answer")
    await stream.end("answer")
    await stream.chunk(pcm[14_400:], 14_400, utterance_id="next")
    await stream.end("next")
    await stream.chunk(stale, utterance_id="answer")
    await stream.end("answer")
    await stream.say(pcm, "last")
    ended = [await stream.until("ended") for _ in range(2)]
    assert [(one.utterance_id, one.outcome) for one in ended] == [
        ("next", audio_pb2.UTTERANCE_OUTCOME_COMPLETED),
        ("last", audio_pb2.UTTERANCE_OUTCOME_COMPLETED),
    ]
    session = await caller.end(created.session.id)
    assert emulator.utterance_audio(created.session.upstream_session_id, 1) == pcm
    assert emulator.utterance_audio(created.session.upstream_session_id, 2) == pcm
    cut = emulator.session(created.session.upstream_session_id)["utterances"][0]
    assert session.usage.dropped_bytes == 3 * len(stale) + 96_000 - cut["received_bytes"]


async def test_a_refused_begin_keeps_its_place_until_its_own_end(caller: Caller, emulator: Emulator):
    """A late `end` of an earlier utterance does not make audio of a refused one an error of the stream."""
    created = await caller.create()
    stream = await caller.speak(created.session.id)
    await stream.say(speech.sound(0.2), "used")
    await stream.until("ended")
    await stream.begin("used")
    await stream.until("rejected")
    await stream.end("earlier")
    await stream.chunk(speech.sound(0.1))
    await stream.end("used")
    pcm = speech.sound(0.3, seed=8)
    await stream.say(pcm, "fresh")
    assert (await stream.until("ended")).utterance_id == "fresh"
    await caller.end(created.session.id)
    assert emulator.utterance_audio(created.session.upstream_session_id, 1) == pcm


async def test_an_interrupt_that_names_an_utterance_spares_the_one_behind_it(caller: Caller, emulator: Emulator):
    created = await caller.create()
    stream = await caller.speak(created.session.id)
    behind = speech.sound(1.0, seed=7)
    await stream.say(speech.sound(6.0), "first")
    await stream.say(behind, "second")
    await stream.until("started")
    result = await _by_call(caller, created.session.id, "first")
    await stream.until("ended")
    spoken = await stream.until("ended")
    await caller.end(created.session.id)
    assert [one.utterance_id for one in result.interrupted] == ["first"]
    assert (spoken.utterance_id, spoken.outcome) == ("second", audio_pb2.UTTERANCE_OUTCOME_COMPLETED)
    recording = emulator.session(created.session.upstream_session_id)
    assert recording["audio_after_interrupt"]["packets"] == 0
    assert recording["utterances"][-1]["played_bytes"] == len(behind)


async def test_a_cancel_of_queued_speech_costs_nothing_upstream(caller: Caller, emulator: Emulator):
    created = await caller.create()
    stream = await caller.speak(created.session.id)
    await stream.say(speech.sound(2.0), "first")
    await stream.begin("second")
    await stream.chunk(speech.sound(1.0))
    await stream.send(cancel={})
    cancelled = await stream.until("ended")
    spoken = await stream.until("ended")
    await caller.end(created.session.id)
    assert (cancelled.utterance_id, cancelled.played.ToTimedelta().total_seconds()) == ("second", 0)
    assert cancelled.outcome == audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED
    assert (spoken.utterance_id, spoken.outcome) == ("first", audio_pb2.UTTERANCE_OUTCOME_COMPLETED)
    assert emulator.session(created.session.upstream_session_id)["interrupts"] == []


async def test_interrupting_a_silent_avatar_is_answered_with_nothing_cut(caller: Caller):
    created = await caller.create()
    result = await _by_call(caller, created.session.id, "")
    await caller.end(created.session.id)
    assert list(result.interrupted) == []
