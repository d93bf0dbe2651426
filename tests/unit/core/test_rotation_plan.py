"""Rotation: a standby avatar takes over before the limit of the speaking one, and no word is cut."""

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.errors import CapacityExhausted, UpstreamUnreachable
from liveavatar_gateway.core.events import Expiring, Reconnected, Rotated, UpstreamNotice
from liveavatar_gateway.core.lifetime import Lifetime
from liveavatar_gateway.core.rotation_plan import RotationConfig, RotationPlan, StandbyState
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.speech.handover import SendGate
from liveavatar_gateway.core.states import EndReason, Pose, SessionState

LIMIT_S = 100.0


@pytest.fixture
def rotating(make_rig):
    rig = make_rig()
    rig.session = Session(
        "session-1", rig.session.config, new_id=rig.session._new_id, utc_now=rig.session._utc_now, auto_rotate=True
    )
    rig.speech = rig.session.speech
    return rig.ready(max_duration_s=LIMIT_S)


def _take_over(rig, limit_s=LIMIT_S):
    rig.session.take_over(
        upstream_session_id="second",
        max_duration_s=limit_s,
        expires_at=None,
        age_s=1.0,
        last_command_at_s=rig.now_s - 1.0,
        now_s=rig.now_s,
    )
    rig.wake()


def _failure():
    return CapacityExhausted("full", scope="upstream_account", retry_after_s=1.0)


def test_it_is_prepared_its_lead_before_the_limit_and_not_before_half_of_it():
    rotation = RotationPlan(RotationConfig(lead_s=30.0), SpeechConfig())
    rotation.plan(100.0, 100.0)
    assert [rotation.request_standby(at_s) for at_s in (69.9, 70.0, 70.1)] == [False, True, False]
    assert rotation.next_s(0.0) == 70.0
    rotation.plan(40.0, 40.0)
    assert [rotation.request_standby(at_s) for at_s in (19.9, 20.0)] == [False, True]
    rotation.plan(None, None)
    assert (rotation.request_standby(1e9), rotation.next_s(0.0)) == (False, None)


def test_a_session_that_does_not_rotate_has_no_successor(make_rig):
    rig = make_rig().ready(max_duration_s=LIMIT_S)
    rig.run(90)
    rig.session.standby_ready(rig.now_s)
    rig.session.standby_failed(_failure())
    rig.session.standby_dropped()
    assert not rig.wants_standby
    assert not rig.hands_over
    assert rig.of(UpstreamNotice) == []


def test_in_silence_it_takes_over_at_once_and_the_limit_is_the_new_one(rotating):
    rotating.run(69)
    assert not rotating.wants_standby
    rotating.run(1.1)
    assert rotating.wants_standby
    rotating.session.standby_ready(rotating.now_s)
    assert rotating.hands_over
    _take_over(rotating)
    assert not rotating.hands_over
    assert rotating.session.expires_at_s == rotating.now_s - 1.0 + LIMIT_S
    (rotated,) = rotating.of(Rotated)
    assert (rotated.upstream_session_id, rotated.inside) == ("second", False)
    rotating.run(50)
    assert rotating.of(Expiring) == []
    assert rotating.session.rotation_count == 1


def test_the_next_utterance_waits_for_the_border_and_goes_to_the_fresh_avatar(rotating):
    first = rotating.say("first", 2.0)
    second = rotating.say("second", 1.0)
    rotating.acknowledge()
    rotating.session.standby_ready(rotating.now_s)
    assert not rotating.hands_over
    rotating.run(1.9)
    rotating.acknowledge()
    assert {packet.event_id for packet in rotating.packets} == {first.upstream_id}
    rotating.tell(m.SpeakStarted(m.Refs((first.upstream_id,))), m.SpeakEnded(m.Refs((first.upstream_id,))))
    assert rotating.hands_over
    assert {packet.event_id for packet in rotating.packets} == {first.upstream_id}
    _take_over(rotating)
    assert {packet.event_id for packet in rotating.packets} == {first.upstream_id, second.upstream_id}
    assert [one.inside for one in rotating.of(Rotated)] == [False]


def test_a_monologue_is_parted_where_the_old_avatar_has_said_all_that_it_has(rotating):
    rotating.run(80)
    one = rotating.say("monologue", 28.0)
    rotating.acknowledge()
    rotating.tell(m.SpeakStarted(m.Refs((one.upstream_id,))))
    rotating.session.standby_ready(rotating.now_s)
    for _ in range(142):
        rotating.run(0.1)
        rotating.acknowledge()
    sent = sum(len(packet.pcm) for packet in rotating.packets)
    assert [type(command) for command in rotating.commands[-1:]] == [m.SpeakEnd]
    assert not rotating.hands_over
    rotating.tell(m.SpeakEnded(m.Refs((one.upstream_id,))))
    assert rotating.hands_over
    _take_over(rotating)
    assert one.outcome is None
    rotating.run(0.1)
    for _ in range(200):
        rotating.run(0.1)
        rotating.acknowledge()
    assert sum(len(packet.pcm) for packet in rotating.packets) == 28 * m.BYTE_RATE > sent
    assert [one.inside for one in rotating.of(Rotated)] == [True]


def test_when_nobody_tells_the_end_of_what_was_said_the_clock_does(rotating):
    rotating.run(80)
    rotating.say("monologue", 28.0)
    rotating.session.standby_ready(rotating.now_s)
    for _ in range(190):
        rotating.acknowledge()
        rotating.run(0.1)
        if rotating.hands_over:
            break
    assert rotating.hands_over
    assert rotating.now_s < rotating.session.expires_at_s - 1.0


def test_a_pose_tells_it_too_and_a_pause_in_the_middle_does_not(rotating):
    rotating.run(80)
    rotating.say("monologue", 28.0)
    rotating.acknowledge()
    rotating.tell(m.PoseUpdated(Pose.TALKING))
    rotating.session.standby_ready(rotating.now_s)
    for _ in range(139):
        rotating.run(0.1)
        rotating.acknowledge()
    rotating.tell(m.PoseUpdated(Pose.IDLE))
    assert not rotating.hands_over
    rotating.run(3.0)
    rotating.tell(m.PoseUpdated(Pose.IDLE))
    assert rotating.hands_over


def test_an_interrupt_on_its_way_is_waited_for_but_not_beyond_the_last_moment(rotating):
    rotating.say("said", 3.0)
    rotating.acknowledge()
    interrupt_id = rotating.interrupt("")
    rotating.session.standby_ready(rotating.now_s)
    assert not rotating.hands_over
    _take_over(rotating)
    assert [answer.interrupt_id for answer in rotating.answers] == [interrupt_id]
    rotating.run(98.5)
    rotating.say("last", 3.0)
    rotating.session.standby_ready(rotating.now_s)
    assert rotating.hands_over


def test_without_a_successor_it_is_told_once_for_each_reason_and_ends_with_the_last(rotating):
    rotating.run(75)
    rotating.session.standby_failed(_failure())
    rotating.session.standby_failed(_failure())
    rotating.session.standby_failed(UpstreamUnreachable("gone"))
    assert [one.type for one in rotating.of(UpstreamNotice)] == ["rotation_delayed"] * 2
    rotating.run(30)
    assert len(rotating.of(Expiring)) == 1
    assert rotating.session.end_reason is EndReason.MAX_DURATION
    assert rotating.session.error.reason == UpstreamUnreachable.reason


def test_over_a_lost_socket_it_goes_on_when_the_old_avatar_has_said_what_it_has(rotating):
    rotating.run(75)
    rotating.say("said", 5.0)
    rotating.acknowledge()
    rotating.session.standby_ready(rotating.now_s)
    rotating.lose()
    assert not rotating.hands_over
    rotating.run(4.0)
    assert rotating.hands_over
    _take_over(rotating)
    assert rotating.session.state is SessionState.READY
    assert [one.replaced for one in rotating.of(Reconnected)] == [True]
    assert len(rotating.of(Rotated)) == 1


def test_a_listening_avatar_is_followed_by_one_that_listens(rotating):
    rotating.session.listen()
    rotating.wake()
    rotating.tell(m.PoseUpdated(Pose.LISTENING))
    rotating.session.standby_ready(rotating.now_s)
    _take_over(rotating, limit_s=None)
    assert [type(command) for command in rotating.commands] == [m.ListenStart, m.ListenStart]
    assert rotating.session.expires_at_s is None
    assert not rotating.wants_standby


def test_one_that_is_dropped_does_not_take_over(rotating):
    rotating.say("said", 5.0)
    rotating.acknowledge()
    rotating.session.standby_ready(rotating.now_s)
    rotating.lose()
    rotating.session.standby_dropped()
    rotating.run(10.0)
    assert not rotating.hands_over


def test_holds_follow_the_plan():
    rotation = RotationPlan(RotationConfig(), SpeechConfig())
    rotation.plan(100.0, None)
    assert rotation.gate(99.0) is SendGate.NOTHING
    rotation.standby = StandbyState.READY
    assert (rotation.gate(80.0), rotation.gate(95.0)) == (SendGate.NEXT, SendGate.ALL)
    assert SessionConfig().rotation == RotationConfig()


@pytest.mark.parametrize(("enforced", "late_s"), [(False, 1.0), (True, 0.0)])
def test_a_limit_that_liveavatar_does_not_know_ends_the_session_without_a_delay(enforced, late_s):
    lifetime = Lifetime(SessionConfig(expiry_grace_s=1.0), auto_rotate=False)
    lifetime.begin(60.0, 0.0, enforced=enforced)
    assert not lifetime.is_past(60.0 + late_s - 0.1)
    assert lifetime.is_past(60.0 + late_s)
    lifetime.begin(60.0, 100.0)
    assert not lifetime.is_past(160.5), "the avatar after it has LiveAvatar's limit"
