"""A shorter `make long-conversation`: two changes of avatars in twelve minutes that take 36 s."""

import pytest
from endurance.long_conversation import talk


@pytest.mark.alone
@pytest.mark.timeout(180)
async def test_a_conversation_outlives_its_avatars_with_nothing_cut_and_each_change_in_a_silence(record_property):
    summary = await talk(12.0)
    record_property("figure", summary.table().replace("\n", "; "))
    assert summary.ok, summary.table()
    assert summary.rotations >= 2
