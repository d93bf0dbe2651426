"""Transition tables: every step is walked, allowed or not."""

from enum import StrEnum

import pytest

from liveavatar_emulator.states import (
    AVATAR_STATES,
    OUTBOX_STATES,
    PHASES,
    AvatarState,
    InvalidTransition,
    OutboxState,
    Phase,
    State,
)

TABLES = [(Phase, PHASES), (OutboxState, OUTBOX_STATES), (AvatarState, AVATAR_STATES)]
STEPS = [(table, old, new) for states, table in TABLES for old in states for new in states]


@pytest.mark.parametrize(
    ("table", "old", "new"), STEPS, ids=lambda part: part if isinstance(part, StrEnum) else ""
)
def test_a_step_is_taken_if_and_only_if_the_table_has_it(table, old, new):
    state = State(old, table)
    if new in table[old]:
        state.move(new)
        assert state.value is new
    else:
        with pytest.raises(InvalidTransition, match=f"from {old} to {new}"):
            state.move(new)
        assert state.value is old


@pytest.mark.parametrize(("states", "table"), TABLES)
def test_every_state_has_a_row_and_can_be_reached_from_the_first(states, table):
    assert set(table) == set(states)
    reached, new = set(), {next(iter(states))}
    while new:
        reached |= new
        new = {step for state in new for step in table[state]} - reached
    assert reached == set(states)
