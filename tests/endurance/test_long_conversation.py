"""A shorter `make long-conversation`: two changes of avatars in twelve minutes that take 36 s."""

import pytest
from endurance.long_conversation import Summary, compare, talk


@pytest.mark.parametrize(
    ("heard", "lost", "repeated", "in_order"),
    [
        (b"one two three", 0, 0, True),
        (b"one three", 4, 0, False),
        (b"one two two three", 0, 4, False),
        (b"two one three", 0, 0, False),
    ],
    ids=["whole", "lost", "repeated", "out of order"],
)
def test_what_came_is_held_against_what_was_said_byte_for_byte(heard, lost, repeated, in_order):
    summary = Summary(rotations=1, end_reason="END_REASON_CALLER_ENDED")
    compare(heard, [b"one ", b"two ", b"three"], summary)
    assert (summary.lost_bytes, summary.repeated_bytes, summary.in_order) == (lost, repeated, in_order)
    assert summary.ok is in_order


@pytest.mark.alone
@pytest.mark.timeout(180)
async def test_a_conversation_outlives_its_avatars_with_nothing_cut_and_each_change_in_a_silence(record_property):
    summary = await talk(12.0)
    record_property("figure", summary.table().replace("\n", "; "))
    assert summary.ok, summary.table()
    assert summary.rotations >= 2
