"""State machine of a session: readiness, poses, limits, and one end with its true reason."""

import itertools
from datetime import timedelta

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import ReadyTimeout, SessionEnded, UpstreamUnreachable
from liveavatar_gateway.core.events import Ended, Expiring, PoseChanged, StateChanged, UpstreamNotice
from liveavatar_gateway.core.readiness import ReadinessConfig
from liveavatar_gateway.core.room_events import RoomConnected, ViewersChanged
from liveavatar_gateway.core.room_reports import RoomReports
from liveavatar_gateway.core.states import EndReason, IllegalTransition, Pose, SessionState

CONNECTED = m.StateUpdated("connected")
TALKING, IDLE, LISTENING = (m.PoseUpdated(pose) for pose in (Pose.TALKING, Pose.IDLE, Pose.LISTENING))


def started(utterance) -> m.SpeakStarted:
    return m.SpeakStarted(m.Refs((utterance.upstream_id,)))


def ended(utterance) -> m.SpeakEnded:
    return m.SpeakEnded(m.Refs((utterance.upstream_id,)))


# --- readiness


def test_a_session_is_ready_when_liveavatar_says_connected(make_rig):
    rig = make_rig().connect()
    assert rig.session.state is SessionState.CONNECTING
    rig.tell(m.StateUpdated("new"), m.StateUpdated("connecting"), CONNECTED)
    assert (rig.session.state, rig.session.pose) == (SessionState.READY, Pose.IDLE)
    assert rig.session.ready_at is not None


def test_a_keep_alive_that_waits_is_not_doubled(rig):
    assert rig.session.keep_alive()
    assert rig.session.keep_alive()
    rig.wake()
    assert len(rig.commands) == 1


def test_a_keep_alive_by_another_way_counts_as_a_sign_of_life(rig):
    rig.lose()
    assert not rig.session.keep_alive()
    rig.session.note_kept_alive(rig.now_s + 5)
    rig.session.note_kept_alive(rig.now_s)
    assert rig.session.last_command_at_s == rig.now_s + 5


def test_an_open_socket_is_not_readiness(make_rig):
    """LiveAvatar loses commands before `connected` without an error."""
    rig = make_rig().connect()
    rig.say("u", 1)
    rig.session.listen()
    rig.session.keep_alive()
    rig.run(4.9)
    assert rig.commands == []


def test_nothing_is_sent_before_the_session_is_started(make_rig):
    rig = make_rig()
    rig.session.listen()
    rig.wake()
    assert rig.commands == []
    assert rig.session._deadline_s is None


def test_a_socket_that_never_says_connected_is_probed_and_its_answer_is_readiness(make_rig):
    rig = make_rig().connect()
    rig.run(5.1)
    assert len(rig.cuts) == 1
    rig.cleared()
    assert rig.session.state is SessionState.READY


def test_a_probe_is_repeated_until_it_is_answered(make_rig):
    rig = make_rig().connect()
    rig.run(15.5)
    assert len(rig.cuts) == 3
    rig.tell(UpstreamNotice(error=True, type="invalid_request_error", message=""))
    assert rig.session.state is SessionState.READY


@pytest.mark.parametrize("event", [m.StateUpdated("connecting"), m.Unknown("something.new")])
def test_not_every_event_is_an_answer_to_a_probe(make_rig, event):
    rig = make_rig().connect()
    rig.run(5.1)
    rig.tell(event)
    assert rig.session.state is SessionState.CONNECTING


def test_an_event_before_any_probe_is_no_readiness(make_rig):
    rig = make_rig().connect()
    rig.tell(IDLE)
    assert rig.session.state is SessionState.CONNECTING


def test_a_session_that_does_not_become_ready_in_time_ends(make_rig):
    rig = make_rig(readiness=ReadinessConfig(ready_timeout_s=12.0)).connect()
    rig.run(12.1)
    assert (rig.session.state, rig.session.end_reason) == (SessionState.ENDING, EndReason.UPSTREAM_FAILED)
    assert isinstance(rig.session.error, ReadyTimeout)
    assert rig.session.error.metadata == {"timeout_s": "12.0"}


def test_no_probe_is_sent_once_it_is_ready(rig):
    rig.run(60)
    assert rig.commands == []
    assert rig.session.state is SessionState.READY


def test_connected_again_changes_nothing(rig):
    before = rig.events
    rig.tell(CONNECTED, m.StateUpdated("something-new"))
    assert rig.events == before


def test_a_session_that_connects_before_its_socket_is_told_open_is_not_timed_out(make_rig):
    rig = make_rig()
    rig.session.started(max_duration_s=None, now_s=rig.now_s)
    rig.run(100)
    rig.wake()
    assert rig.session.state is SessionState.CONNECTING


# --- poses


def test_the_pose_follows_liveavatar(rig):
    rig.tell(LISTENING, TALKING, IDLE)
    assert [one.pose for one in rig.of(PoseChanged)] == [Pose.IDLE, Pose.LISTENING, Pose.TALKING, Pose.IDLE]


def test_a_pose_is_told_once(rig):
    rig.tell(LISTENING, LISTENING)
    assert len(rig.of(PoseChanged)) == 2


def test_a_pose_that_is_not_known_changes_nothing(rig):
    rig.tell(m.PoseUpdated(Pose.UNKNOWN))
    assert rig.session.pose is Pose.IDLE


def test_where_no_pose_is_told_speech_makes_it(rig):
    utterance = rig.say("u", 0.4)
    rig.tell(started(utterance))
    assert rig.session.pose is Pose.TALKING
    rig.run(0.4)
    rig.tell(ended(utterance))
    assert rig.session.pose is Pose.IDLE


def test_between_two_utterances_in_line_the_avatar_keeps_talking(rig):
    first, second = rig.say("a", 0.4), rig.say("b", 0.4)
    rig.tell(started(first))
    rig.run(0.4)
    rig.tell(ended(first))
    assert rig.session.pose is Pose.TALKING
    rig.tell(started(second))
    rig.run(0.4)
    rig.tell(ended(second))
    assert rig.session.pose is Pose.IDLE


def test_listening_is_asked_for_at_once_when_the_avatar_is_silent(rig):
    rig.session.listen()
    rig.wake()
    assert [type(command) for command in rig.commands] == [m.ListenStart]
    rig.tell(LISTENING)
    assert rig.session.pose is Pose.LISTENING


def test_listening_waits_for_the_end_of_speech(rig):
    utterance = rig.say("u", 0.4)
    rig.tell(started(utterance))
    rig.session.listen()
    rig.run(0.4)
    assert not any(isinstance(command, m.ListenStart) for command in rig.commands)
    rig.tell(ended(utterance))
    assert isinstance(rig.commands[-1], m.ListenStart)


def test_listening_waits_for_all_utterances_in_line(rig):
    first, second = rig.say("a", 0.4), rig.say("b", 0.4)
    rig.tell(started(first))
    rig.session.listen()
    rig.run(0.4)
    rig.tell(ended(first), IDLE)
    assert not any(isinstance(command, m.ListenStart) for command in rig.commands)
    rig.tell(started(second))
    rig.run(0.4)
    rig.tell(ended(second))
    assert isinstance(rig.commands[-1], m.ListenStart)


def test_listening_again_sends_nothing(rig):
    rig.session.listen()
    rig.wake()
    rig.tell(LISTENING)
    rig.session.listen()
    rig.wake()
    assert len(rig.commands) == 1


def test_stop_listening_goes_back_to_idle(rig):
    rig.session.listen()
    rig.wake()
    rig.tell(LISTENING)
    rig.session.stop_listening()
    rig.wake()
    assert isinstance(rig.commands[-1], m.ListenStop)


def test_stop_listening_before_liveavatar_told_the_pose_is_sent_too(rig):
    """Some builds never report the pose; without ListenStop the avatar would keep it forever."""
    rig.session.listen()
    rig.wake()
    rig.session.stop_listening()
    rig.wake()
    assert [type(command) for command in rig.commands] == [m.ListenStart, m.ListenStop]


def test_stop_listening_takes_back_a_listening_that_waits(rig):
    utterance = rig.say("u", 0.4)
    rig.tell(started(utterance))
    rig.session.listen()
    rig.session.stop_listening()
    rig.run(0.4)
    rig.tell(ended(utterance))
    assert not any(isinstance(command, m.ListenStart | m.ListenStop) for command in rig.commands)


def test_stop_listening_without_listening_sends_nothing(rig):
    rig.session.stop_listening()
    rig.wake()
    assert rig.commands == []


# --- commands


def test_a_keep_alive_goes_out_next_even_in_the_middle_of_speech(rig):
    rig.say("u", 10)
    rig.session.keep_alive()
    rig.wake()
    assert isinstance(rig.commands[-1], m.KeepAlive)


def test_a_keep_alive_is_not_held_by_an_interrupt(rig):
    rig.say("u", 10)
    rig.interrupt()
    rig.session.keep_alive()
    rig.wake()
    assert isinstance(rig.commands[-1], m.KeepAlive)


def test_the_time_of_the_last_command_is_kept(rig):
    rig.run(3)
    rig.session.keep_alive()
    rig.wake()
    assert rig.session.last_command_at_s == rig.now_s
    rig.run(3)
    rig.wake()
    assert rig.session.last_command_at_s == rig.now_s - 3


# --- notices


def test_notices_are_passed_on(rig):
    rig.tell(UpstreamNotice(error=True, type="video_starvation", message="slow"), UpstreamNotice(False, "w", "x"))
    assert rig.of(UpstreamNotice) == [
        UpstreamNotice(True, "video_starvation", "slow"),
        UpstreamNotice(False, "w", "x"),
    ]


def test_unknown_events_are_counted_and_change_nothing(rig):
    before = rig.events
    rig.tell(m.Unknown("agent.new_thing"), m.Unknown("not JSON"))
    assert rig.session.unknown_events == 2
    assert rig.events == before


# --- wakes of the driver


def test_only_the_first_ack_of_an_utterance_wakes_the_owner(rig):
    """Each packet has an ack; the first sets the deadline at which a start is inferred."""
    utterance = rig.say("u", 3)
    ack = m.Appended(m.Refs((utterance.upstream_id,)))
    assert [rig.session.on_event(ack, rig.now_s) for _ in range(3)] == [True, False, False]


def test_an_ack_about_nothing_wakes_nobody(rig):
    assert rig.session.on_event(m.Appended(m.Refs()), rig.now_s) is False


def test_events_after_the_end_wake_nobody(rig):
    rig.session.end(EndReason.CALLER_ENDED, rig.now_s)
    assert rig.session.on_event(IDLE, rig.now_s) is False


# --- limits


def test_a_session_without_a_limit_never_expires(rig):
    rig.run(100_000)
    assert rig.of(Expiring) == []
    assert rig.session._deadline_s is None


def test_a_session_near_its_limit_says_so_once(make_rig):
    rig = make_rig(expiring_notice_s=15.0)
    began_at = rig.session.created_at
    rig.ready(max_duration_s=60)
    rig.run(44.9)
    assert rig.of(Expiring) == []
    rig.run(10)
    (expiring,) = rig.of(Expiring)
    assert abs(expiring.expires_at - began_at - timedelta(seconds=60)) < timedelta(milliseconds=1)


def test_a_session_shorter_than_the_notice_says_so_at_once(make_rig):
    rig = make_rig()
    began_at = rig.session.created_at
    rig.ready(max_duration_s=10)
    rig.wake()
    (expiring,) = rig.of(Expiring)
    assert abs(expiring.expires_at - began_at - timedelta(seconds=10)) < timedelta(milliseconds=1)


def test_a_session_is_ended_after_its_limit_even_when_liveavatar_says_nothing(make_rig):
    rig = make_rig(expiry_grace_s=1.0).ready(max_duration_s=60)
    rig.run(50)
    rig.say("u", 29)
    rig.run(10.9)
    assert rig.session.state is SessionState.READY
    rig.run(0.2)
    assert rig.session.end_reason is EndReason.MAX_DURATION
    assert rig.story("u")[-1] == "failed"


def test_a_limit_that_passes_before_the_avatar_is_ready_ends_the_session_too(make_rig):
    rig = make_rig().connect(max_duration_s=3)
    rig.run(4.1)
    assert rig.session.end_reason is EndReason.MAX_DURATION


# --- end


@pytest.mark.parametrize("word", ["closing", "closed", "disconnected"])
def test_liveavatar_ends_the_session_by_any_of_its_words(rig, word):
    rig.tell(m.StateUpdated(word))
    assert rig.session.end_reason is EndReason.UPSTREAM_ENDED


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("IDLE_TIMEOUT", EndReason.IDLE),
        ("MAX_DURATION_REACHED", EndReason.MAX_DURATION),
        ("NO_CREDITS", EndReason.OUT_OF_CREDITS),
        ("ZOMBIE_SESSION_REAP", EndReason.UPSTREAM_ENDED),
        ("", EndReason.UPSTREAM_ENDED),
    ],
)
def test_liveavatar_ends_the_session_and_says_why(rig, said, reason):
    rig.tell(m.Stopped(said))
    assert (rig.session.end_reason, rig.session.upstream_reason) == (reason, said)


def test_the_first_reason_stays(rig):
    rig.session.end(EndReason.CALLER_ENDED, rig.now_s)
    rig.session.end(EndReason.UPSTREAM_FAILED, rig.now_s)
    rig.tell(m.Stopped("IDLE_TIMEOUT"))
    assert rig.session.end_reason is EndReason.CALLER_ENDED


@pytest.mark.parametrize("first", [EndReason.UPSTREAM_ENDED, EndReason.UPSTREAM_FAILED])
def test_a_reason_that_is_learned_later_completes_an_end_that_had_none(rig, first):
    rig.session.end(first, rig.now_s)
    rig.session.learn_end("MAX_DURATION_REACHED")
    assert (rig.session.end_reason, rig.session.upstream_reason) == (
        EndReason.MAX_DURATION,
        "MAX_DURATION_REACHED",
    )


def test_nothing_learned_changes_nothing(rig):
    rig.session.end(EndReason.UPSTREAM_FAILED, rig.now_s)
    rig.session.learn_end("")
    assert (rig.session.end_reason, rig.session.upstream_reason) == (EndReason.UPSTREAM_FAILED, "")


def test_a_reason_of_our_own_is_not_replaced_by_what_is_learned(rig):
    rig.session.end(EndReason.CALLER_ENDED, rig.now_s)
    rig.session.learn_end("USER_CLOSED")
    assert (rig.session.end_reason, rig.session.upstream_reason) == (EndReason.CALLER_ENDED, "")


def test_a_reason_that_liveavatar_told_is_not_replaced_by_what_is_learned(rig):
    rig.tell(m.Stopped("ZOMBIE_SESSION_REAP"))
    rig.session.learn_end("IDLE_TIMEOUT")
    assert rig.session.upstream_reason == "ZOMBIE_SESSION_REAP"


def test_the_log_ends_with_the_end_and_its_error(rig):
    error = UpstreamUnreachable("gone")
    rig.session.end(EndReason.UPSTREAM_FAILED, rig.now_s, error=error)
    rig.session.ended()
    assert rig.events[-1] == Ended(error)
    assert rig.session.ended_at is not None


def test_a_session_ends_once(rig):
    rig.session.end(EndReason.CALLER_ENDED, rig.now_s)
    rig.session.ended()
    rig.session.ended()
    assert len(rig.of(Ended)) == 1


def test_the_log_has_every_state_in_order(rig):
    rig.session.end(EndReason.CALLER_ENDED, rig.now_s)
    rig.session.ended()
    assert [one.state for one in rig.of(StateChanged)] == [
        SessionState.CONNECTING,
        SessionState.READY,
        SessionState.ENDING,
        SessionState.ENDED,
    ]
    assert [one.previous for one in rig.of(StateChanged)][1:] == [
        SessionState.CONNECTING,
        SessionState.READY,
        SessionState.ENDING,
    ]


def test_a_session_can_end_before_it_was_started(make_rig):
    rig = make_rig()
    rig.session.end(EndReason.CREATE_FAILED, rig.now_s)
    rig.session.ended()
    assert rig.session.state is SessionState.ENDED


def test_a_living_session_cannot_be_declared_over_without_an_end(rig):
    with pytest.raises(IllegalTransition):
        rig.session.ended()


def test_after_the_end_nothing_is_sent_and_nothing_happens(rig):
    rig.say("u", 10)
    rig.session.keep_alive()
    rig.session.end(EndReason.CALLER_ENDED, rig.now_s)
    before, sent = rig.events, len(rig.commands)
    rig.tell(TALKING, UpstreamNotice(True, "", ""), CONNECTED)
    rig.run(100)
    rig.wake()
    assert (rig.events, len(rig.commands)) == (before, sent)
    rig.session.keep_alive()
    assert rig.session.drain(rig.now_s) == []


@pytest.mark.parametrize("action", ["begin", "interrupt", "listen", "stop_listening"])
def test_after_the_end_the_caller_is_told_why(rig, action):
    rig.tell(m.Stopped("ZOMBIE_SESSION_REAP"))
    arguments = {"begin": ("u", rig.native), "interrupt": ("",)}.get(action, ())
    with pytest.raises(SessionEnded) as refused:
        getattr(rig.session, action)(*arguments)
    assert refused.value.metadata == {
        "session_id": "session-1",
        "end_reason": "UPSTREAM_ENDED",
        "upstream_reason": "ZOMBIE_SESSION_REAP",
    }


def test_audio_after_the_end_is_dropped_and_counted(rig):
    utterance = rig.begin("u")
    rig.session.end(EndReason.CALLER_ENDED, rig.now_s)
    rig.receive(utterance, rig.pcm(0.1))
    assert rig.speech.totals.dropped_bytes == 4_800


# --- the room


@pytest.fixture
def in_room(rig):
    """A session whose caller wants events of the room, and that is in it."""
    rig.session.room = RoomReports(is_wanted=True)
    rig.session.room.connected([])
    rig.session.report_room(rig.now_s)
    return rig


def room_events(rig, kind) -> list:
    return [entry.event for entry in rig.session.log.after(0) if isinstance(entry.event, kind)]


def test_events_of_the_room_are_in_the_log(in_room):
    assert room_events(in_room, RoomConnected) == [RoomConnected((), 0)]
    in_room.session.note_viewers(False, in_room.now_s)
    assert room_events(in_room, ViewersChanged) == [ViewersChanged(present=False)]


def test_events_that_had_to_wait_come_by_the_clock(in_room):
    for present in itertools.islice(itertools.cycle([True, False]), 102):
        in_room.session.note_viewers(present, in_room.now_s)
    in_room.wake()
    assert room_events(in_room, ViewersChanged)[-1] == ViewersChanged(present=True)
    in_room.run(1.0)
    assert room_events(in_room, ViewersChanged)[-1] == ViewersChanged(present=False)


def test_after_the_end_nothing_of_the_room_is_reported(in_room):
    in_room.session.end(EndReason.CALLER_ENDED, in_room.now_s)
    in_room.session.note_viewers(False, in_room.now_s)
    assert room_events(in_room, ViewersChanged) == []
