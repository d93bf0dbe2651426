"""A lost socket: the session reconnects, and speech goes on exactly behind what LiveAvatar confirmed."""

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import ReadyTimeout, UpstreamStalled
from liveavatar_gateway.core.events import PoseChanged, Reconnected, StateChanged, UtteranceStarted
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
    assert rig.happenings[-3:] == [
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
    assert rig.speech.sent_bytes(utterance) == 2.4 * m.BYTE_RATE


def test_an_ack_before_the_session_is_ready_again_changes_nothing(rig):
    utterance = rig.say("u1", 0.4)
    rig.lose()
    rig.session.socket_opened(rig.now_s)
    rig.tell(m.Appended(m.Refs((utterance.upstream_id,))))
    assert rig.session.state is SessionState.RECONNECTING
    assert rig.speech.sent_bytes(utterance) == 0


def test_what_was_confirmed_still_counts_as_lead(rig):
    """LiveAvatar plays on without a socket: speech must not come too early, nor count twice."""
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
    """The socket keeps the order, so an ack that never came was merely lost."""
    first = rig.say("u1", 0.4)
    second = rig.say("u2", 0.4)
    rig.run(0.2)
    rig.tell(m.Appended(m.Refs((second.upstream_id,))))
    rig.lose()
    rig.reopen()
    assert rig.packet_s(first.upstream_id) == [0.4]
    assert rig.commands.count(m.SpeakEnd(first.upstream_id)) == 1


@pytest.fixture
def pongless(rig):
    """An avatar that plays what it confirms neither by ack nor by pong, against the WebSocket standard."""
    first = rig.say("first", 0.4)
    refs = m.Refs((first.upstream_id,))
    rig.tell(m.SpeakStarted(refs))
    rig.run(0.6)
    rig.tell(m.SpeakEnded(refs))
    rig.commands.clear()
    return rig


def test_what_neither_ack_nor_pong_confirms_goes_up_again_however_long_ago_it_was_sent(rig):
    """Every WebSocket server answers pings: what it did not answer, it did not read."""
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
    assert rig.packet_s() == pytest.approx([0.4, 0.2, 0.2]), "what was sent a second ago is taken for there"


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
    """What went up twice may have been read the first time."""
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
    rig.tell(m.Read(rig.speech.sent_count))
    rig.run(0.1)
    rig.lose()
    rig.reopen()
    rig.run(2)
    assert rig.of(UtteranceStarted) == [UtteranceStarted("u1", inferred=True)]
    for _ in range(30):
        rig.run(1)
        rig.tell(m.Read(rig.speech.sent_count))
    assert rig.end_of("u1").outcome is Outcome.COMPLETED


def test_no_end_is_concluded_of_what_was_not_read(rig):
    """When the end is overdue the socket is taken for dead, and what is missing goes over another."""
    utterance = rig.say("u1", 2.4)
    rig.tell(m.Read(2), m.SpeakStarted(m.Refs((utterance.upstream_id,))))
    rig.run(7.0)
    assert not rig.session.is_deaf(rig.now_s)
    rig.now_s += 1.0
    rig.session.tick(rig.now_s)
    assert rig.session.is_deaf(rig.now_s)
    assert rig.story("u1") == ["started"]
    rig.lose()
    rig.reopen()
    assert rig.packet_s() == [0.4, 1.0, 1.0, 1.0]
    rig.tell(m.Read(rig.speech.sent_count), m.SpeakEnded(m.Refs((utterance.upstream_id,))))
    assert rig.story("u1") == ["started", "completed"]


def test_what_is_not_read_over_a_second_socket_either_fails(rig):
    utterance = rig.say("u1", 2.4)
    rig.tell(m.Read(2), m.SpeakStarted(m.Refs((utterance.upstream_id,))))
    rig.now_s += 8.0
    rig.lose()
    rig.reopen()
    rig.now_s += 8.0
    rig.wake()
    assert rig.story("u1") == ["started", "failed"]
    assert isinstance(rig.end_of("u1").error, UpstreamStalled)


def test_an_idle_pose_ends_nothing_of_which_the_end_was_not_read(rig):
    """The avatar ran dry: what it has not read yet is still to be heard."""
    utterance = rig.say("u1", 1.4)
    rig.tell(m.Read(1), m.SpeakStarted(m.Refs((utterance.upstream_id,))))
    rig.run(1.0)
    rig.tell(m.PoseUpdated(Pose.IDLE))
    assert rig.story("u1") == ["started"]
    rig.tell(m.Read(3), m.PoseUpdated(Pose.TALKING))
    rig.run(0.5)
    rig.tell(m.PoseUpdated(Pose.IDLE))
    assert rig.story("u1") == ["started", "completed"]


def test_audio_that_is_never_read_is_kept_for_half_a_minute(make_rig):
    rig = make_rig().ready()
    utterance = rig.begin("u1")
    rig.receive(utterance, rig.pcm(1.4))
    rig.tell(m.Read(1), m.SpeakStarted(m.Refs((utterance.upstream_id,))))
    rig.run(29)
    rig.lose()
    rig.reopen()
    assert rig.packet_s() == [0.4, 1.0, 1.0]
    rig.run(31)
    rig.lose()
    rig.reopen()
    assert rig.packet_s() == [0.4, 1.0, 1.0]


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
    """Silence proves nothing then."""
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


def test_an_interrupt_that_was_not_answered_goes_first_again(rig):
    rig.say("u1", 5.0)
    rig.acknowledge(1)
    ticket = rig.interrupt()
    rig.say("u2", 0.4)
    rig.lose()
    rig.run(20)
    assert rig.answer(ticket) is None
    rig.reopen()
    assert rig.commands[-2:] == [rig.cuts[0], rig.cuts[0]]
    assert rig.of(Reconnected)[0].resent_bytes == 0, "cut audio never goes up again"
    rig.cleared()
    assert [ended.utterance_id for ended in rig.answer(ticket)] == ["u1"]
    assert len(rig.sent(rig.packets[-1].event_id)) == 0.4 * m.BYTE_RATE, "new speech waited for the answer"


def test_an_interrupt_during_a_gap_goes_up_when_there_is_a_socket(rig):
    rig.say("u1", 5.0)
    rig.lose()
    ticket = rig.interrupt()
    assert rig.cuts == []
    rig.reopen()
    assert rig.commands[-1] == rig.cuts[0]
    rig.cleared()
    assert [ended.outcome for ended in rig.answer(ticket)] == [Outcome.INTERRUPTED]


def test_an_interrupt_of_what_is_not_upstream_is_answered_at_once_during_a_gap(rig):
    rig.lose()
    rig.say("u1", 5.0)
    assert [ended.utterance_id for ended in rig.answer(rig.interrupt())] == ["u1"]


def test_an_interrupt_that_may_have_been_carried_out_is_sent_again_although_its_target_ended(rig):
    """What waited behind it may be gone upstream, and is spoken again."""
    first, second = rig.say("u1", 0.4), rig.say("u2", 2.0)
    rig.acknowledge()
    rig.tell(m.SpeakStarted(m.Refs((first.upstream_id,))))
    rig.run(0.1)
    rig.acknowledge()
    ticket = rig.interrupt("u1")
    rig.lose()
    rig.tell(m.SpeakEnded(m.Refs((first.upstream_id,))))
    rig.reopen()
    assert len(rig.cuts) == 2
    rig.cleared()
    assert rig.answer(ticket) is not None
    rig.run(5)
    assert len(rig.sent(second.upstream_id)) == 2.0 * m.BYTE_RATE
    assert second.upstream_id == rig.packets[-1].event_id


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


def test_an_utterance_is_found_by_its_upstream_id_while_it_lives(rig):
    utterance = rig.say("u1", 0.4)
    assert rig.speech.find(utterance.upstream_id) is utterance
    rig.tell(m.SpeakStarted(m.Refs()), m.SpeakEnded(m.Refs()))
    assert rig.speech.find(utterance.upstream_id) is None


@pytest.fixture
def cut_by_itself(rig):
    """A barge-in whose target ended by itself just then, which looks like what the interrupt did."""
    first, second = rig.say("u1", 0.4), rig.say("u2", 2.0)
    rig.acknowledge()
    rig.run(0.1)
    rig.tell(m.SpeakStarted(m.Refs((first.upstream_id,))))
    rig.acknowledge()
    ticket = rig.interrupt()
    rig.tell(m.SpeakEnded(m.Refs((first.upstream_id,))))
    assert {ended.utterance_id for ended in rig.answer(ticket)} == {"u1", "u2"}
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
            rig.tell(m.Read(rig.speech.sent_count))
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
