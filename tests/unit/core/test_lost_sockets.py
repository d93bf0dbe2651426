"""Lost sockets: the session reconnects, and speech continues exactly after the confirmed audio."""

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import ReadyTimeout
from liveavatar_gateway.core.events import PoseChanged, Reconnected, StateChanged
from liveavatar_gateway.core.states import EndReason, Outcome, Pose, SessionState


def test_a_lost_socket_makes_a_session_reconnect_and_connected_makes_it_ready(rig):
    ready_at = rig.session.ready_at
    rig.lose()
    assert rig.session.state is SessionState.RECONNECTING
    rig.run(2.5)
    rig.reopen(attempt_count=3)
    assert rig.session.state is SessionState.READY
    assert rig.session.ready_at == ready_at
    assert rig.session.reconnect_count == 1
    assert rig.events[-3:] == [
        StateChanged(SessionState.RECONNECTING, SessionState.READY),
        StateChanged(SessionState.READY, SessionState.RECONNECTING),
        Reconnected(attempt_count=3, gap_s=2.5, resent_bytes=0),
    ]


def test_a_socket_that_says_nothing_is_taken_for_ready_after_three_seconds(rig):
    rig.lose()
    rig.run(1)
    rig.session.socket_opened(rig.now_s)
    rig.run(2.9)
    assert rig.session.state is SessionState.RECONNECTING
    rig.run(0.2)
    assert rig.session.state is SessionState.READY
    (told,) = rig.of(Reconnected)
    assert told.gap_s == pytest.approx(4.0)


def test_a_socket_that_is_lost_again_before_it_is_ready_is_one_gap(rig):
    rig.lose()
    rig.session.socket_opened(rig.now_s, attempt_count=2)
    rig.run(1)
    rig.lose()
    rig.run(10)
    assert rig.session.state is SessionState.RECONNECTING
    rig.reopen(attempt_count=4)
    assert rig.of(Reconnected) == [Reconnected(attempt_count=6, gap_s=11.0, resent_bytes=0)]


def test_a_socket_lost_before_the_avatar_was_ready_leaves_it_all_its_time(make_rig):
    rig = make_rig().connect()
    rig.run(3)
    rig.lose()
    assert rig.session.state is SessionState.RECONNECTING
    rig.session.socket_opened(rig.now_s)
    rig.run(4)
    assert rig.session.state is SessionState.RECONNECTING
    rig.tell(m.StateUpdated("connected"))
    assert rig.session.state is SessionState.READY
    assert rig.session.ready_at is not None
    assert rig.session.pose is Pose.IDLE


def test_an_avatar_that_is_never_ready_ends_the_session_although_its_socket_was_lost(make_rig):
    rig = make_rig().connect()
    rig.lose()
    rig.session.socket_opened(rig.now_s)
    rig.run(21)
    assert rig.session.end_reason is EndReason.UPSTREAM_FAILED
    assert isinstance(rig.session.error, ReadyTimeout)


def test_a_session_that_ends_does_not_reconnect(rig):
    rig.session.end(EndReason.CALLER_ENDED, rig.now_s)
    rig.lose()
    assert rig.session.state is SessionState.ENDING


def test_only_packets_that_were_not_confirmed_go_up_again(rig):
    utterance = rig.say("u1", 5.0)
    rig.acknowledge(2)
    assert rig.packet_s() == [0.4, 1.0, 1.0]
    rig.lose()
    sent = len(rig.packets)
    rig.run(0.5)
    assert len(rig.packets) == sent, "it spoke into a lost socket"
    rig.reopen()
    assert rig.packets[sent] == rig.packets[2]
    (told,) = rig.of(Reconnected)
    assert told.resent_bytes == 1.0 * m.BYTE_RATE
    assert rig.speech.totals.upstream_bytes == sum(len(packet.pcm) for packet in rig.packets)
    rig.acknowledge(1)
    assert rig.speech.confirmed_bytes(utterance) == 2.4 * m.BYTE_RATE


def test_an_ack_before_the_session_is_ready_again_changes_nothing(rig):
    utterance = rig.say("u1", 0.4)
    rig.lose()
    rig.session.socket_opened(rig.now_s)
    rig.tell(m.Appended(m.Refs((utterance.upstream_id,))))
    assert rig.session.state is SessionState.RECONNECTING
    assert rig.speech.confirmed_bytes(utterance) == 0


def test_what_was_confirmed_still_counts_as_lead(rig):
    """LiveAvatar plays without a socket too, so later speech must neither come too early nor count twice."""
    rig.say("u1", 10.0)
    rig.acknowledge()
    lead_s = rig.speech.clock.lead_s(rig.now_s)
    rig.lose()
    assert rig.speech.clock.lead_s(rig.now_s) == lead_s
    rig.reopen()
    assert rig.speech.clock.lead_s(rig.now_s) == lead_s


def test_what_was_not_confirmed_counts_as_lead_once_it_goes_up_again(rig):
    rig.say("u1", 10.0)
    rig.acknowledge(1)
    rig.lose()
    assert rig.speech.clock.lead_s(rig.now_s) == pytest.approx(0.4)
    rig.reopen()
    assert rig.speech.clock.lead_s(rig.now_s) == pytest.approx(2.4)
    assert rig.packet_s()[3:] == [1.0, 1.0]


def test_a_packet_that_was_lost_twice_goes_up_a_third_time_in_its_order(rig):
    rig.say("u1", 2.4)
    rig.acknowledge(1)
    first = rig.packets[1:3]
    rig.lose()
    rig.reopen()
    rig.lose()
    rig.reopen()
    assert rig.packets[3:5] == rig.packets[5:7] == first
    assert [told.resent_bytes for told in rig.of(Reconnected)] == [2.0 * m.BYTE_RATE] * 2


def test_an_end_that_was_not_confirmed_is_said_again_behind_the_audio(rig):
    utterance = rig.say("u1", 0.4)
    end = m.SpeakEnd(utterance.upstream_id)
    assert rig.commands[-1] == end
    rig.acknowledge()
    rig.lose()
    rig.reopen()
    assert rig.commands[-2:] == [end, end]
    assert len(rig.packets) == 1


def test_an_end_that_was_confirmed_is_not_said_again(rig, refs_of):
    utterance = rig.say("u1", 0.4)
    rig.tell(m.Committed(refs_of(utterance.upstream_id)))
    rig.lose()
    rig.reopen()
    assert rig.commands.count(m.SpeakEnd(utterance.upstream_id)) == 1
    assert len(rig.packets) == 1, "a confirmed end confirms all before it"


def test_a_late_or_unasked_confirmation_of_an_end_confirms_nothing(rig):
    first = rig.say("u1", 0.4)
    rig.tell(m.SpeakStarted(m.Refs((first.upstream_id,))), m.SpeakEnded(m.Refs((first.upstream_id,))))
    second = rig.begin("u2")
    rig.receive(second, rig.pcm(0.4))
    rig.tell(
        m.Committed(m.Refs((first.upstream_id,))),
        m.Committed(m.Refs((second.upstream_id,))),
        m.Committed(m.Refs()),
    )
    rig.acknowledge(1)
    rig.lose()
    rig.reopen()
    assert rig.packet_s(second.upstream_id) == [0.4, 0.4]


def test_an_ack_of_a_later_utterance_confirms_all_before_it(rig):
    """The socket keeps the order, so an ack that never came was lost by itself."""
    first = rig.say("u1", 0.4)
    second = rig.say("u2", 0.4)
    rig.run(0.2)
    rig.tell(m.Appended(m.Refs((second.upstream_id,))))
    rig.lose()
    rig.reopen()
    assert rig.packet_s(first.upstream_id) == [0.4]
    assert rig.commands.count(m.SpeakEnd(first.upstream_id)) == 1


def test_an_end_told_to_a_lost_socket_is_concluded_soon(rig):
    utterance = rig.say("u1", 1.4)
    rig.acknowledge()
    rig.tell(m.Committed(m.Refs((utterance.upstream_id,))), m.SpeakStarted(m.Refs((utterance.upstream_id,))))
    rig.run(0.2)
    rig.lose()
    rig.run(3.5)
    ended = rig.end_of("u1")
    assert (ended.outcome, ended.inferred) == (Outcome.COMPLETED, True)
    assert ended.played_s == pytest.approx(1.4)


def test_nothing_is_given_up_while_there_is_no_socket(rig):
    """Then a missing confirmation proves nothing."""
    rig.tell(m.Appended(m.Refs()))
    rig.receive(rig.begin("u1"), rig.pcm(2.4))
    rig.lose()
    rig.run(60)
    assert rig.story("u1") == []
    rig.reopen()
    assert rig.packet_s() == [0.4, 1.0, 1.0] * 2
    rig.run(4)
    assert rig.story("u1") == [], "the deadline for a first sign did not begin anew"
    rig.run(2)
    assert rig.story("u1") == ["failed"]


def test_audio_is_taken_during_a_gap_and_spoken_after_it(rig):
    rig.lose()
    utterance = rig.say("u1", 0.4)
    rig.run(10)
    assert rig.commands == []
    rig.reopen()
    assert rig.packet_s(utterance.upstream_id) == [0.4]


def test_interruptions_that_cut_speech_are_counted(rig):
    rig.interrupt()
    assert rig.speech.totals.interruption_count == 0
    rig.say("u1", 5.0)
    rig.interrupt()
    rig.interrupt()
    rig.cleared()
    assert rig.speech.totals.interruption_count == 1, "the second one had nothing left to cut"
    rig.lose()
    rig.say("u2", 5.0)
    rig.interrupt()
    assert rig.speech.totals.interruption_count == 2


def test_the_wish_to_listen_survives_a_lost_socket(rig):
    rig.session.listen()
    rig.wake()
    assert isinstance(rig.commands[-1], m.ListenStart)
    rig.lose()
    rig.reopen()
    assert [type(command) for command in rig.commands] == [m.ListenStart, m.ListenStart]
    rig.tell(m.PoseUpdated(Pose.LISTENING))
    rig.lose()
    rig.reopen()
    assert len(rig.commands) == 2, "it listens already"


def test_the_wish_to_stop_listening_survives_a_lost_socket(rig):
    rig.session.listen()
    rig.wake()
    rig.tell(m.PoseUpdated(Pose.LISTENING))
    rig.lose()
    rig.session.stop_listening()
    rig.wake()
    assert len(rig.commands) == 1
    rig.reopen()
    assert isinstance(rig.commands[-1], m.ListenStop)


def test_a_keep_alive_of_a_lost_socket_is_forgotten(rig):
    rig.session.keep_alive()
    rig.lose()
    rig.session.keep_alive()
    rig.reopen()
    assert rig.commands == []


def test_a_fresh_avatar_in_place_of_a_lost_one_has_its_own_limit_and_time_to_get_ready(make_rig):
    rig = make_rig().ready(max_duration_s=100)
    rig.run(90)
    rig.lose()
    rig.session.replaced(max_duration_s=200, now_s=rig.now_s)
    rig.session.socket_opened(rig.now_s)
    rig.run(4)
    assert rig.session.state is SessionState.RECONNECTING, "a fresh avatar needs longer than three seconds"
    rig.tell(m.StateUpdated("connected"))
    assert rig.of(Reconnected) == [Reconnected(attempt_count=1, gap_s=4.0, resent_bytes=0, replaced=True)]
    rig.run(180)
    assert not rig.session.over
    rig.run(30)
    assert rig.session.end_reason is EndReason.MAX_DURATION
    assert [change.pose for change in rig.of(PoseChanged)] == [Pose.IDLE]


def test_a_fresh_avatar_without_a_limit_never_expires(make_rig):
    rig = make_rig().ready(max_duration_s=100)
    rig.lose()
    rig.session.replaced(max_duration_s=None, now_s=rig.now_s)
    rig.reopen()
    rig.run(1_000)
    assert not rig.session.over


def test_a_fresh_avatar_in_place_of_one_that_listened_is_asked_to_listen_too(rig):
    rig.session.listen()
    rig.wake()
    rig.tell(m.PoseUpdated(Pose.LISTENING))
    rig.lose()
    rig.session.replaced(max_duration_s=None, now_s=rig.now_s)
    assert rig.session.pose is Pose.IDLE
    rig.reopen()
    assert [type(command) for command in rig.commands] == [m.ListenStart, m.ListenStart]


def test_it_is_known_since_when_the_avatar_hears(rig):
    rig.run(1)
    assert rig.session.heard_since_s == rig.now_s - 1
    rig.lose()
    assert rig.session.heard_since_s is None
    rig.session.socket_opened(rig.now_s)
    assert rig.session.heard_since_s is None, "an open socket is not readiness"
    rig.tell(m.StateUpdated("connected"))
    assert rig.session.heard_since_s == rig.now_s


def test_a_late_start_without_a_name_ends_nothing_of_which_the_rest_goes_up_again(make_rig):
    """The report belongs to the earlier utterance, whose start was inferred a moment before."""
    rig = make_rig(scheduler={"queue_lead_s": 3.0}).ready()
    first, second = rig.say("u1", 0.7), rig.say("u2", 0.4)
    rig.run(1.0)
    assert rig.packets[-1].event_id == second.upstream_id
    rig.tell(m.Appended(m.Refs()))
    rig.lose()
    rig.session.socket_opened(rig.now_s)
    rig.run(1.0)
    rig.tell(m.SpeakStarted(m.Refs(("minted",))))
    assert rig.story("u1") == ["started"]
    assert rig.story("u2") == []
    rig.tell(m.StateUpdated("connected"))
    assert rig.sent(first.upstream_id)[-len(rig.pcm(0.3)) :] == rig.pcm(0.3)
