"""Repeats after a lost socket: in order, bounded, and never without proof of a loss."""

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.states import Outcome, Pose


def order(rig):
    """Return the ids of the sent packets' utterances, in order, without equal neighbours."""
    ids = [packet.event_id for packet in rig.packets]
    return [one for number, one in enumerate(ids) if number == 0 or ids[number - 1] != one]


def prove(rig):
    """Answer the ping after the latest command."""
    rig.tell(m.PongReceived(rig.speech.sent_count))


@pytest.fixture
def acks_only(rig):
    """Acknowledge packets and answer pings."""
    rig.say("first", 0.4)
    rig.acknowledge()
    rig.run(1.1)
    prove(rig)
    rig.run(6.0)
    assert rig.story("first") == ["started", "completed"]
    return rig


def test_an_utterance_begins_when_all_before_it_is_confirmed(acks_only):
    first, second = acks_only.say("u1", 0.5), acks_only.say("u2", 0.5)
    assert first.upstream_id in order(acks_only)
    assert second.upstream_id not in order(acks_only)
    acks_only.acknowledge()
    acks_only.run(0.2)
    assert order(acks_only)[-2:] == [first.upstream_id, second.upstream_id]


def test_no_word_goes_out_again_behind_a_later_utterance(acks_only):
    """Acks are lost and pongs count after a second alone, so the lost socket takes both proofs with it."""
    first, second = acks_only.say("u1", 0.5), acks_only.say("u2", 0.5)
    prove(acks_only)
    acks_only.run(0.9)
    acks_only.lose()
    acks_only.reopen()
    acks_only.acknowledge()
    acks_only.run(0.5)
    assert order(acks_only)[-2:] == [first.upstream_id, second.upstream_id]
    assert order(acks_only).count(first.upstream_id) == 1


def test_where_liveavatar_confirms_nothing_an_utterance_ends_with_the_next_one_and_is_not_said_behind_it(rig):
    first = rig.say("u1", 0.3)
    rig.tell(m.SpeakStarted(m.Refs((first.upstream_id,))))
    second = rig.say("u2", 0.3)
    rig.lose()
    rig.reopen()
    assert order(rig) == [first.upstream_id, second.upstream_id]
    rig.run(20)
    assert rig.end_of("u1").outcome is rig.end_of("u2").outcome is Outcome.COMPLETED


@pytest.mark.parametrize("confirms", ["acks", "pongs"])
def test_no_more_than_five_seconds_go_out_a_second_time(make_rig, confirms):
    rig = make_rig({"silence_timeout_s": 5.0}).ready()
    utterance = rig.begin("u")
    rig.receive(utterance, rig.pcm(28.0))
    rig.tell(m.Appended(m.Refs((utterance.upstream_id,))) if confirms == "acks" else m.PongReceived(1))
    rig.run(4.9)
    sent_s = sum(rig.packet_s())
    rig.lose()
    rig.reopen()
    assert 4.0 <= sum(rig.packet_s()) - sent_s <= 5.0


def test_audio_goes_on_as_soon_as_what_is_on_its_way_is_confirmed(make_rig):
    rig = make_rig({"silence_timeout_s": 5.0}).ready()
    utterance = rig.begin("u")
    rig.receive(utterance, rig.pcm(28.0))
    rig.tell(m.PongReceived(1))
    rig.run(4.9)
    sent_s = sum(rig.packet_s())
    prove(rig)
    assert sum(rig.packet_s()) > sent_s


# --- missing proof of a loss


def test_after_the_last_packet_what_is_not_acknowledged_is_asked_for_once_and_a_pong_proves_it(acks_only):
    """A single ack is lost, and the source pauses."""
    utterance = acks_only.begin("u")
    acks_only.receive(utterance, acks_only.pcm(0.6))
    acks_only.run(0.5)
    acks_only.acknowledge(1)
    probes = [one for one in acks_only.commands if isinstance(one, m.Probe)]
    prove(acks_only)
    acks_only.run(1.5)
    assert len([one for one in acks_only.commands if isinstance(one, m.Probe)]) == len(probes) + 1
    prove(acks_only)
    assert not utterance.delivery.unconfirmed
    acks_only.run(14)
    assert not acks_only.is_silent_at(acks_only.now_s)


def test_an_utterance_whose_acks_stop_for_good_ends_by_the_playout_clock(acks_only):
    utterance = acks_only.say("u", 2.0)
    acks_only.acknowledge(1)
    for _ in range(80):
        acks_only.run(0.1)
        prove(acks_only)
        assert not acks_only.is_silent_at(acks_only.now_s)
    assert acks_only.end_of("u") == UtteranceEnded("u", Outcome.COMPLETED, 2.0, inferred=True)
    assert acks_only.sent(utterance.upstream_id) == acks_only.pcm(2.0)


def test_an_utterance_goes_out_again_once_without_proof_where_no_pongs_ever_come(make_rig):
    rig = make_rig({"silence_timeout_s": 5.0}).ready()
    utterance = rig.say("u", 2.0)
    rig.acknowledge(1)
    rounds = 0
    for _ in range(400):
        rig.now_s += 0.1
        rig.wake()
        if rig.is_silent_at(rig.now_s):
            rounds += 1
            rig.lose()
            rig.reopen()
    assert rounds == 1
    assert rig.end_of("u").outcome is Outcome.COMPLETED
    assert len(rig.sent(utterance.upstream_id)) <= 2 * len(rig.pcm(2.0))


def test_an_open_utterance_that_went_out_again_once_stays_open_and_takes_more(make_rig):
    rig = make_rig({"silence_timeout_s": 5.0}).ready()
    utterance = rig.begin("u")
    rig.receive(utterance, rig.pcm(2.0))
    rig.acknowledge(1)
    rounds = 0
    for _ in range(200):
        rig.now_s += 0.1
        rig.wake()
        if rig.is_silent_at(rig.now_s):
            rounds += 1
            rig.lose()
            rig.reopen()
    assert rounds == 1
    assert rig.story("u") == ["started"]
    assert utterance.confirmed == utterance.cut == len(rig.pcm(2.0))
    rig.receive(utterance, rig.pcm(0.4, fill=2))
    assert rig.packets[-1].pcm == rig.pcm(0.4, fill=2)


# --- stuck sockets


def test_nothing_is_concluded_while_the_socket_takes_nothing(rig):
    """Late pongs prove nothing, so the send buffer alone shows the stuck socket."""
    first = rig.say("u1", 0.4)
    rig.tell(m.SpeakStarted(m.Refs((first.upstream_id,))))
    for _ in range(20):
        rig.now_s += 0.5
        rig.session.tick(rig.now_s, is_stuck=True)
        rig.session.drain(rig.now_s)
    assert rig.story("u1") == ["started"]
    rig.run(1.0)
    assert rig.story("u1") == ["started"], "LiveAvatar had no time to say it"
    rig.run(10.0)
    assert rig.end_of("u1").outcome is Outcome.COMPLETED


def test_a_send_that_took_long_gives_liveavatar_its_time_anew(rig):
    first = rig.say("u1", 0.4)
    rig.begin("u2")
    rig.tell(m.SpeakStarted(m.Refs((first.upstream_id,))))
    rig.now_s += 8.0
    rig.session.note_stall(rig.now_s)
    rig.wake()
    assert rig.story("u1") == ["started"], "LiveAvatar had no time to say it"
    rig.run(10.0)
    assert rig.end_of("u1").outcome is Outcome.COMPLETED


def test_what_liveavatar_did_not_read_goes_over_another_socket_before_it_fails(make_rig):
    rig = make_rig({"silence_timeout_s": 5.0}).ready()
    first = rig.say("first", 0.4)
    prove(rig)
    rig.tell(m.SpeakStarted(m.Refs((first.upstream_id,))), m.SpeakEnded(m.Refs((first.upstream_id,))))
    rig.say("u", 2.0)
    rig.run(6.9)
    assert rig.story("u") == []
    rig.now_s += 0.6
    assert rig.is_silent_at(rig.now_s)
    rig.lose()
    rig.reopen()
    prove(rig)
    rig.run(16.0)
    assert rig.story("u") == ["started", "completed"]


# --- lost ends


@pytest.fixture
def said_twice(rig):
    """Rig whose LiveAvatar has an utterance twice: it played the first, and the end of the second is in flight."""
    first = rig.say("u1", 0.1)
    rig.lose()
    rig.reopen()
    refs = m.Refs((first.upstream_id,))
    rig.tell(m.SpeakStarted(refs), m.SpeakEnded(refs))
    assert rig.story("u1") == ["started", "completed"]
    return m.SpeakEnd(first.upstream_id)


@pytest.mark.parametrize("losses", [1, 2])
def test_the_end_of_what_was_said_twice_goes_out_again_before_what_follows(rig, said_twice, losses):
    """An avatar with a repeated utterance waits for its end, and would not play later speech."""
    second = rig.say("u2", 0.1)
    for _ in range(losses):
        rig.lose()
        rig.commands.clear()
        rig.reopen()
    speech = [one for one in rig.commands if isinstance(one, m.Speak | m.SpeakEnd)]
    assert [one.event_id for one in speech] == [said_twice.event_id, second.upstream_id, second.upstream_id]
    assert speech[0] == said_twice


@pytest.mark.parametrize("proof", ["pong", "ack", "interrupt"])
def test_the_end_of_what_was_said_twice_does_not_go_out_again_once_it_is_not_needed(rig, said_twice, proof):
    if proof == "interrupt":
        rig.say("u2", 0.1)
        rig.interrupt()
        rig.cleared()
    else:
        refs = m.Refs((said_twice.event_id,))
        rig.tell(m.PongReceived(rig.speech.sent_count) if proof == "pong" else m.Committed(refs))
    rig.lose()
    rig.commands.clear()
    rig.reopen()
    assert said_twice not in rig.commands


# --- lost interrupts


def test_a_late_start_of_cut_speech_is_no_proof_that_the_interrupt_arrived(acks_only):
    """LiveAvatar reads slowly: it starts the interrupted utterance while the interrupt is in flight."""
    acks_only.say("u1", 2.0)
    acks_only.interrupt()
    acks_only.run(1.1)
    second = acks_only.say("u2", 2.0)
    acks_only.tell(m.PoseUpdated(Pose.TALKING))
    assert acks_only.story("u2") == []
    acks_only.lose()
    acks_only.reopen()
    assert acks_only.commands[-1] == acks_only.cuts[0]
    acks_only.cleared()
    assert acks_only.packets[-1].event_id == second.upstream_id
