"""Confirmations: acks, pongs, the order of the socket, and the meaning of silence."""

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import UpstreamStalled
from liveavatar_gateway.core.events import UtteranceStarted
from liveavatar_gateway.core.states import Outcome, Pose


@pytest.fixture
def again(rig):
    """Lose the socket, and return the lengths of the packets that are sent again."""

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
    rig.tell(m.PongReceived(2))
    assert again() == [1.0]


def test_sent_bytes_are_those_that_pongs_confirm_where_no_ack_comes(rig):
    utterance = speak(rig, 2.4)
    rig.tell(m.SpeakStarted(m.Refs((utterance.upstream_id,))))
    assert rig.speech.confirmed_bytes(utterance) == 2.4 * m.BYTE_RATE
    rig.tell(m.PongReceived(2))
    assert rig.speech.confirmed_bytes(utterance) == 1.4 * m.BYTE_RATE


def test_a_pong_confirms_an_end_too(rig, again):
    utterance = rig.say("u1", 0.4)
    rig.tell(m.PongReceived(1))
    assert again() == []
    assert rig.commands.count(m.SpeakEnd(utterance.upstream_id)) == 2
    rig.tell(m.PongReceived(3))
    assert again() == []
    assert rig.commands.count(m.SpeakEnd(utterance.upstream_id)) == 2


def test_a_pong_confirms_no_more_than_acks_do_where_acks_come(rig, again):
    """A pong proves that a packet was read; the avatar may not have accepted the packet yet."""
    speak(rig, 2.4)
    rig.acknowledge(1)
    rig.tell(m.PongReceived(3))
    assert again() == [1.0, 1.0]


def test_a_pong_confirms_what_was_sent_a_second_ago_although_its_ack_never_came(rig, again):
    speak(rig, 2.4)
    rig.acknowledge(1)
    rig.run(1.1)
    rig.tell(m.PongReceived(2))
    assert again() == [1.0]


def test_the_ack_of_a_packet_that_is_known_to_be_there_confirms_no_other(rig, again):
    speak(rig, 2.4)
    rig.acknowledge(1)
    rig.run(1.1)
    rig.tell(m.PongReceived(2))
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
    rig.tell(m.SpeakStarted(m.Refs((utterance.upstream_id,))), m.PongReceived(1))
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
    assert rig.session._deadline_s <= rig.now_s + 5.0
    assert not rig.is_silent_at(rig.now_s + 4.9)
    assert rig.is_silent_at(rig.now_s + 5.0)
    rig.lose()
    assert not rig.is_silent_at(rig.now_s + 60), "without a socket silence means nothing"


@pytest.mark.parametrize("proof", ["ack", "pong"])
def test_a_socket_over_which_all_is_confirmed_is_not_dead_however_long_nothing_comes(make_rig, proof):
    rig = make_rig({"silence_timeout_s": 5.0}).ready()
    rig.receive(rig.begin(), rig.pcm(1.4))
    rig.acknowledge(1)
    rig.run(1.1)
    rig.tell(m.PongReceived(2)) if proof == "pong" else rig.acknowledge(1)
    assert not rig.is_silent_at(rig.now_s + 60)


def test_a_socket_over_which_no_ack_ever_came_is_not_taken_for_dead(make_rig):
    rig = make_rig({"silence_timeout_s": 5.0}).ready()
    rig.receive(rig.begin(), rig.pcm(1.4))
    rig.tell(m.PongReceived(1))
    assert not rig.is_silent_at(rig.now_s + 60)


# --- acks


def appended(*ids):
    return m.Appended(m.Refs(ids))


def test_acks_confirm_packets_in_the_order_they_were_sent(rig):
    utterance = rig.say("u", 3)
    rig.tell(appended(utterance.upstream_id), appended(), appended("minted"))
    assert utterance.confirmed == 2.4 * m.BYTE_RATE


def test_an_ack_without_an_id_goes_to_the_oldest_packet_without_one(rig):
    first, second = rig.say("a", 0.4), rig.say("b", 0.4)
    rig.tell(appended(), appended())
    assert (first.confirmed, second.confirmed) == (19_200, 19_200)


def test_an_ack_too_many_confirms_nothing_that_was_not_sent(rig):
    utterance = rig.say("u", 10)
    for _ in range(9):
        rig.tell(appended(utterance.upstream_id))
    assert utterance.confirmed == utterance.cut == 2.4 * m.BYTE_RATE


# --- neither ack nor pong


def test_what_neither_ack_nor_pong_confirms_goes_up_again_however_long_ago_it_was_sent(rig):
    """Every WebSocket server answers pings, so packets without a pong were not read."""
    utterance = rig.say("u1", 1.4)
    rig.run(4)
    rig.lose()
    rig.reopen()
    assert rig.packet_s() == [0.4, 1.0] * 2
    assert rig.commands.count(m.SpeakEnd(utterance.upstream_id)) == 2


def test_what_plays_without_a_pong_shows_that_missing_pongs_prove_nothing(pongless):
    rig = pongless
    utterance = rig.begin("u1")
    rig.receive(utterance, rig.pcm(0.4))
    rig.run(0.2)
    rig.receive(utterance, rig.pcm(0.2))
    rig.run(0.85)
    assert rig.packet_s() == pytest.approx([0.4, 0.2])
    rig.lose()
    rig.reopen()
    assert rig.packet_s() == pytest.approx([0.4, 0.2, 0.2]), "audio that was sent a second ago counts as received"


def test_where_pongs_prove_nothing_an_utterance_has_time_for_what_is_said_twice_before_it(pongless):
    """LiveAvatar may have had the audio before, and then plays the repeats first."""
    rig = pongless
    rig.run(2)
    rig.say("u1", 3.0)
    for _ in range(2):
        rig.run(0.3)
        rig.lose()
        rig.reopen()
    second = rig.say("u2", 0.3)
    rig.run(14)
    assert rig.story("u1")[-1] == "completed"
    assert "failed" not in rig.story("u2")
    refs = m.Refs((second.upstream_id,))
    rig.tell(m.SpeakStarted(refs), m.SpeakEnded(refs))
    assert rig.story("u2") == ["started", "completed"]


def test_where_pongs_prove_nothing_an_end_is_said_again_only_within_a_second(pongless):
    rig = pongless
    first = rig.say("u1", 2.4)
    rig.run(1.5)
    second = rig.say("u2", 0.4)
    rig.run(0.6)
    assert rig.sealed(second.upstream_id)
    rig.lose()
    rig.reopen()
    assert rig.commands.count(m.SpeakEnd(first.upstream_id)) == 1
    assert rig.commands.count(m.SpeakEnd(second.upstream_id)) == 2
    assert rig.packet_s(second.upstream_id) == [0.4, 0.4]


def test_a_start_over_a_fresh_socket_says_nothing_about_pongs(rig):
    """LiveAvatar may have read repeated audio the first time."""
    utterance = rig.say("u1", 2.4)
    rig.lose()
    rig.reopen()
    rig.tell(m.SpeakStarted(m.Refs((utterance.upstream_id,))))
    rig.run(1.5)
    rig.lose()
    rig.reopen()
    assert rig.packet_s() == [0.4, 1.0, 1.0] * 3


def test_without_acks_a_start_that_a_lost_socket_swallowed_is_concluded(rig):
    rig.say("u1", 8.0)
    rig.tell(m.PongReceived(rig.speech.sent_count))
    rig.run(0.1)
    rig.lose()
    rig.reopen()
    rig.run(2)
    assert rig.of(UtteranceStarted) == [UtteranceStarted("u1", inferred=True)]
    for _ in range(30):
        rig.run(1)
        rig.tell(m.PongReceived(rig.speech.sent_count))
    assert rig.end_of("u1").outcome is Outcome.COMPLETED


def test_without_acks_the_utterance_whose_start_was_taken_for_that_of_the_one_before_does_not_fail(rig):
    """The lost socket had the earlier start, and starts carry no references."""
    rig.say("u1", 0.1)
    rig.lose()
    rig.reopen()
    rig.say("u2", 0.1)
    rig.tell(m.PongReceived(rig.speech.sent_count))
    rig.run(0.3)
    rig.tell(m.SpeakStarted(m.Refs()), m.PongReceived(rig.speech.sent_count), m.SpeakEnded(m.Refs()))
    assert rig.story("u1") == ["started", "completed"]
    rig.run(8.0)
    assert rig.story("u2") == ["started", "completed"]


def test_no_end_is_concluded_of_what_was_not_read(rig):
    """After an overdue end the socket counts as dead, and missing audio is sent over another socket."""
    utterance = rig.say("u1", 2.4)
    rig.tell(m.PongReceived(2), m.SpeakStarted(m.Refs((utterance.upstream_id,))))
    rig.run(7.0)
    assert not rig.is_silent_at(rig.now_s)
    rig.now_s += 1.0
    rig.session.tick(rig.now_s)
    assert rig.is_silent_at(rig.now_s)
    assert rig.story("u1") == ["started"]
    rig.lose()
    rig.reopen()
    assert rig.packet_s() == [0.4, 1.0, 1.0, 1.0]
    rig.tell(m.PongReceived(rig.speech.sent_count), m.SpeakEnded(m.Refs((utterance.upstream_id,))))
    assert rig.story("u1") == ["started", "completed"]


def test_what_is_not_read_over_a_second_socket_either_fails(rig):
    utterance = rig.say("u1", 2.4)
    rig.tell(m.PongReceived(2), m.SpeakStarted(m.Refs((utterance.upstream_id,))))
    rig.now_s += 8.0
    rig.lose()
    rig.reopen()
    rig.now_s += 8.0
    rig.wake()
    assert rig.story("u1") == ["started", "failed"]
    assert isinstance(rig.end_of("u1").error, UpstreamStalled)


def test_an_idle_pose_ends_nothing_of_which_the_end_was_not_read(rig):
    """The avatar ran dry, and has yet to play the audio that it did not read."""
    utterance = rig.say("u1", 1.4)
    rig.tell(m.PongReceived(1), m.SpeakStarted(m.Refs((utterance.upstream_id,))))
    rig.run(1.0)
    rig.tell(m.PoseUpdated(Pose.IDLE))
    assert rig.story("u1") == ["started"]
    rig.tell(m.PongReceived(3), m.PoseUpdated(Pose.TALKING))
    rig.run(0.5)
    rig.tell(m.PoseUpdated(Pose.IDLE))
    assert rig.story("u1") == ["started", "completed"]


def test_audio_that_is_never_read_is_kept_for_half_a_minute(make_rig):
    rig = make_rig().ready()
    utterance = rig.begin("u1")
    rig.receive(utterance, rig.pcm(1.4))
    rig.tell(m.PongReceived(1), m.SpeakStarted(m.Refs((utterance.upstream_id,))))
    rig.run(29)
    rig.lose()
    rig.reopen()
    assert rig.packet_s() == [0.4, 1.0, 1.0]
    rig.run(31)
    rig.lose()
    rig.reopen()
    assert rig.packet_s() == [0.4, 1.0, 1.0]
