"""Event log of a session: numbered without gaps, kept for a while."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_gateway.core.errors import EventsCompacted, InvalidField
from liveavatar_gateway.core.events import MAX_PAYLOAD_BYTES, EventLog, UpstreamNotice
from liveavatar_gateway.core.room_events import MAX_DATA_BYTES, DataReceived

_AT = datetime(2026, 1, 1, tzinfo=UTC)


def filled(count: int, *, capacity: int) -> EventLog:
    log = EventLog(capacity=capacity)
    for index in range(count):
        log.append(UpstreamNotice(error=False, type=str(index), message=""), _AT)
    return log


def sequences(log: EventLog, after: int) -> list[int]:
    return [entry.sequence for entry in log.after(after)]


def test_entries_are_numbered_from_1_and_returned_as_they_were_kept():
    log = EventLog(capacity=10)
    event = UpstreamNotice(error=True, type="t", message="m")
    entry = log.append(event, _AT)
    assert (entry.sequence, entry.at, entry.event) == (1, _AT, event)
    assert log.after(0) == [entry]


def test_after_the_last_sequence_there_is_nothing():
    assert filled(3, capacity=10).after(3) == []


def test_after_a_sequence_comes_all_that_is_later():
    assert sequences(filled(5, capacity=10), 3) == [4, 5]


def test_an_empty_log_has_nothing_after_0():
    assert EventLog(capacity=1).after(0) == []


def test_a_caller_just_at_the_edge_of_what_is_kept_misses_nothing():
    assert sequences(filled(5, capacity=3), 2) == [3, 4, 5]


def test_a_caller_behind_what_is_kept_is_told_the_oldest():
    with pytest.raises(EventsCompacted) as refused:
        filled(5, capacity=3).after(1)
    assert refused.value.metadata == {"after_sequence": "1", "oldest_sequence": "3"}
    assert "resume after 2" in refused.value.message


def test_the_log_knows_up_to_where_it_lost_its_entries():
    assert [filled(count, capacity=3).compacted_through for count in (0, 3, 5)] == [0, 0, 2]


@pytest.mark.parametrize("sequence", [-1, 6])
def test_a_sequence_that_was_never_given_out_is_refused_with_the_range(sequence):
    with pytest.raises(InvalidField) as refused:
        filled(5, capacity=3).after(sequence)
    assert refused.value.field == "resume.after_sequence"
    assert refused.value.metadata == {"after_sequence": str(sequence), "last_sequence": "5"}


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 30), capacity=st.integers(1, 12), data=st.data())
def test_a_resume_gives_every_later_entry_once_or_says_that_some_are_gone(count, capacity, data):
    log = filled(count, capacity=capacity)
    after = data.draw(st.integers(0, count))
    if count - after > capacity:
        with pytest.raises(EventsCompacted):
            log.after(after)
    else:
        assert sequences(log, after) == list(range(after + 1, count + 1))


def test_data_of_participants_takes_a_bounded_part_of_memory():
    log = EventLog(capacity=1_000)
    for _ in range(100):
        log.append(DataReceived("ann", "t", bytes(MAX_DATA_BYTES)), _AT)
    kept = MAX_PAYLOAD_BYTES // MAX_DATA_BYTES
    assert log.compacted_through == 100 - kept
    log.append(UpstreamNotice(error=False, type="t", message=""), _AT)
    assert log.compacted_through == 100 - kept
