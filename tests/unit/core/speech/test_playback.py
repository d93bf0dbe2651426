"""Reports of LiveAvatar's builds about playback: one start and one end for each utterance."""

import itertools

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import UpstreamStalled
from liveavatar_gateway.core.states import Outcome, Pose

APPENDED, STARTED, ENDED = m.Appended, m.SpeakStarted, m.SpeakEnded
TALKING, IDLE = m.PoseUpdated(Pose.TALKING), m.PoseUpdated(Pose.IDLE)


def about(kind, utterance, task_id=""):
    return kind(m.Refs((utterance.upstream_id,), task_id))


def says(kind, *ids, task_id=""):
    return kind(m.Refs(ids, task_id))


# --- utterances of events


def test_an_utterance_starts_and_ends_however_a_build_names_it(rig, refs_of):
    utterance = rig.say("u", 0.5)
    rig.tell(m.Appended(m.Refs((utterance.upstream_id,), "task-" + utterance.upstream_id)))
    refs = refs_of(utterance.upstream_id)
    rig.tell(m.SpeakStarted(refs))
    rig.run(0.5)
    rig.tell(m.SpeakEnded(refs))
    assert rig.story("u") == ["started", "completed"]
    assert not rig.end_of("u").inferred


def test_two_utterances_in_line_are_told_apart_however_a_build_names_them(rig, refs_of):
    """Events match by source id, echoed event id, a task known from an ack, or the order of the utterances."""
    first, second = rig.say("a", 0.5), rig.say("b", 0.5)
    acknowledged = 0

    def acknowledge():
        nonlocal acknowledged
        while acknowledged < len(rig.packets):
            upstream_id = rig.packets[acknowledged].event_id
            acknowledged += 1
            rig.tell(m.Appended(m.Refs((upstream_id,), "task-" + upstream_id)))

    rig.run(0.15)
    acknowledge()
    rig.tell(m.SpeakStarted(refs_of(first.upstream_id)))
    rig.run(0.5)
    acknowledge()
    rig.tell(m.SpeakEnded(refs_of(first.upstream_id)), m.SpeakStarted(refs_of(second.upstream_id)))
    assert (rig.story("a"), rig.story("b")) == (["started", "completed"], ["started"])
    rig.run(0.5)
    rig.tell(m.SpeakEnded(refs_of(second.upstream_id)))
    assert rig.story("b") == ["started", "completed"]


def test_our_own_id_goes_before_a_task(rig):
    """With a build that gives one task to all utterances, the first must not stand for the second."""
    first, second = rig.say("a", 0.4), rig.say("b", 0.4)
    rig.tell(about(APPENDED, first, "same"), about(STARTED, first, "same"))
    rig.run(0.4)
    rig.tell(about(APPENDED, second, "same"), about(STARTED, second, "same"))
    assert rig.story("b") == ["started"]
    rig.run(0.4)
    rig.tell(about(ENDED, second, "same"))
    assert rig.story("b") == ["started", "completed"]


def test_an_event_about_an_ended_utterance_is_not_taken_for_the_next(rig):
    first, second = rig.say("a", 0.4), rig.say("b", 0.4)
    rig.tell(about(APPENDED, first, "t-a"), about(STARTED, first))
    rig.run(0.4)
    rig.tell(about(ENDED, first))
    for late in (about(STARTED, first), about(ENDED, first), says(ENDED, task_id="t-a"), about(APPENDED, first)):
        rig.tell(late)
    assert rig.story("b") == []
    assert second.confirmed == 0


def test_a_late_start_of_an_ended_utterance_does_not_leave_the_avatar_talking(rig):
    """No event would end that pose, and a requested listening pose would never be taken."""
    utterance = rig.say("u", 0.4)
    rig.tell(about(STARTED, utterance))
    rig.run(0.4)
    rig.tell(about(ENDED, utterance), about(STARTED, utterance))
    assert rig.session.pose is Pose.IDLE


def test_an_event_that_names_nothing_known_is_about_the_oldest_that_fits(rig):
    rig.say("u", 0.4)
    rig.tell(says(STARTED, "minted-1"))
    assert rig.story("u") == ["started"]


def test_a_start_before_anything_was_sent_is_ignored(rig):
    utterance = rig.begin("u")
    rig.tell(about(STARTED, utterance), says(STARTED), TALKING)
    assert rig.story("u") == []


def test_a_talking_pose_with_nothing_in_line_starts_nothing(rig):
    rig.tell(TALKING)
    rig.say("u", 0.4)
    assert rig.session.pose is Pose.TALKING
    assert rig.story("u") == []


def test_an_end_with_nothing_in_line_is_ignored(rig):
    rig.tell(says(ENDED), says(APPENDED), IDLE, says(m.Committed, "x"))
    assert rig.speech.active == []


# --- events and poses, in any order


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))))
@pytest.mark.parametrize("end_order", list(itertools.permutations(range(2))))
def test_state_updates_and_speak_events_make_one_pair_in_any_order(rig, order, end_order):
    utterance = rig.say("u", 0.5)
    starts, ends = [about(STARTED, utterance), TALKING], [about(ENDED, utterance), IDLE]
    rig.tell(*(starts[index] for index in order))
    rig.run(0.5)
    rig.tell(*(ends[index] for index in end_order))
    rig.run(10)
    assert rig.story("u") == ["started", "completed"]


def test_state_updates_alone_are_enough(rig):
    rig.say("u", 0.5)
    rig.tell(TALKING)
    rig.run(0.5)
    rig.tell(IDLE)
    assert rig.story("u") == ["started", "completed"]
    assert not rig.end_of("u").inferred


def test_a_storm_of_events_per_chunk_makes_one_pair(rig):
    """A build may report a start and an end for each packet."""
    utterance = rig.begin("u")
    for _ in range(40):
        rig.receive(utterance, rig.pcm(0.1))
        rig.run(0.1)
        rig.tell(about(STARTED, utterance), about(ENDED, utterance))
    rig.seal(utterance)
    rig.run(0.4)
    rig.tell(about(STARTED, utterance), about(ENDED, utterance), about(ENDED, utterance))
    assert rig.story("u") == ["started", "completed"]


def test_doubled_events_make_one_pair(rig):
    utterance = rig.say("u", 0.4)
    rig.tell(about(STARTED, utterance), about(STARTED, utterance), TALKING, TALKING)
    rig.run(0.4)
    rig.tell(IDLE, IDLE, about(ENDED, utterance), about(ENDED, utterance))
    assert rig.story("u") == ["started", "completed"]


def test_an_idle_pose_in_the_middle_is_an_avatar_that_ran_dry_and_no_end(rig):
    utterance = rig.begin("u")
    rig.receive(utterance, rig.pcm(0.4))
    rig.tell(about(STARTED, utterance))
    rig.run(1)
    rig.tell(IDLE)
    assert rig.story("u") == ["started"]
    rig.receive(utterance, rig.pcm(0.4))
    rig.seal(utterance)
    rig.tell(TALKING)
    rig.run(0.4)
    rig.tell(IDLE)
    assert rig.story("u") == ["started", "completed"]


def test_an_idle_pose_long_before_the_end_is_no_end(rig):
    utterance = rig.say("u", 3)
    rig.run(1)
    rig.tell(about(STARTED, utterance))
    rig.tell(IDLE)
    assert rig.story("u") == ["started"]


def test_an_end_that_comes_while_the_utterance_is_open_is_no_end(rig):
    utterance = rig.begin("u")
    rig.receive(utterance, rig.pcm(0.4))
    rig.tell(about(STARTED, utterance))
    rig.run(0.4)
    rig.tell(about(ENDED, utterance))
    assert rig.story("u") == ["started"]


def test_an_idle_pose_before_anything_started_is_no_end(rig):
    rig.say("u", 0.4)
    rig.tell(IDLE)
    assert rig.story("u") == []


# --- missing reports


def test_an_end_without_a_start_tells_both(rig):
    utterance = rig.say("u", 0.4)
    rig.run(0.4)
    rig.tell(about(ENDED, utterance))
    assert rig.story("u") == ["started", "completed"]


def test_a_start_of_the_next_ends_the_one_before(rig):
    first, second = rig.say("a", 0.4), rig.say("b", 0.4)
    rig.tell(about(STARTED, first))
    rig.run(0.4)
    rig.tell(about(STARTED, second))
    assert (rig.story("a"), rig.story("b")) == (["started", "completed"], ["started"])
    assert rig.end_of("a").inferred
    assert rig.end_of("a").played_s == pytest.approx(0.4)


def test_an_end_of_the_next_ends_the_one_before(rig):
    rig.say("a", 0.4)
    second = rig.say("b", 0.4)
    rig.run(1)
    rig.tell(about(ENDED, second))
    assert rig.story("a") == rig.story("b") == ["started", "completed"]


def test_where_only_acks_come_the_start_is_concluded_after_a_second_and_the_end_after_playback_and_5(rig):
    utterance = rig.say("u", 1)
    rig.tell(about(APPENDED, utterance), about(APPENDED, utterance))
    rig.run(0.95)
    assert rig.story("u") == []
    rig.run(0.1)
    assert rig.story("u") == ["started"]
    rig.run(5.8)
    assert rig.story("u") == ["started"]
    rig.run(0.3)
    end = rig.end_of("u")
    assert (end.inferred, end.played_s, end.error) == (True, 1.0, None)


def test_where_only_acks_come_utterances_follow_each_other(rig):
    for name in "abc":
        utterance = rig.say(name, 0.4)
    for _ in range(30):
        rig.acknowledge()
        rig.run(1)
    assert [rig.story(name)[-1] for name in "abc"] == ["completed"] * 3
    assert rig.sent(utterance.upstream_id) == rig.pcm(0.4)


def test_a_start_that_was_concluded_is_not_told_again(rig):
    utterance = rig.say("u", 3)
    rig.tell(about(APPENDED, utterance))
    rig.run(1.5)
    rig.tell(about(STARTED, utterance), TALKING)
    assert rig.story("u") == ["started"]


def test_a_late_start_moves_the_deadline_of_the_end(rig):
    utterance = rig.say("u", 1)
    rig.run(5)
    rig.tell(about(STARTED, utterance))
    rig.run(5.9)
    assert rig.story("u") == ["started"], "5 s behind its second of playback"
    rig.run(0.2)
    assert rig.story("u") == ["started", "completed"]


def test_an_end_that_never_comes_is_concluded(rig):
    utterance = rig.say("u", 1)
    rig.tell(about(STARTED, utterance))
    rig.run(7)
    end = rig.end_of("u")
    assert (end.outcome.value, end.inferred, end.played_s) == ("completed", True, 1.0)


# --- accepted utterances that never start


@pytest.fixture
def told(rig):
    """Rig whose LiveAvatar has reported a start, and confirms everything."""
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
    told.acknowledge()  # the second utterance begins when all of the first is confirmed
    told.run(3.0)
    told.tell(m.SpeakEnded(m.Refs((first.upstream_id,))))
    told.run(4.9)
    assert told.cuts == []
    told.tell(m.SpeakStarted(m.Refs((second.upstream_id,))))
    assert told.story("u2") == ["started"]


def test_an_avatar_that_is_seen_talking_is_heard(told):
    """The pose need not change between two utterances, but proves that the avatar talks."""
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


def test_an_utterance_in_line_has_its_time_for_a_first_sign_from_its_turn(make_rig):
    """LiveAvatar may play longer than estimated before it, since repeated audio is played twice."""
    rig = make_rig(scheduler={"queue_lead_s": 3.0}).ready()
    first, second = rig.say("u1", 2.0), rig.say("u2", 9.0)
    rig.run(1.0)
    assert second.first_sent_at_s == rig.now_s
    rig.tell(about(STARTED, first))
    rig.run(6.0)
    rig.tell(about(ENDED, first))
    rig.run(0.1)
    rig.tell(about(STARTED, second))
    assert rig.story("u2") == ["started"]
