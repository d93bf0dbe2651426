"""Every byte that was spoken is accounted for; whatever is lost, repeated, swapped or foreign is told."""

import hashlib
import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.integrity import ReceivedUtterance, SpokenUtterance, UtteranceOutcome, compare

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

    def spoken(self, outcome: UtteranceOutcome = "completed") -> SpokenUtterance:
        pcm = self.pcm
        return SpokenUtterance(f"u{self.number}", len(pcm), outcome, lambda size: sha(pcm[:size]))

    def received(self, upto: int | None = None, *, interrupted: bool = False) -> ReceivedUtterance:
        pcm = self.pcm[:upto]
        return ReceivedUtterance(len(pcm), sha(pcm), interrupted)


ONE, TWO, THREE = Words(1, 2000), Words(2, 3000), Words(3, 1000)


def test_what_arrived_whole_and_in_order_is_fine():
    findings = compare([ONE.spoken(), TWO.spoken()], [ONE.received(), TWO.received()])
    assert findings.failures == []
    assert findings.arrived_as == {0: 0, 1: 1}


def test_an_interrupted_one_may_have_arrived_in_part_or_not_at_all():
    for arrived in ([ONE.received(800, interrupted=True)], [ONE.received()], []):
        assert compare([ONE.spoken("interrupted"), TWO.spoken()], [*arrived, TWO.received()]).failures == []


def test_what_follows_an_interrupted_one_may_come_twice_as_the_interrupt_drops_it_upstream():
    received = [ONE.received(800, interrupted=True), TWO.received(1200, interrupted=True), TWO.received()]
    findings = compare([ONE.spoken("interrupted"), TWO.spoken()], received)
    assert findings.failures == []
    assert findings.arrived_as == {0: 0, 1: 2}


@pytest.mark.parametrize(
    ("received", "says"),
    [
        ([], "u1: all of its 2000 bytes are missing"),
        ([TWO.received()], "u1: all of its 2000 bytes are missing"),
        ([ONE.received(1900), TWO.received()], "u1: the last 100 of 2000 bytes are missing"),
        ([ONE.received(), ONE.received(), TWO.received()], "u2: 2000 bytes arrived for 3000, and they differ"),
        ([TWO.received(), ONE.received()], "u1: all of its 2000 bytes are missing"),
        (
            [ONE.received(), TWO.received(), THREE.received()],
            "1000 bytes arrived as utterance 2 upstream that the caller did not send",
        ),
        (
            [ONE.received(500, interrupted=True), ONE.received(), TWO.received()],
            "u1: the last 1500 of 2000 bytes are missing",
        ),
    ],
    ids=["nothing", "one missing", "cut short", "repeated", "swapped", "foreign", "sent again for no reason"],
)
def test_what_is_wrong_is_told(received: list[ReceivedUtterance], says: str):
    failures = compare([ONE.spoken(), TWO.spoken()], received).failures
    assert any(says in failure for failure in failures), failures


def test_one_byte_that_differs_is_told_with_where_to_look():
    pcm = bytearray(ONE.pcm)
    pcm[777] ^= 1
    findings = compare([ONE.spoken()], [ReceivedUtterance(len(pcm), sha(bytes(pcm)), False)])
    assert "they differ" in findings.failures[0]
    assert findings.suspects == [(0, 0)]


@in_no_hurry
@given(
    st.lists(st.sampled_from(["completed", "interrupted", "failed"]), min_size=1, max_size=8),
    st.data(),
)
def test_any_honest_arrival_passes_and_any_harm_to_a_completed_one_fails(
    fates: list[UtteranceOutcome], data: st.DataObject
):
    words = [Words(10 + number, 100 + 10 * number) for number in range(len(fates))]
    spoken = [one.spoken(outcome) for one, outcome in zip(words, fates, strict=True)]
    received: list[ReceivedUtterance] = []
    places: list[int] = []
    for one, outcome in zip(words, fates, strict=True):
        if outcome == "completed":
            places.append(len(received))
            received.append(one.received())
        elif size := data.draw(st.integers(0, one.size)):
            received.append(one.received(size, interrupted=outcome == "interrupted"))
    assert compare(spoken, received).failures == []
    if places:
        place = data.draw(st.sampled_from(places))
        victim = received[place]
        harm = data.draw(st.sampled_from(["drop", "cut", "change"]))
        if harm == "drop":
            harmed = received[:place] + received[place + 1 :]
        elif harm == "cut":
            number = next(n for n, one in enumerate(words) if sha(one.pcm) == victim.sha256)
            harmed = [*received[:place], words[number].received(victim.size_bytes - 2), *received[place + 1 :]]
        else:
            harmed = [
                *received[:place],
                ReceivedUtterance(victim.size_bytes, sha(b"other"), False),
                *received[place + 1 :],
            ]
        assert compare(spoken, harmed).failures
