"""Audio of users on its way to a listener: whole chunks in order, never more than credit and bounds allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar_gateway.core.user_audio import MAX_CREDIT_BYTES, ListenerBuffer, UserChunk

RATE = 100
"""Bytes per second: a byte is 10 ms."""


def buffer(*, chunk: int = 10, credit: int = 1000, waiting: int = 50) -> ListenerBuffer:
    return ListenerBuffer(byte_rate=RATE, chunk_bytes=chunk, credit_bytes=credit, max_waiting_bytes=waiting)


def taken(found: ListenerBuffer) -> list[UserChunk]:
    return list(iter(found.take, None))


def test_audio_is_cut_into_chunks_with_the_time_of_their_first_sample():
    found = buffer()
    found.append("ann", b"a" * 15, 5.0)
    found.append("ann", b"b" * 5, 5.15)
    assert taken(found) == [
        UserChunk("ann", 5.0, 1, b"a" * 10, 0.0),
        UserChunk("ann", pytest.approx(5.1), 2, b"aaaaabbbbb", 0.0),
    ]
    assert found.sent_bytes == 20


def test_chunks_of_several_users_come_in_the_order_of_their_completion_each_with_its_own_numbers():
    found = buffer()
    found.append("ann", b"a" * 8, 1.0)
    found.append("bob", b"b" * 10, 1.0)
    found.append("ann", b"a" * 12, 1.1)
    assert [(chunk.participant, chunk.sequence) for chunk in taken(found)] == [("bob", 1), ("ann", 1), ("ann", 2)]


def test_nothing_is_sent_beyond_the_credit():
    found = buffer(credit=15)
    found.append("ann", b"a" * 30, 1.0)
    assert [chunk.sequence for chunk in taken(found)] == [1]
    found.grant(4)
    assert found.take() is None
    found.grant(1)
    assert [chunk.sequence for chunk in taken(found)] == [2]
    assert found.credit_bytes == 0


def test_credit_has_a_limit():
    found = buffer(credit=2 * MAX_CREDIT_BYTES)
    assert found.credit_bytes == MAX_CREDIT_BYTES
    found.grant(MAX_CREDIT_BYTES)
    assert found.credit_bytes == MAX_CREDIT_BYTES


def test_the_oldest_is_dropped_beyond_the_bound_and_the_next_chunk_says_how_much():
    found = buffer(credit=0)
    found.append("ann", b"a" * 80, 1.0)
    found.append("bob", b"b" * 10, 1.0)
    assert found.dropped_bytes == 30
    found.grant(1000)
    chunks = taken(found)
    assert [(chunk.participant, chunk.sequence, chunk.dropped_s) for chunk in chunks] == [
        ("ann", 4, 0.3),
        ("ann", 5, 0.0),
        ("ann", 6, 0.0),
        ("ann", 7, 0.0),
        ("ann", 8, 0.0),
        ("bob", 1, 0.0),
    ]
    assert chunks[0].captured_s == pytest.approx(1.3)


def test_a_bound_below_a_chunk_keeps_a_chunk():
    found = buffer(credit=10, waiting=1)
    found.append("ann", b"a" * 10, 1.0)
    assert found.take() is not None


def test_the_end_of_a_voice_is_a_short_chunk():
    found = buffer()
    found.append("ann", b"a" * 13, 1.0)
    found.flush("ann")
    found.flush("ann")
    found.flush("nobody")
    assert [len(chunk.audio) for chunk in taken(found)] == [10, 3]


def test_the_numbers_of_a_user_continue_after_a_pause():
    found = buffer()
    found.append("ann", b"a" * 10, 1.0)
    found.flush("ann")
    taken(found)
    found.append("ann", b"a" * 10, 60.0)
    assert taken(found) == [UserChunk("ann", 60.0, 2, b"a" * 10, 0.0)]


def test_those_who_spoke_longest_ago_are_forgotten():
    found = buffer(credit=0)
    for number in range(257):
        found.append(f"user-{number}", b"a" * 10, 1.0)
    assert found.dropped_bytes == 10
    found.grant(10_000)
    assert len(taken(found)) == 256


@given(
    pieces=st.lists(
        st.tuples(st.sampled_from(["ann", "bob"]), st.integers(1, 40), st.integers(0, 30)), max_size=40
    ),
    chunk=st.integers(1, 20),
)
def test_every_byte_is_sent_once_or_counted_as_dropped(pieces, chunk):
    found = buffer(chunk=chunk, credit=0, waiting=40)
    sizes = {"ann": 0, "bob": 0}
    seen: dict[str, list[UserChunk]] = {"ann": [], "bob": []}
    for name, size, credit in pieces:
        found.append(name, bytes(size), 1.0)
        sizes[name] += size
        found.grant(credit)
        for one in taken(found):
            seen[one.participant].append(one)
    for name in sizes:
        found.flush(name)
    found.grant(MAX_CREDIT_BYTES)
    for one in taken(found):
        seen[one.participant].append(one)
    for name, size in sizes.items():
        sent = sum(len(one.audio) for one in seen[name])
        dropped = sum(one.dropped_s for one in seen[name]) * RATE
        assert sent + dropped == pytest.approx(size)
        numbers = [one.sequence for one in seen[name]]
        assert numbers == sorted(set(numbers))
