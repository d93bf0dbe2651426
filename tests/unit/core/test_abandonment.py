"""Ends of sessions that nobody uses: announced in time, cancelled by use, and never early."""

from datetime import timedelta

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.abandonment import AbandonmentConfig, Countdown
from liveavatar_gateway.core.events import Expiring, ExpiryCancelled
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.states import EndReason, Pose

IDLE_S = 60.0
NOTICE_S = 15.0


@pytest.fixture
def make_watched(make_rig):
    """Make a rig whose session has limits; it is not connected yet."""

    def make(**limits):
        rig = make_rig(expiring_notice_s=NOTICE_S)
        old = rig.session
        rig.session = Session(
            "session-1",
            old.config,
            new_id=old._new_id,
            utc_now=old._utc_now,
            abandonment=AbandonmentConfig(**limits),
        )
        rig.speech = rig.session.speech
        return rig

    return make


@pytest.fixture
def idle(make_watched):
    return make_watched(idle_s=IDLE_S).ready()


@pytest.fixture
def unseen(make_watched):
    return make_watched(viewer_absence_s=30.0).ready()


def look(rig, present) -> None:
    rig.session.note_viewers(present, rig.now_s)
    rig.wake()


# --- idle sessions


def test_an_idle_session_is_announced_and_then_ended(idle):
    ready_at = idle.session._utc_now()
    idle.run(44.9)
    assert idle.of(Expiring) == []
    idle.run(0.2)
    (expiring,) = idle.of(Expiring)
    assert expiring.reason is EndReason.IDLE
    assert abs(expiring.expires_at - ready_at - timedelta(seconds=IDLE_S)) < timedelta(milliseconds=1)
    idle.run(14.8)
    assert not idle.session.over
    idle.run(0.2)
    assert idle.session.end_reason is EndReason.IDLE


def test_a_session_without_the_limit_is_never_ended(make_watched):
    rig = make_watched().ready()
    rig.run(100_000)
    assert not rig.session.over


def test_the_time_before_it_is_ready_does_not_count(make_watched):
    rig = make_watched(idle_s=10.0).connect()
    rig.run(15.0)
    rig.cleared()
    rig.run(9.0)
    assert not rig.session.over
    rig.run(1.1)
    assert rig.session.end_reason is EndReason.IDLE


@pytest.mark.parametrize(
    "use",
    [
        lambda rig: rig.session.listen(),
        lambda rig: rig.session.stop_listening(),
        lambda rig: rig.session.interrupt(""),
        lambda rig: rig.session.note_activity(),
        lambda rig: rig.begin("u"),
    ],
    ids=["listen", "stop listening", "interrupt", "stream", "begin"],
)
def test_a_use_cancels_the_announced_end_and_counts_anew(idle, use):
    idle.run(50)
    use(idle)
    idle.wake()
    assert idle.of(ExpiryCancelled) == [ExpiryCancelled(EndReason.IDLE)]
    idle.run(44.9)
    assert len(idle.of(Expiring)) == 1
    idle.run(0.2)
    assert len(idle.of(Expiring)) == 2
    idle.run(15.1)
    assert idle.session.end_reason is EndReason.IDLE


def test_a_use_before_the_announcement_is_no_event(idle):
    idle.run(30)
    idle.session.listen()
    idle.wake()
    idle.run(44)
    assert idle.of((ExpiryCancelled, Expiring)) == []


def test_speech_is_no_idleness_and_its_end_begins_the_time(idle):
    for number in range(4):
        idle.say(f"u{number}", 25)
        for _ in range(26):
            idle.run(1.0)
            idle.acknowledge()
    assert idle.of(Expiring) == []
    ended_at_s = idle.now_s
    while idle.session.speech.active:
        idle.run(1.0)
        ended_at_s = idle.now_s
    while not idle.session.over:
        idle.run(1.0)
    assert idle.session.end_reason is EndReason.IDLE
    assert idle.now_s - ended_at_s <= IDLE_S + 2.0


def test_an_open_utterance_without_audio_is_no_speech(idle):
    idle.begin("u")
    idle.wake()
    idle.run(IDLE_S + 0.1)
    assert idle.session.end_reason is EndReason.IDLE


def test_audio_that_waits_for_a_lost_socket_is_speech(idle):
    idle.lose()
    idle.say("u", 5)
    idle.run(300)
    assert idle.of(Expiring) == []


def test_a_standstill_of_the_process_leaves_the_time_of_the_notice(idle):
    idle.now_s += 10_000
    idle.wake()
    assert len(idle.of(Expiring)) == 1
    idle.run(14.9)
    assert not idle.session.over
    idle.run(0.2)
    assert idle.session.end_reason is EndReason.IDLE


def test_a_short_limit_is_announced_at_its_half(make_watched):
    rig = make_watched(idle_s=4.0).ready()
    rig.run(1.9)
    assert rig.of(Expiring) == []
    rig.run(0.2)
    assert len(rig.of(Expiring)) == 1
    rig.run(2.0)
    assert rig.session.end_reason is EndReason.IDLE


def test_the_avatars_own_events_are_no_use(idle):
    for _ in range(7):
        idle.run(9)
        idle.tell(m.PoseUpdated(Pose.LISTENING), m.PoseUpdated(Pose.IDLE))
    assert idle.session.end_reason is EndReason.IDLE


# --- viewers


def test_without_viewers_the_end_is_announced_and_comes_with_a_look(unseen):
    look(unseen, False)
    unseen.run(16)
    look(unseen, False)
    (expiring,) = unseen.of(Expiring)
    assert expiring.reason is EndReason.NO_VIEWERS
    assert unseen.session.is_absence_announced
    unseen.run(15)
    assert not unseen.session.over, "no clock ends it, only a look"
    look(unseen, False)
    assert unseen.session.end_reason is EndReason.NO_VIEWERS
    look(unseen, False)


@pytest.mark.parametrize("seen", [True, None])
def test_a_viewer_or_a_server_that_cannot_be_asked_cancels_it(unseen, seen):
    look(unseen, False)
    unseen.run(16)
    look(unseen, False)
    look(unseen, seen)
    assert unseen.of(ExpiryCancelled) == [ExpiryCancelled(EndReason.NO_VIEWERS)]
    assert not unseen.session.is_absence_announced
    unseen.run(100)
    look(unseen, False)
    assert not unseen.session.over
    unseen.run(14)
    look(unseen, False)
    assert len(unseen.of(Expiring)) == 1


def test_a_viewer_where_nothing_was_announced_is_no_event(unseen):
    look(unseen, True)
    look(unseen, False)
    look(unseen, True)
    assert unseen.of((ExpiryCancelled, Expiring)) == []


def test_a_look_at_a_session_without_the_limit_or_before_it_is_ready_changes_nothing(make_watched):
    for rig in (make_watched().ready(), make_watched(viewer_absence_s=5.0).connect()):
        for _ in range(2):
            look(rig, False)
            rig.now_s += 10
        assert rig.of(Expiring) == []
        assert not rig.session.is_absence_announced


def test_speech_does_not_keep_an_avatar_that_nobody_sees(unseen):
    unseen.say("u", 30)
    for _ in range(18):
        unseen.run(2)
        look(unseen, False)
    assert unseen.session.end_reason is EndReason.NO_VIEWERS


# --- countdown


def test_a_countdown_that_does_not_run_gives_no_notice():
    countdown = Countdown(10.0, notice_s=2.0)
    assert (countdown.next_s, countdown.notice_s(100.0), countdown.is_over(100.0)) == (None, None, False)
    assert not countdown.cancel()


def test_a_countdown_counts_from_the_latest_start():
    countdown = Countdown(10.0, notice_s=2.0)
    countdown.start(5.0)
    countdown.start(1.0)
    assert countdown.next_s == 13.0
    assert countdown.notice_s(12.9) is None
    assert countdown.notice_s(13.0) == 2.0
    assert countdown.notice_s(14.0) is None
    assert countdown.next_s == 15.0
