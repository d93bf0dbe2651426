"""Each invariant is broken on purpose, and noticed."""

import pytest
from chaos.history import Recorded, Said, Talk
from chaos.invariants import overlaps, violations

from testkit.continuity import noise

ONE, TWO = noise(0.2, seed=1), noise(0.2, seed=2)


def packets(*sounds: bytes, size: int = 2400) -> tuple[tuple[float, bytes], ...]:
    """Return packets that arrive one second apart."""
    cut = [sound[start : start + size] for sound in sounds for start in range(0, len(sound), size)]
    return tuple((float(number), packet) for number, packet in enumerate(cut))


def talk(**changes: object) -> Talk:
    made = Talk(
        caller=1,
        session_id="session",
        upstream_id="upstream",
        said=[Said("one", ONE, outcome="played"), Said("two", TWO, outcome="played")],
        sequences=[1, 2, 3],
        ends=["caller_ended"],
        record_end="caller_ended",
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def found(one: Talk, recorded: tuple[tuple[float, bytes], ...], *interrupts: float) -> list[str]:
    return violations([one], {"upstream": Recorded(recorded, interrupts, (0.0,))})[0]


def test_a_conversation_in_which_all_went_well_violates_nothing():
    assert found(talk(), packets(ONE, TWO)) == []


def test_what_was_not_played_to_its_end_may_be_a_beginning():
    cut = talk(said=[Said("one", ONE, outcome="interrupted"), Said("two", TWO, "played")])
    assert found(cut, packets(ONE[:4800], TWO), 1.5) == []


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        (packets(ONE, TWO[:4800]), "4800 bytes of it never came"),
        (packets(ONE[:2400], ONE[4800:], TWO), "bytes 2400 to 4800 of utterance one never came"),
        (packets(ONE, ONE[-2400:], TWO), "2400 bytes came twice"),
        (packets(TWO, ONE), "after a later one had begun"),
        (packets(ONE, noise(0.05, seed=3), TWO), "was never said"),
    ],
    ids=["end lost", "hole", "repeated", "out of order", "foreign"],
)
def test_speech_that_is_not_what_was_said_is_a_violation(recorded, message):
    assert any(message in problem for problem in found(talk(), recorded))


def test_paused_speech_goes_on_from_before_the_pause():
    again = packets(ONE, TWO[:4800], ONE[-2400:], TWO)
    # The seventh packet is the first after the pause.
    assert found(talk(pauses=1), again, 5.5) == []
    assert any("came twice" in problem for problem in found(talk(), again, 5.5))
    cut = talk(pauses=1, said=[Said("one", ONE, "interrupted"), Said("two", TWO, "played")])
    assert found(cut, packets(ONE[:7200], ONE[4800:], TWO), 2.5, 4.5) == []


def test_a_pause_repeats_no_more_than_its_bound():
    long = noise(7.0, seed=3)
    paused = talk(pauses=1, said=[Said("one", long, outcome="played")])
    assert any("interrupts, more than" in problem for problem in found(paused, packets(long[:-2400], long), 138.5))


def test_a_second_socket_beside_the_first_is_a_second_owner():
    first, second = ("/ws/a", 1.0, 5.0), ("/ws/a", 4.0, None)
    assert any("two gateways drove it" in one for one in overlaps([second, first]))
    assert any("two gateways drove it" in one for one in overlaps([("/ws/a", 1.0, None), second]))


def test_a_second_socket_after_the_first_or_of_another_session_is_none():
    assert overlaps([("/ws/a", 1.0, 4.05), ("/ws/a", 4.0, None), ("/ws/b", 2.0, None)]) == []


def test_events_may_be_told_to_be_gone_only_where_a_gateway_died_or_was_drained():
    recordings = {"upstream": Recorded(packets(ONE, TWO))}
    for allowed in (False, True):
        problems, _ = violations([talk(missed=2)], recordings, misses_allowed=allowed)
        assert bool(problems) is not allowed


def test_an_error_in_place_of_the_end_is_an_end():
    assert found(talk(ends=[], events_error="SessionLost: given up"), packets(ONE, TWO)) == []


def test_a_repeat_behind_a_lost_socket_is_counted_and_no_violation():
    recorded = Recorded(packets(ONE, ONE[-2400:], TWO), attached_s=(0.0, 3.5))
    assert violations([talk()], {"upstream": recorded}) == ([], 2400)


def test_a_repeat_beyond_the_bound_is_a_violation():
    long = noise(6.0, seed=4)
    recorded = Recorded(packets(long, long[-260_000:], size=20_000), attached_s=(0.0, 14.5))
    said = talk(said=[Said("one", long, outcome="played")])
    (problem,), repeated = violations([said], {"upstream": recorded})
    assert "260000 bytes came twice over socket 2" in problem
    assert repeated == 260_000


def test_speech_after_the_interrupt_that_cut_it_is_a_violation():
    cut = talk(said=[Said("one", ONE, outcome="interrupted")])
    assert any("after the interrupt that cut it" in one for one in found(cut, packets(ONE[:4800]), 0.5))
    assert found(cut, packets(ONE[:4800]), 1.5) == []


def test_speech_that_was_cut_here_and_not_upstream_is_a_violation():
    cut = talk(said=[Said("one", ONE, outcome="interrupted"), Said("two", TWO, outcome="played")])
    assert any("no interrupt came between it" in one for one in found(cut, packets(ONE[:4800], TWO)))
    unread = talk(said=[Said("one", ONE, outcome="interrupted")])
    assert found(unread, packets(ONE[:4800])) == [], "the session may have ended before LiveAvatar read it"
    never_sent = talk(said=[Said("one", ONE, outcome="interrupted")])
    assert found(never_sent, ()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequences": [2, 3]}, "event 2 came after event 0"),
        ({"sequences": [1, 3]}, "event 3 came after event 1"),
        ({"sequences": [1, 2, 2]}, "event 2 came after event 2"),
        ({"ends": ["caller_ended", "caller_lost"]}, "ended 2 times"),
        ({"ends": []}, "stopped without an end"),
        ({"record_end": "caller_lost"}, "but the record says caller_lost"),
        ({"ends": [], "answered_end": "drained"}, "was told drained"),
        ({"record_end": ""}, "final record could not be had"),
        ({"hung": "the end of utterance one"}, "waited in vain"),
        ({"said": [Said("one", ONE), Said("two", TWO, "played")]}, "utterance one has no end"),
    ],
    ids=[
        "no beginning",
        "hole in events",
        "event twice",
        "two ends",
        "no end of the session",
        "two stories",
        "another answer",
        "no record",
        "hung",
        "no end of an utterance",
    ],
)
def test_a_caller_that_was_told_something_wrong_is_a_violation(changes, message):
    assert any(message in problem for problem in found(talk(**changes), packets(ONE, TWO)))
