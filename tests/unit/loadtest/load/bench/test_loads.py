"""The loads are those of the issue, and turns begin evenly over time."""

import pytest

from load.bench.loads import LOADS, TalkLoad
from stage.errors import StageError


def test_four_loads_have_names_that_say_what_they_are():
    assert {name: load.sessions for name, load in LOADS.items()} == {
        "15s-20ms": 300,
        "15s-100ms": 700,
        "3s-20ms": 150,
        "3s-100ms": 300,
    }


def test_an_utterance_leaves_the_avatar_time_to_finish():
    load = LOADS["3s-100ms"]
    assert (load.turn_chunks, load.spoken_chunks, load.chunk_bytes) == (30, 24, 4800)


def test_turns_begin_evenly_over_time():
    load = LOADS["15s-20ms"]
    positions = [load.first_position(number) for number in range(load.sessions)]
    assert positions == sorted(positions)
    assert len(set(positions)) == load.sessions
    assert max(positions) < load.turn_chunks


def test_chunks_that_do_not_fill_a_turn_are_refused():
    with pytest.raises(StageError, match="chunks of 70 ms do not fill turns of 3000 ms"):
        TalkLoad(sessions=1, chunk_ms=70, turn_ms=3000)
