"""Deadlines of a session, and their order at equal times."""

import pytest

from liveavatar_emulator.config import Settings
from liveavatar_emulator.session_timers import Deadline, SessionTimers

SETTINGS = Settings(idle_s=100, reap_s=80)


def timers(**changes: object) -> SessionTimers:
    return SessionTimers(**{"now_s": 0.0, "limit_s": 1000, "billed": False, "needs_socket": False, **changes})


@pytest.mark.parametrize(
    ("changes", "due_s", "deadline"),
    [
        ({}, 100, Deadline.IDLE),
        ({"needs_socket": True}, 80, Deadline.REAP),
        ({"billed": True}, 60, Deadline.BILLING),
        ({"limit_s": 30}, 30, Deadline.DURATION),
    ],
)
def test_the_earliest_deadline_is_due_first(changes, due_s, deadline):
    subject = timers(**changes)
    assert subject.next_due_s(SETTINGS) == due_s
    assert subject.take(due_s, SETTINGS) is deadline


def test_the_duration_limit_precedes_the_charge_of_the_same_moment():
    subject = timers(limit_s=60, billed=True)
    assert [subject.take(60, SETTINGS), subject.take(60, SETTINGS)] == [Deadline.DURATION, Deadline.BILLING]
    assert subject.next_due_s(SETTINGS) == 100


def test_activity_and_sockets_move_their_deadlines():
    subject = timers(needs_socket=True)
    subject.attach()
    assert subject.next_due_s(SETTINGS) == 100
    subject.note_activity(50)
    assert subject.next_due_s(SETTINGS) == 150
    subject.detach(60)
    assert subject.next_due_s(SETTINGS) == 140
