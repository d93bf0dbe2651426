"""Users speak, and the avatar gives way: no turn is lost, and none that was a cough is delivered."""

import asyncio
from datetime import timedelta

import grpc
import pytest
from unit.client import users
from unit.client.users import BEGAN, INTERRUPTS, RULES, WINDOW_BYTES, WORDS, Stage, Voice

from liveavatar.gateway import (
    ConnectionLost,
    InterruptRules,
    RoomUnreachable,
    SessionEnded,
    TurnEnd,
    TurnVerdict,
    user_turns,
)


async def test_a_turn_is_delivered_while_the_user_speaks_and_ends_after_the_silence():
    stage = Stage()
    async with stage.turns as turns:
        stage.users.be_silent(0.3)
        stage.users.speak(0.3)
        turn = await turns.next()
        assert (turn.participant, turn.end, turn.interrupted) == ("ann", None, None)
        assert turn.verdict is TurnVerdict.ACCEPTED
        assert turn.started_at == BEGAN + timedelta(seconds=0.3)
        stage.users.be_silent(0.3)
        audio = await turn.complete()
        assert turn.end is TurnEnd.SILENCE
        silence = bytes(WINDOW_BYTES)
        assert audio == silence + bytes([90]) * 3 * WINDOW_BYTES + silence * 2
        assert stage.avatar.commands == []
    assert stage.users.closed


async def test_iteration_ends_with_the_session():
    stage = Stage()
    for _ in range(2):
        stage.users.speak(0.3)
        stage.users.be_silent(0.3)
    stage.users.speak(0.3)
    stage.users.end()
    found = [turn async for turn in stage.turns]
    assert [turn.end for turn in found] == [TurnEnd.SILENCE, TurnEnd.SILENCE, TurnEnd.LISTENING_ENDED]
    assert stage.turns.closed
    assert repr(stage.turns) == "<AsyncUserTurns closed>"
    assert stage.users.closed


async def test_too_short_a_turn_is_not_delivered():
    stage = Stage()
    stage.users.speak(0.1)
    stage.users.be_silent(0.3)
    stage.users.end()
    assert await stage.turns.next() is None


async def test_a_cough_pauses_the_avatar_which_then_continues():
    stage = Stage()
    stage.avatar.talking = True
    async with stage.turns:
        stage.users.speak(0.2)
        await stage.until(lambda: stage.avatar.commands == ["pause 10.0"])
        stage.users.be_silent(0.2)
        await stage.until(lambda: stage.avatar.commands == ["pause 10.0", "continue"])
    assert await stage.turns.next() is None


async def test_a_sentence_interrupts_the_avatar_and_is_delivered_with_what_was_heard_of_it():
    stage = Stage()
    stage.avatar.talking = True
    async with stage.turns as turns:
        stage.users.speak(0.4)
        turn = await turns.next()
        assert stage.avatar.commands == ["pause 10.0", "interrupt"]
        assert turn.interrupted.played == timedelta(seconds=1)
        assert turn.duration == timedelta(seconds=0.4)


async def test_without_rules_the_avatar_talks_on():
    stage = Stage(interrupts=None)
    stage.avatar.talking = True
    async with stage.turns as turns:
        stage.users.speak(0.2)
        assert (await turns.next()).interrupted is None
        assert stage.avatar.commands == []


async def test_two_coughs_at_once_are_one_pause():
    stage = Stage()
    stage.avatar.talking = True
    async with stage.turns:
        stage.users.speak(0.2)
        stage.users.speak(0.2, who="bob")
        stage.users.be_silent(0.2)
        stage.users.speak(0.1, who="bob")
        await stage.until(lambda: stage.avatar.commands == ["pause 10.0"])
        stage.users.be_silent(0.2, who="bob")
        await stage.until(lambda: stage.avatar.commands == ["pause 10.0", "continue"])


class TestWords:
    async def test_a_turn_is_delivered_at_its_start_and_interrupts_with_its_words(self):
        stage = Stage(interrupts=WORDS)
        stage.avatar.talking = True
        async with stage.turns as turns:
            stage.users.speak(0.3)
            turn = await turns.next()
            assert turn.verdict is TurnVerdict.OPEN
            turn.report_words(1)
            await stage.until(lambda: stage.avatar.commands == ["pause 10.0"])
            turn.report_words(2)
            assert turn.verdict is TurnVerdict.ACCEPTED
            await stage.until(lambda: turn.interrupted is not None)
            assert stage.avatar.commands == ["pause 10.0", "interrupt"]
            # It is delivered once.
            stage.users.end()
            assert await turns.next() is None

    async def test_words_may_come_after_the_turn(self):
        stage = Stage(interrupts=InterruptRules(min_voice=0.2, min_words=2, word_timeout=30))
        stage.avatar.talking = True
        async with stage.turns as turns:
            stage.users.speak(0.3)
            turn = await turns.next()
            stage.users.be_silent(0.2)
            await turn.complete()
            turn.report_words(2)
            await stage.until(lambda: turn.interrupted is not None)

    async def test_without_words_the_avatar_continues(self):
        stage = Stage(interrupts=WORDS)
        stage.avatar.talking = True
        async with stage.turns as turns:
            stage.users.speak(0.3)
            turn = await turns.next()
            stage.users.be_silent(0.2)
            await stage.until(lambda: stage.avatar.commands == ["pause 10.0", "continue"])
            assert turn.verdict is TurnVerdict.REFUSED
            assert turn.end is TurnEnd.SILENCE

    async def test_nobody_waits_for_words_after_the_end(self):
        stage = Stage(interrupts=InterruptRules(min_voice=0.2, min_words=2, word_timeout=30))
        stage.avatar.talking = True
        stage.users.speak(0.3)
        stage.users.be_silent(0.2)
        stage.users.end()
        turn = await stage.turns.next()
        assert await stage.turns.next() is None
        assert turn.verdict is TurnVerdict.REFUSED
        assert stage.avatar.commands == ["pause 10.0", "continue"]


async def test_a_user_whose_audio_stops_has_ended_the_turn():
    stage = Stage()
    async with stage.turns as turns:
        stage.users.speak(0.3)
        turn = await turns.next()
        async with asyncio.timeout(10):
            await turn.complete()
        assert turn.end is TurnEnd.SILENCE


async def test_dropped_audio_is_silence_and_the_detector_begins_anew():
    made = []

    class Noted(Voice):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    stage = Stage(voice=Noted)
    async with stage.turns as turns:
        stage.users.speak(0.3)
        stage.users.speak(0.3, dropped_s=1.0)
        first, second = await turns.next(), await turns.next()
        assert (first.end, second.end) == (TurnEnd.SILENCE, None)
        assert second.started_at == BEGAN + timedelta(seconds=1.3)
        assert [voice.resets for voice in made] == [1]


@pytest.mark.parametrize("close", [True, False], ids=["close", "end of the session"])
async def test_the_end_continues_a_pause(close):
    stage = Stage()
    stage.avatar.talking = True
    async with stage.turns as turns:
        stage.users.speak(0.2)
        await stage.until(lambda: stage.avatar.commands == ["pause 10.0"])
        if close:
            turns.close()
            turns.close()
        else:
            stage.users.end()
        assert await turns.next() is None
        assert stage.avatar.commands == ["pause 10.0", "continue"]
    assert all(task.done() for task in stage.tasks)


async def test_turns_that_were_never_asked_for_close_without_a_task():
    stage = Stage()
    assert repr(stage.turns) == "<AsyncUserTurns not open>"
    stage.turns.close()
    assert await stage.turns.next() is None
    assert (stage.tasks, stage.users.closed) == ([], True)


async def test_turns_may_be_closed_before_their_task_has_begun():
    stage = Stage()
    async with stage.turns as turns:
        assert repr(turns) == "<AsyncUserTurns listening>"
    assert await stage.turns.next() is None


async def test_a_listener_that_fails_is_an_error_after_the_turns_before():
    stage = Stage()
    stage.users.speak(0.3)
    stage.users.end(RoomUnreachable("no room", code=grpc.StatusCode.UNAVAILABLE))
    turn = await stage.turns.next()
    with pytest.raises(RoomUnreachable):
        await stage.turns.next()
    assert turn.end is TurnEnd.LISTENING_ENDED
    assert await stage.turns.next() is None


async def test_a_detector_that_fails_is_an_error():
    def broken() -> Voice:
        raise OSError("no model")

    stage = Stage(voice=broken)
    stage.users.speak(0.1)
    with pytest.raises(OSError, match="no model"):
        await stage.turns.next()


@pytest.mark.parametrize(
    "error",
    [
        ConnectionLost("gone", code=grpc.StatusCode.UNAVAILABLE),
        SessionEnded("over", code=grpc.StatusCode.FAILED_PRECONDITION),
        TimeoutError(),
    ],
)
async def test_a_turn_is_delivered_although_the_avatar_does_not_obey(error, caplog):
    stage = Stage()
    stage.avatar.talking = True
    stage.avatar.error = error
    async with stage.turns as turns:
        stage.users.speak(0.4)
        turn = await turns.next()
        assert turn.interrupted is None
    logged = [record for record in caplog.records if "turns.command_failed" in record.message]
    assert bool(logged) is not isinstance(error, SessionEnded)


async def test_a_wait_may_be_cancelled_and_nothing_is_lost():
    stage = Stage()
    async with stage.turns as turns:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(turns.next(), 0.01)
        stage.users.speak(0.3)
        assert (await turns.next()).participant == "ann"


async def test_beyond_its_bound_the_oldest_turn_that_waits_is_dropped_and_counted(monkeypatch, caplog):
    monkeypatch.setattr(user_turns, "KEPT_TURNS", 2)
    stage = Stage()
    for who in ("ann", "bob", "cy"):
        stage.users.speak(0.3, who=who)
    stage.users.end()
    async with stage.turns as turns:
        await asyncio.wait(stage.tasks)
        assert [turn.participant async for turn in turns] == ["bob", "cy"]
        assert turns.dropped_count == 1
    assert "turns.dropped" in caplog.text


async def test_of_too_many_users_the_one_who_was_quiet_for_longest_is_forgotten(monkeypatch, caplog):
    monkeypatch.setattr(user_turns, "MAX_SPEAKERS", 2)
    stage = Stage()
    stage.users.speak(0.3, who="ann")
    stage.users.be_silent(0.1, who="bob")
    stage.users.speak(0.3, who="cy")
    stage.users.speak(0.1, who="ann")
    stage.users.end()
    found = [turn async for turn in stage.turns]
    assert [(turn.participant, turn.duration.total_seconds()) for turn in found] == [("ann", 0.4), ("cy", 0.3)]
    assert "turns.speaker_forgotten" in caplog.text


def test_the_rules_of_these_tests_are_what_they_say():
    assert (RULES.min_voice, INTERRUPTS.min_voice, users.WINDOW_S) == (0.2, 0.4, 0.1)
