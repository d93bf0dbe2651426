"""Search of the demo for a room, and its words when there is none."""

from pathlib import Path

import pytest

from liveavatar_demo import room

NAMED = {
    "LIVEKIT_URL": "wss://rooms.example.com",
    "LIVEKIT_API_KEY": "key",
    "LIVEKIT_API_SECRET": "not-to-be-shown",
}


@pytest.fixture
def nothing(tmp_path: Path) -> dict[str, str]:
    """An environment in which no program is to be found."""
    return {"XDG_CACHE_HOME": str(tmp_path), "PATH": str(tmp_path)}


def test_without_any_the_way_to_one_is_told(nothing):
    assert not room.expected(nothing)
    with room.find(nothing) as found:
        assert isinstance(found, room.NoRoom)
        assert "`make livekit-server`" in found.why
        assert all(name in found.why for name in NAMED)


@pytest.mark.parametrize("missing", NAMED)
def test_a_server_named_by_halves_is_not_taken_and_the_missing_half_is_told(nothing, missing):
    halves = {name: value for name, value in NAMED.items() if name != missing}
    assert not room.expected({**nothing, **halves})
    with room.find({**nothing, **halves}) as found:
        assert isinstance(found, room.NoRoom)
        assert f"{missing} is not set" in found.why
        assert "not-to-be-shown" not in found.why


def test_a_named_program_that_is_not_there_is_told(nothing):
    environment = {**nothing, "LIVEKIT_SERVER": "no-such-program"}
    assert not room.expected(environment)
    with room.find(environment) as found:
        assert isinstance(found, room.NoRoom)
        assert "LIVEKIT_SERVER=no-such-program" in found.why
