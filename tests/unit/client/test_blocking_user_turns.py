"""Turns for threads are the same turns."""

import threading
from datetime import timedelta

import pytest
from unit.client.users import BEGAN, WORDS, Stage

from liveavatar.gateway import DeadlineExceeded, TurnEnd, TurnVerdict, UserTurns
from liveavatar.gateway.portal import Portal


@pytest.fixture
def portal():
    found = Portal()
    yield found
    found.close()


def made(portal: Portal, **options) -> tuple[Stage, UserTurns]:
    stage = portal.run(lambda: Stage(**options))
    return stage, UserTurns(stage.turns, portal)


def test_a_thread_reads_turns_and_their_audio(portal):
    stage, found = made(portal)
    with found as turns:
        assert repr(turns) == "<UserTurns <AsyncUserTurns listening>>"
        with pytest.raises(DeadlineExceeded):
            turns.next(timeout=0.01)
        portal.run(lambda: stage.users.speak(0.3))
        turn = next(turns)
        assert (turn.participant, turn.started_at, turn.end, turn.interrupted) == ("ann", BEGAN, None, None)
        assert (turn.verdict, turn.format.sample_rate_hz) == (TurnVerdict.ACCEPTED, 16_000)
        assert repr(turn).startswith("<UserTurn <AsyncUserTurn ann")
        with pytest.raises(DeadlineExceeded):
            turn.complete(timeout=0.01)
        portal.run(lambda: stage.users.be_silent(0.2))
        assert turn.complete() == turn.audio == b"".join(turn)
        assert (turn.end, turn.duration) == (TurnEnd.SILENCE, timedelta(seconds=0.5))
        assert (turns.connected, turns.closed, turns.dropped_count) == (True, False, 0)
        portal.run(stage.users.end)
        assert list(turns) == []
    assert (turns.connected, turns.closed) == (False, True)


def test_words_are_reported_from_any_thread(portal):
    stage, found = made(portal, interrupts=WORDS)
    stage.avatar.talking = True
    with found as turns:
        portal.run(lambda: stage.users.speak(0.3))
        turn = turns.next()
        reporter = threading.Thread(target=turn.report_words, args=(2,))
        reporter.start()
        reporter.join()
        assert turn.verdict is TurnVerdict.ACCEPTED
        turns.close()
        assert turns.next() is None
    assert turn.interrupted.played == timedelta(seconds=1)
