"""The memory-mapped journal: what was written last stands, whatever a kill cut short."""

import random
from pathlib import Path

import pytest

from liveavatar_gateway.registry.journal import (
    CHUNK_BYTES,
    COPY_BYTES,
    SLOT_BYTES,
    UTTERANCE,
    Entry,
    Journal,
    read_journal,
)


def _entry(value: object, name: str = "u", session_id: str = "s", epoch: int = 1) -> Entry:
    return Entry(session_id, epoch, UTTERANCE, name, value)


def _values(path: Path) -> dict[str, list[tuple[str, object]]]:
    return {name: [(one.name, one.value) for one in found] for name, found in read_journal(path).items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(path):
    journal = Journal(path)
    journal.open()
    yield journal
    journal.close(keep=False)
    assert not path.exists()


def test_the_newest_value_of_each_name_is_read_in_the_order_they_were_begun(journal, path):
    for name, value in (("b", 1), ("a", 1), ("b", 2), ("c", 3), ("a", 5)):
        assert journal.write(_entry(value, name))
    assert journal.write(_entry("x", session_id="other"))
    assert _values(path) == {"s": [("b", 2), ("a", 5), ("c", 3)], "other": [("u", "x")]}


@pytest.mark.parametrize("seed", range(5))
def test_a_copy_that_was_cut_short_is_not_believed_and_the_one_before_it_stands(journal, path, seed):
    """Every prefix of a write, as a kill may leave it."""
    rng = random.Random(seed)
    journal.write(_entry({"n": 1}))
    before = path.read_bytes()
    journal.write(_entry({"n": 2, "text": "x" * rng.randrange(2000)}))
    after = path.read_bytes()
    changed = [at for at in range(len(after)) if before[at] != after[at]]
    for stop in [changed[0], changed[-1], *rng.sample(changed, 30)]:
        path.write_bytes(after[:stop] + before[stop:])
        ((_, value),) = _values(path)["s"]
        assert value in ({"n": 1}, {"n": 2, "text": value.get("text")})
        assert stop > changed[-1] or value == {"n": 1}
    path.write_bytes(after)
    assert _values(path)["s"][0][1]["n"] == 2


def test_what_was_forgotten_does_not_come_back_however_often_its_slot_is_used(journal, path):
    for round_ in range(5):
        journal.write(_entry(round_, "a"))
        journal.write(_entry(round_ + 100, "a"))
        journal.remove("s", UTTERANCE, "a")
        assert _values(path) == {}
    journal.write(_entry(1, "b"))
    journal.write(_entry(1, "c"))
    journal.remove_session("s")
    assert _values(path) == {}


def test_it_grows_when_asked_and_says_when_there_is_no_room(journal, path):
    slots = CHUNK_BYTES // SLOT_BYTES
    written = 0
    while journal.write(_entry(written, f"u-{written}")):
        written += 1
    assert written == slots
    assert journal.should_grow
    journal.add(journal.grow())
    assert journal.write(_entry(written, f"u-{written}"))
    assert len(_values(path)["s"]) == slots + 1


def test_a_value_that_is_too_large_is_refused_and_the_older_one_is_not_left_in_its_place(journal, path):
    journal.write(_entry("small"))
    assert journal.write(_entry("x" * 3 * COPY_BYTES)), "it is compressed"
    assert _values(path)["s"][0][1] == "x" * 3 * COPY_BYTES
    assert not journal.write(_entry(random.Random(1).randbytes(2 * COPY_BYTES).hex()))
    assert _values(path) == {}


def test_a_handle_list_of_the_greatest_length_fits(journal, path):
    rng = random.Random(1)
    value = [[rng.randbytes(32).hex(), rng.uniform(0, 1e7)] for _ in range(64)]
    assert journal.write(_entry(value))
    assert _values(path)["s"][0][1] == value


def test_the_file_is_for_its_owner_alone(journal, path):
    assert path.stat().st_mode & 0o777 == 0o600
