"""Sealed secrets: opened with the key at their context, and in no other way."""

import base64
import multiprocessing
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar_gateway.registry.sealing import BadKey, Sealer, Unopenable, parse_key, read_or_make_key

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


@given(st.binary(max_size=500), st.text(max_size=50))
def test_what_is_sealed_opens_with_the_key_at_its_place(value, context):
    assert Sealer(KEY).open(Sealer(KEY).seal(value, context=context), context=context) == value


@given(st.binary(min_size=16, max_size=100))
def test_the_sealed_value_shows_nothing_and_is_never_the_same(value):
    first, second = (Sealer(KEY).seal(value, context="p") for _ in range(2))
    assert first != second
    assert value not in first


@given(st.integers(min_value=0, max_value=48), st.integers(min_value=1, max_value=255))
def test_a_changed_byte_anywhere_is_noticed(position, change):
    sealed = bytearray(Sealer(KEY).seal(b"sixteen bytes ok", context="p"))
    sealed[position] ^= change
    with pytest.raises(Unopenable):
        Sealer(KEY).open(bytes(sealed), context="p")


@given(st.integers(min_value=0, max_value=48))
def test_a_cut_off_value_is_noticed(length):
    with pytest.raises(Unopenable):
        Sealer(KEY).open(Sealer(KEY).seal(b"sixteen bytes ok", context="p")[:length], context="p")


def test_another_place_does_not_open_it():
    with pytest.raises(Unopenable, match="another place"):
        Sealer(KEY).open(Sealer(KEY).seal(b"x", context="session-1"), context="session-2")


def test_another_key_is_named_as_the_cause():
    with pytest.raises(Unopenable, match="GATEWAY_REGISTRY_KEY"):
        Sealer(OTHER).open(Sealer(KEY).seal(b"x", context="p"), context="p")


def test_the_first_bytes_show_whether_another_key_sealed_a_value():
    sealed = Sealer(KEY).seal(b"x", context="p")[:16]
    assert Sealer(OTHER).has_other_key(sealed)
    assert not Sealer(KEY).has_other_key(sealed)
    # Damage, or another version.
    assert not Sealer(OTHER).has_other_key(b"")
    assert not Sealer(OTHER).has_other_key(b"\x02" + sealed[1:])


@pytest.mark.parametrize(
    "text",
    [
        KEY.hex(),
        f"  {KEY.hex().upper()}\n",
        base64.b64encode(OTHER).decode(),
        base64.urlsafe_b64encode(bytes([255]) * 32).decode(),
    ],
)
def test_a_key_is_read_in_the_ways_people_write_it(text):
    assert len(parse_key(text)) == 32


@pytest.mark.parametrize("text", ["", "short", KEY.hex()[:-2], "g" * 64, base64.b64encode(KEY[:-1]).decode()])
def test_a_bad_key_is_refused_with_the_command_that_makes_one(text):
    with pytest.raises(BadKey, match="openssl rand -hex 32"):
        parse_key(text)


def test_a_key_of_the_wrong_length_is_refused():
    with pytest.raises(BadKey, match="31"):
        Sealer(KEY[:-1])


def test_a_key_file_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "registry.db.key"
    key = read_or_make_key(path)
    assert key == read_or_make_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["registry.db.key"]


def test_processes_that_start_together_agree_on_one_key(tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        keys = pool.map(read_or_make_key, [tmp_path / "key"] * 12)
    assert len(set(keys)) == 1
