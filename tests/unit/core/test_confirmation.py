"""How LiveAvatar proves what it has: acks, pongs, or the order of things; and what silence means."""

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import UpstreamStalled
from liveavatar_gateway.core.states import Outcome, Pose


@pytest.fixture
def again(rig):
    """Loses the socket, and returns how long the packets are that go out again."""

    def lose() -> list[float]:
        before = len(rig.packets)
        rig.lose()
        rig.reopen()
        return rig.packet_s()[before:]

    return lose


def speak(rig, seconds):
    utterance = rig.begin()
    rig.receive(utterance, rig.pcm(seconds))
    return utterance


def test_a_pong_confirms_what_went_out_before_its_ping_where_no_ack_comes(rig, again):
    speak(rig, 2.4)
    rig.tell(m.Read(2))
    assert again() == [1.0]


def test_sent_bytes_are_those_that_pongs_confirm_where_no_ack_comes(rig):
    utterance = speak(rig, 2.4)
    rig.tell(m.SpeakStarted(m.Refs((utterance.upstream_id,))))
    assert rig.speech.sent_bytes(utterance) == 2.4 * m.BYTE_RATE
    rig.tell(m.Read(2))
    assert rig.speech.sent_bytes(utterance) == 1.4 * m.BYTE_RATE


def test_a_pong_confirms_an_end_too(rig, again):
    utterance = rig.say("u1", 0.4)
    rig.tell(m.Read(1))
    assert again() == []
    assert rig.commands.count(m.SpeakEnd(utterance.upstream_id)) == 2
    rig.tell(m.Read(3))
    assert again() == []
    assert rig.commands.count(m.SpeakEnd(utterance.upstream_id)) == 2


def test_a_pong_confirms_no_more_than_acks_do_where_acks_come(rig, again):
    """It proves that a packet was read; the avatar may not have taken it yet."""
    speak(rig, 2.4)
    rig.acknowledge(1)
    rig.tell(m.Read(3))
    assert again() == [1.0, 1.0]


def test_a_pong_confirms_what_was_sent_a_second_ago_although_its_ack_never_came(rig, again):
    speak(rig, 2.4)
    rig.acknowledge(1)
    rig.run(1.1)
    rig.tell(m.Read(2))
    assert again() == [1.0]


def test_the_ack_of_a_packet_that_is_known_to_be_there_confirms_no_other(rig, again):
    speak(rig, 2.4)
    rig.acknowledge(1)
    rig.run(1.1)
    rig.tell(m.Read(2))
    rig.acknowledge(1)
    assert again() == [1.0]


def test_more_acks_than_packets_confirm_nothing_in_advance(rig, again):
    utterance = speak(rig, 0.4)
    ack = m.Appended(m.Refs((utterance.upstream_id,)))
    rig.tell(ack, ack, ack)
    rig.receive(utterance, rig.pcm(2.0))
    assert again() == [1.0, 1.0]


def test_acks_of_what_goes_out_again_are_counted_from_there(rig, again):
    speak(rig, 2.4)
    rig.acknowledge(1)
    assert again() == [1.0, 1.0]
    rig.acknowledge(1)
    assert again() == [1.0]


def test_where_pongs_come_late_only_what_is_old_is_taken_for_there(make_rig):
    rig = make_rig({"silence_timeout_s": 5.0}).ready()
    utterance = rig.begin()
    rig.receive(utterance, rig.pcm(2.4))
    rig.tell(m.SpeakStarted(m.Refs((utterance.upstream_id,))), m.Read(1))
    rig.run(4)
    rig.lose()
    rig.reopen()
    assert rig.packet_s()[3:] == [1.0, 1.0]
    rig.run(6)
    rig.lose()
    rig.reopen()
    assert rig.packet_s()[5:] == []


def test_a_socket_over_which_acks_came_and_stop_coming_is_dead_after_five_seconds(make_rig):
    rig = make_rig({"silence_timeout_s": 5.0}).ready()
    rig.receive(rig.begin(), rig.pcm(1.4))
    rig.acknowledge(1)
    assert rig.session.deadline_s <= rig.now_s + 5.0
    assert not rig.session.is_deaf(rig.now_s + 4.9)
    assert rig.session.is_deaf(rig.now_s + 5.0)
    rig.lose()
    assert not rig.session.is_deaf(rig.now_s + 60), "without a socket silence means nothing"


@pytest.mark.parametrize("proof", ["ack", "pong"])
def test_a_socket_over_which_all_is_confirmed_is_not_dead_however_long_nothing_comes(make_rig, proof):
    rig = make_rig({"silence_timeout_s": 5.0}).ready()
    rig.receive(rig.begin(), rig.pcm(1.4))
    rig.acknowledge(1)
    rig.run(1.1)
    rig.tell(m.Read(2)) if proof == "pong" else rig.acknowledge(1)
    assert not rig.session.is_deaf(rig.now_s + 60)


def test_a_socket_over_which_no_ack_ever_came_is_not_taken_for_dead(make_rig):
    rig = make_rig({"silence_timeout_s": 5.0}).ready()
    rig.receive(rig.begin(), rig.pcm(1.4))
    rig.tell(m.Read(1))
    assert not rig.session.is_deaf(rig.now_s + 60)


# --- taken, and never begun


@pytest.fixture
def told(rig):
    """A session in which LiveAvatar has told a start, and confirms everything."""
    first = rig.say("first", 0.4)
    refs = m.Refs((first.upstream_id,))
    rig.acknowledge()
    rig.tell(m.SpeakStarted(refs), m.SpeakEnded(refs))
    return rig


def test_an_utterance_that_was_taken_and_never_begun_is_cut_and_spoken_anew_once(told):
    utterance = told.say("u1", 2.0)
    before = utterance.upstream_id
    told.acknowledge()
    told.run(4.9)
    assert told.story("u1") == []
    told.run(0.2)
    assert len(told.cuts) == 1
    told.cleared()
    assert utterance.upstream_id != before
    assert told.sent(utterance.upstream_id) == told.sent(before) == told.pcm(2.0)
    refs = m.Refs((utterance.upstream_id,))
    told.acknowledge()
    told.tell(m.SpeakStarted(refs), m.SpeakEnded(refs))
    assert told.story("u1") == ["started", "completed"]
    assert told.speech.totals.interruption_count == 0, "nobody was interrupted"


def test_the_second_time_it_fails_and_says_why(told):
    told.say("u1", 2.0)
    told.acknowledge()
    told.run(5.1)
    told.cleared()
    told.acknowledge()
    told.run(5.1)
    ended = told.end_of("u1")
    assert (ended.outcome, ended.played_s) == (Outcome.FAILED, 0.0)
    assert isinstance(ended.error, UpstreamStalled)
    assert len(told.cuts) == 1


def test_an_utterance_in_line_has_its_time_from_its_turn(told):
    first, second = told.say("u1", 3.0), told.say("u2", 0.4)
    told.acknowledge()
    told.tell(m.SpeakStarted(m.Refs((first.upstream_id,))))
    told.run(3.5)
    told.acknowledge()
    told.run(3.0)
    told.tell(m.SpeakEnded(m.Refs((first.upstream_id,))))
    told.run(4.9)
    assert told.cuts == []
    told.tell(m.SpeakStarted(m.Refs((second.upstream_id,))))
    assert told.story("u2") == ["started"]


def test_an_avatar_that_is_seen_talking_is_heard(told):
    """Between two utterances the pose need not change, so it proves little, but enough for this."""
    first = told.say("u1", 0.4)
    told.say("u2", 3.0)
    told.acknowledge()
    told.tell(m.PoseUpdated(Pose.TALKING), m.SpeakEnded(m.Refs((first.upstream_id,))))
    told.run(0.5)
    told.acknowledge()
    told.run(5.2)
    assert told.cuts == []
    assert told.story("u2") == ["started"]


def test_a_start_that_a_lost_socket_may_have_swallowed_is_concluded(told):
    told.say("u1", 3.0)
    told.acknowledge()
    told.lose()
    told.reopen()
    told.run(5.2)
    assert told.cuts == []
    assert told.story("u1")[0] == "started"
