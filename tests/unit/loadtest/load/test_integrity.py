"""Every byte that was spoken is accounted for; whatever is lost, repeated, swapped or foreign is told."""

import hashlib
import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.integrity import Fate, Heard, Said, compare

# The machine may be busy.
in_no_hurry = settings(deadline=None)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Words:
    """An utterance's bytes, different for each number."""

    number: int
    size: int

    @property
    def pcm(self) -> bytes:
        return random.Random(self.number).randbytes(self.size)

    def said(self, fate: Fate = "completed") -> Said:
        pcm = self.pcm
        return Said(f"u{self.number}", len(pcm), fate, lambda size: sha(pcm[:size]))

    def heard(self, upto: int | None = None, *, interrupted: bool = False) -> Heard:
        pcm = self.pcm[:upto]
        return Heard(len(pcm), sha(pcm), interrupted)


ONE, TWO, THREE = Words(1, 2000), Words(2, 3000), Words(3, 1000)


def test_what_arrived_whole_and_in_order_is_fine():
    findings = compare([ONE.said(), TWO.said()], [ONE.heard(), TWO.heard()])
    assert findings.failures == []
    assert findings.arrived_as == {0: 0, 1: 1}


def test_an_interrupted_one_may_have_arrived_in_part_or_not_at_all():
    for arrived in ([ONE.heard(800, interrupted=True)], [ONE.heard()], []):
        assert compare([ONE.said("interrupted"), TWO.said()], [*arrived, TWO.heard()]).failures == []


def test_what_follows_an_interrupted_one_may_come_twice_as_the_interrupt_drops_it_upstream():
    heard = [ONE.heard(800, interrupted=True), TWO.heard(1200, interrupted=True), TWO.heard()]
    findings = compare([ONE.said("interrupted"), TWO.said()], heard)
    assert findings.failures == []
    assert findings.arrived_as == {0: 0, 1: 2}


@pytest.mark.parametrize(
    ("heard", "says"),
    [
        ([], "u1: all of its 2000 bytes are missing"),
        ([TWO.heard()], "u1: all of its 2000 bytes are missing"),
        ([ONE.heard(1900), TWO.heard()], "u1: the last 100 of 2000 bytes are missing"),
        ([ONE.heard(), ONE.heard(), TWO.heard()], "u2: 2000 bytes arrived for 3000, and they differ"),
        ([TWO.heard(), ONE.heard()], "u1: all of its 2000 bytes are missing"),
        (
            [ONE.heard(), TWO.heard(), THREE.heard()],
            "1000 bytes arrived as utterance 2 upstream that nobody spoke",
        ),
        (
            [ONE.heard(500, interrupted=True), ONE.heard(), TWO.heard()],
            "u1: the last 1500 of 2000 bytes are missing",
        ),
    ],
    ids=["nothing", "one missing", "cut short", "repeated", "swapped", "foreign", "sent again for no reason"],
)
def test_what_is_wrong_is_told(heard: list[Heard], says: str):
    failures = compare([ONE.said(), TWO.said()], heard).failures
    assert any(says in failure for failure in failures), failures


def test_one_byte_that_differs_is_told_with_where_to_look():
    pcm = bytearray(ONE.pcm)
    pcm[777] ^= 1
    findings = compare([ONE.said()], [Heard(len(pcm), sha(bytes(pcm)), False)])
    assert "they differ" in findings.failures[0]
    assert findings.suspects == [(0, 0)]


@in_no_hurry
@given(
    st.lists(st.sampled_from(["completed", "interrupted", "failed"]), min_size=1, max_size=8),
    st.data(),
)
def test_any_honest_arrival_passes_and_any_harm_to_a_completed_one_fails(fates: list[Fate], data: st.DataObject):
    words = [Words(10 + number, 100 + 10 * number) for number in range(len(fates))]
    said = [one.said(fate) for one, fate in zip(words, fates, strict=True)]
    heard: list[Heard] = []
    places: list[int] = []
    for one, fate in zip(words, fates, strict=True):
        if fate == "completed":
            places.append(len(heard))
            heard.append(one.heard())
        elif size := data.draw(st.integers(0, one.size)):
            heard.append(one.heard(size, interrupted=fate == "interrupted"))
    assert compare(said, heard).failures == []
    if places:
        place = data.draw(st.sampled_from(places))
        victim = heard[place]
        harm = data.draw(st.sampled_from(["drop", "cut", "change"]))
        if harm == "drop":
            harmed = heard[:place] + heard[place + 1 :]
        elif harm == "cut":
            number = next(n for n, one in enumerate(words) if sha(one.pcm) == victim.sha256)
            harmed = [*heard[:place], words[number].heard(victim.size_bytes - 2), *heard[place + 1 :]]
        else:
            harmed = [*heard[:place], Heard(victim.size_bytes, sha(b"other"), False), *heard[place + 1 :]]
        assert compare(said, harmed).failures
