"""Interrupts over a lost socket: sent again before all else, unless their arrival is proven."""

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.events import Reconnected
from liveavatar_gateway.core.states import Outcome


def test_an_interrupt_that_was_not_answered_goes_first_again(rig):
    rig.say("u1", 5.0)
    rig.acknowledge(1)
    interrupt_id = rig.interrupt()
    rig.say("u2", 0.4)
    rig.lose()
    rig.run(20)
    assert rig.answer(interrupt_id) is None
    rig.reopen()
    assert rig.commands[-2:] == [rig.cuts[0], rig.cuts[0]]
    assert rig.of(Reconnected)[0].resent_bytes == 0, "interrupted audio is never sent again"
    rig.cleared()
    assert [ended.utterance_id for ended in rig.answer(interrupt_id)] == ["u1"]
    assert len(rig.sent(rig.packets[-1].event_id)) == 0.4 * m.BYTE_RATE, "new speech waited for the answer"


def test_an_interrupt_during_a_gap_goes_up_when_there_is_a_socket(rig):
    rig.say("u1", 5.0)
    rig.lose()
    interrupt_id = rig.interrupt()
    assert rig.cuts == []
    rig.reopen()
    assert rig.commands[-1] == rig.cuts[0]
    rig.cleared()
    assert [ended.outcome for ended in rig.answer(interrupt_id)] == [Outcome.INTERRUPTED]


def test_an_interrupt_of_what_is_not_upstream_is_answered_at_once_during_a_gap(rig):
    rig.lose()
    rig.say("u1", 5.0)
    assert [ended.utterance_id for ended in rig.answer(rig.interrupt())] == ["u1"]


def test_an_interrupt_that_may_have_been_carried_out_is_sent_again_although_its_target_ended(rig):
    """LiveAvatar may have dropped the utterance behind the interrupted one, so it is sent again."""
    first, second = rig.say("u1", 0.4), rig.say("u2", 2.0)
    rig.acknowledge()
    rig.tell(m.SpeakStarted(m.Refs((first.upstream_id,))))
    rig.run(0.1)
    rig.acknowledge()
    interrupt_id = rig.interrupt("u1")
    rig.lose()
    rig.tell(m.SpeakEnded(m.Refs((first.upstream_id,))))
    rig.reopen()
    assert len(rig.cuts) == 2
    rig.cleared()
    assert rig.answer(interrupt_id) is not None
    rig.run(5)
    assert len(rig.sent(second.upstream_id)) == 2.0 * m.BYTE_RATE
    assert second.upstream_id == rig.packets[-1].event_id


@pytest.fixture
def cut_by_itself(rig):
    """Interrupt whose target ends by itself at that moment, which looks like the effect of the interrupt."""
    first, second = rig.say("u1", 0.4), rig.say("u2", 2.0)
    rig.acknowledge()
    rig.run(0.1)
    rig.tell(m.SpeakStarted(m.Refs((first.upstream_id,))))
    rig.acknowledge()
    interrupt_id = rig.interrupt()
    rig.tell(m.SpeakEnded(m.Refs((first.upstream_id,))))
    assert {ended.utterance_id for ended in rig.answer(interrupt_id)} == {"u1", "u2"}
    assert second.first_sent_at_s is not None
    return rig


def test_an_interrupt_lost_with_its_socket_goes_out_again_although_it_was_answered(cut_by_itself):
    rig = cut_by_itself
    rig.say("u3", 0.4)
    rig.lose()
    rig.reopen()
    assert rig.cuts == [rig.cuts[0]] * 2
    assert rig.commands[-1] == rig.cuts[0], "new speech waits for it once more"
    rig.cleared()
    assert len(rig.sent(rig.packets[-1].event_id)) == 0.4 * m.BYTE_RATE
    assert rig.speech.totals.interruption_count == 1


@pytest.mark.parametrize("proof", ["its ack", "a pong", "a later ack", "a later start"])
def test_an_interrupt_that_is_proven_is_not_sent_again(cut_by_itself, proof):
    rig = cut_by_itself
    third = rig.say("u3", 2.0)
    match proof:
        case "its ack":
            rig.cleared()
        case "a pong":
            rig.tell(m.PongReceived(rig.speech.sent_count))
        case "a later ack":
            rig.tell(m.Appended(m.Refs((third.upstream_id,))))
        case "a later start":
            rig.tell(m.SpeakStarted(m.Refs((third.upstream_id,))))
    rig.lose()
    rig.reopen()
    assert len(rig.cuts) == 1


@pytest.mark.parametrize(("later_s", "count"), [(0.5, 2), (1.5, 1)])
def test_where_pongs_prove_nothing_an_old_interrupt_is_taken_for_there(pongless, later_s, count):
    rig = pongless
    first = rig.say("u1", 3.0)
    rig.interrupt()
    rig.tell(m.SpeakEnded(m.Refs((first.upstream_id,))))
    rig.run(later_s)
    rig.lose()
    rig.reopen()
    assert len(rig.cuts) == count


def test_an_interrupt_is_answered_although_one_that_it_cut_ended_before_it_went_out_again(rig):
    """Without reports of starts, the end alone proves that the utterance was played."""
    first = rig.say("u1", 0.4)
    rig.say("u2", 2.0)
    rig.acknowledge()
    rig.run(0.1)
    rig.acknowledge()
    interrupt_id = rig.interrupt()
    rig.lose()
    rig.session.socket_opened(rig.now_s)
    rig.tell(m.SpeakEnded(m.Refs((first.upstream_id,))))
    assert rig.story("u1") == ["started", "completed"]
    rig.tell(m.StateUpdated("connected"))
    rig.cleared()
    assert [ended.utterance_id for ended in rig.answer(interrupt_id)] == ["u2"]
