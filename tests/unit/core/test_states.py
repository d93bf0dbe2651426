"""Tables of states: each allowed transition succeeds, and all others fail."""

import itertools

import pytest

from liveavatar_gateway.core.states import (
    HOSTED_TRANSITIONS,
    INPUT_TRANSITIONS,
    PAUSE_TRANSITIONS,
    PLAYBACK_TRANSITIONS,
    SEND_TRANSITIONS,
    SESSION_TRANSITIONS,
    EndReason,
    IllegalTransition,
    InputState,
    PauseState,
    PlaybackState,
    SendState,
    SessionState,
    end_reason_of,
    move,
)

_ALLOWED = {
    (SessionState.CREATING, SessionState.CONNECTING),
    (SessionState.CREATING, SessionState.ENDING),
    (SessionState.CONNECTING, SessionState.READY),
    (SessionState.CONNECTING, SessionState.RECONNECTING),
    (SessionState.CONNECTING, SessionState.ENDING),
    (SessionState.READY, SessionState.RECONNECTING),
    (SessionState.READY, SessionState.ENDING),
    (SessionState.RECONNECTING, SessionState.READY),
    (SessionState.RECONNECTING, SessionState.ENDING),
    (SessionState.ENDING, SessionState.ENDED),
}
_HOSTED_ALLOWED = {
    (SessionState.CREATING, SessionState.CONNECTING),
    (SessionState.CREATING, SessionState.ENDING),
    (SessionState.CONNECTING, SessionState.READY),
    (SessionState.CONNECTING, SessionState.ENDING),
    (SessionState.READY, SessionState.ENDING),
    (SessionState.ENDING, SessionState.ENDED),
}
_INPUT_ALLOWED = {
    (InputState.UNDECIDED, InputState.OPEN),
    (InputState.UNDECIDED, InputState.SEALED),
    (InputState.UNDECIDED, InputState.FLUSHED),
    (InputState.OPEN, InputState.SEALED),
    (InputState.OPEN, InputState.FLUSHED),
    (InputState.SEALED, InputState.FLUSHED),
    (InputState.FLUSHED, InputState.SEALED),
}
_SEND_ALLOWED = {
    (SendState.WAITING, SendState.SENDING),
    (SendState.SENDING, SendState.END_SENT),
    (SendState.SENDING, SendState.WAITING),
    (SendState.END_SENT, SendState.COMMITTED),
    (SendState.END_SENT, SendState.SENDING),
    (SendState.END_SENT, SendState.WAITING),
    (SendState.COMMITTED, SendState.WAITING),
}
_PLAYBACK_ALLOWED = {
    (PlaybackState.PENDING, PlaybackState.ACCEPTED),
    (PlaybackState.PENDING, PlaybackState.PLAYING),
    (PlaybackState.PENDING, PlaybackState.PLAYED),
    (PlaybackState.PENDING, PlaybackState.UNPLAYED),
    (PlaybackState.ACCEPTED, PlaybackState.PENDING),
    (PlaybackState.ACCEPTED, PlaybackState.PLAYING),
    (PlaybackState.ACCEPTED, PlaybackState.PLAYED),
    (PlaybackState.ACCEPTED, PlaybackState.UNPLAYED),
    (PlaybackState.PLAYING, PlaybackState.PENDING),
    (PlaybackState.PLAYING, PlaybackState.PLAYED),
}
_PAUSE_ALLOWED = {
    (PauseState.RUNNING, PauseState.PAUSING),
    (PauseState.RUNNING, PauseState.PAUSED),
    (PauseState.PAUSING, PauseState.PAUSED),
    (PauseState.PAUSING, PauseState.CONTINUING),
    (PauseState.PAUSING, PauseState.RUNNING),
    (PauseState.PAUSED, PauseState.RUNNING),
    (PauseState.CONTINUING, PauseState.RUNNING),
    (PauseState.CONTINUING, PauseState.PAUSING),
}
_TABLES = [
    (SESSION_TRANSITIONS, SessionState, _ALLOWED),
    (HOSTED_TRANSITIONS, SessionState, _HOSTED_ALLOWED),
    (INPUT_TRANSITIONS, InputState, _INPUT_ALLOWED),
    (SEND_TRANSITIONS, SendState, _SEND_ALLOWED),
    (PLAYBACK_TRANSITIONS, PlaybackState, _PLAYBACK_ALLOWED),
    (PAUSE_TRANSITIONS, PauseState, _PAUSE_ALLOWED),
]
_ALL = [
    (table, allowed, *pair) for table, states, allowed in _TABLES for pair in itertools.product(states, states)
]


@pytest.mark.parametrize(
    ("table", "current", "following"), [(table, *pair) for table, allowed, *pair in _ALL if tuple(pair) in allowed]
)
def test_an_allowed_move_is_made(table, current, following):
    assert move(table, current, following) is following


@pytest.mark.parametrize(
    ("table", "current", "following"),
    [(table, *pair) for table, allowed, *pair in _ALL if tuple(pair) not in allowed],
)
def test_any_other_move_is_a_bug_that_names_both_states(table, current, following):
    with pytest.raises(IllegalTransition, match=f"^{current.name} -> {following.name}$"):
        move(table, current, following)


@pytest.mark.parametrize(("table", "states"), [(table, states) for table, states, _ in _TABLES])
def test_a_table_has_a_row_for_every_state(table, states):
    assert set(table) == set(states)


@pytest.mark.parametrize("table", [SESSION_TRANSITIONS, HOSTED_TRANSITIONS])
def test_every_state_leads_to_the_end(table):
    """A state without an exit would trap a session that is billed."""
    for state in SessionState:
        if state is SessionState.RECONNECTING and table is HOSTED_TRANSITIONS:
            assert not any(state in following for following in table.values()), "it cannot be reached"
            continue
        reached, front = {state}, [state]
        while front:
            following = table[front.pop()] - reached
            reached |= following
            front += following
        assert SessionState.ENDED in reached


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("IDLE_TIMEOUT", EndReason.IDLE),
        ("MAX_DURATION_REACHED", EndReason.MAX_DURATION),
        ("NO_CREDITS", EndReason.OUT_OF_CREDITS),
        ("AGENT_HANG_UP", EndReason.AGENT_HUNG_UP),
        ("ZOMBIE_SESSION_REAP", EndReason.UPSTREAM_ENDED),
        ("SOMETHING_NEW", EndReason.UPSTREAM_ENDED),
        ("", EndReason.UPSTREAM_FAILED),
    ],
)
def test_words_of_liveavatar_become_one_closed_list_of_reasons(said, reason):
    assert end_reason_of(said) is reason
