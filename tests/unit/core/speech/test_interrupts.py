"""Interrupts: their targets, the utterances that stay whole, and the reports."""

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import InvalidField, SessionEnded, UtteranceNotFound
from liveavatar_gateway.core.states import EndReason, Pose

TALKING, IDLE = m.PoseUpdated(Pose.TALKING), m.PoseUpdated(Pose.IDLE)


def appended(utterance) -> m.Appended:
    return m.Appended(m.Refs((utterance.upstream_id,)))


def started(utterance) -> m.SpeakStarted:
    return m.SpeakStarted(m.Refs((utterance.upstream_id,)))


def ended(utterance) -> m.SpeakEnded:
    return m.SpeakEnded(m.Refs((utterance.upstream_id,)))


@pytest.fixture
def speaking(rig):
    """Rig in which `a` of 10 s has played for one second, so that at most 7.6 s of it wait here."""
    utterance = rig.say("a", 10)
    rig.tell(appended(utterance), started(utterance))
    rig.run(1)
    return utterance


@pytest.fixture
def near_the_end(rig):
    """Rig in which `a` is nearly over and the first packets of `b` are upstream."""
    first = rig.say("a", 1.4)
    second = rig.begin("b")
    rig.receive(second, b"".join(rig.pcm(0.5, fill=fill) for fill in range(1, 5)))
    rig.seal(second)
    rig.tell(started(first))
    rig.run(1.2)
    assert rig.packet_s(second.upstream_id), "b was sent early"
    return first, second


# --- an interrupt of all


def test_an_interrupt_is_the_next_command_and_nothing_follows_it_before_it_is_answered(rig, speaking):
    before = len(rig.commands)
    rig.interrupt()
    rig.say("b", 1)
    rig.run(0.9)
    assert rig.commands[before:] == rig.cuts


def test_an_interrupt_has_an_id_of_its_own(rig, speaking):
    rig.interrupt()
    assert rig.cuts[0].event_id != speaking.upstream_id


def test_audio_that_waited_here_is_dropped_and_counted(rig, speaking):
    waiting = speaking.buffered
    rig.interrupt()
    assert rig.speech.totals.dropped_bytes == waiting > 0


def test_audio_of_a_cut_utterance_that_was_on_its_way_is_dropped_and_counted(rig):
    utterance = rig.begin("a")
    rig.receive(utterance, rig.pcm(0.5))
    rig.interrupt()
    before = rig.speech.totals.dropped_bytes
    rig.receive(utterance, rig.pcm(0.5))
    rig.cleared()
    rig.receive(utterance, rig.pcm(0.5))
    assert rig.speech.totals.dropped_bytes == before + 48_000
    assert len(rig.packets) == 1


def test_the_answer_comes_with_the_ack_and_says_what_was_heard(rig, speaking):
    interrupt_id = rig.interrupt()
    assert rig.answer(interrupt_id) is None
    rig.run(0.2)
    rig.cleared()
    (end,) = rig.answer(interrupt_id)
    assert (end.utterance_id, end.outcome.value, end.played_s) == ("a", "interrupted", pytest.approx(1.2))
    assert rig.story("a") == ["started", "interrupted"]


@pytest.mark.parametrize(
    "sign",
    [
        lambda rig, cut: m.Cleared(m.Refs((rig.cuts[-1].event_id, "minted"))),
        lambda rig, cut: m.Cleared(m.Refs()),
        lambda rig, cut: m.Cleared(m.Refs(("minted",))),
        lambda rig, cut: m.Cleared(m.Refs((cut.upstream_id,))),
        lambda rig, cut: m.SpeakInterrupted(m.Refs((cut.upstream_id,))),
        lambda rig, cut: m.SpeakEnded(m.Refs((cut.upstream_id,))),
        lambda rig, cut: IDLE,
    ],
    ids=["by-id", "no-id", "minted-id", "utterance-id", "interrupted", "ended", "idle"],
)
def test_any_sign_that_it_was_carried_out_lets_speech_go_on(rig, speaking, sign):
    rig.interrupt()
    second = rig.say("b", 0.4)
    rig.tell(sign(rig, speaking))
    assert rig.story("a") == ["started", "interrupted"]
    assert rig.sent(second.upstream_id) == rig.pcm(0.4)


def test_an_interrupt_that_is_never_answered_holds_speech_for_a_second(rig, speaking):
    interrupt_id = rig.interrupt()
    second = rig.say("b", 0.4)
    rig.run(0.99)
    assert rig.answer(interrupt_id) is None
    rig.run(0.02)
    assert [end.utterance_id for end in rig.answer(interrupt_id)] == ["a"]
    assert rig.sent(second.upstream_id) == rig.pcm(0.4)


def test_signs_that_come_again_change_nothing(rig, speaking):
    rig.interrupt()
    rig.cleared()
    second = rig.say("b", 1)
    rig.tell(started(second))
    rig.cleared()
    rig.tell(m.SpeakInterrupted(m.Refs((speaking.upstream_id,))), ended(speaking), started(speaking))
    assert rig.story("a") == ["started", "interrupted"]
    assert rig.story("b") == ["started"]


def test_a_late_end_of_a_cut_utterance_is_not_taken_for_the_next(rig, speaking):
    rig.interrupt()
    rig.cleared()
    second = rig.say("b", 0.4)
    rig.tell(started(second), ended(speaking))
    assert rig.story("b") == ["started"]


def test_signs_before_the_interrupt_went_out_are_about_something_else(rig, speaking):
    rig.session.interrupt("")
    rig.session.on_event(m.Cleared(m.Refs()), rig.now_s)
    rig.session.on_event(m.SpeakInterrupted(m.Refs()), rig.now_s)
    assert rig.story("a") == ["started"]
    rig.wake()
    rig.cleared()
    assert rig.story("a") == ["started", "interrupted"]


@pytest.mark.parametrize("late", [m.Cleared, m.SpeakInterrupted, m.SpeakEnded])
def test_a_sign_about_an_utterance_that_ended_before_is_no_answer(rig, late):
    first = rig.say("a", 0.4)
    rig.tell(started(first))
    rig.run(0.4)
    rig.tell(ended(first))
    rig.tell(started(rig.say("b", 3)))
    interrupt_id = rig.interrupt()
    rig.tell(late(m.Refs((first.upstream_id,))))
    assert rig.answer(interrupt_id) is None


def test_an_interrupt_of_all_cuts_every_utterance_in_line(rig, speaking):
    rig.say("b", 1)
    rig.begin("c")
    interrupt_id = rig.interrupt()
    rig.cleared()
    assert [end.utterance_id for end in rig.answer(interrupt_id)] == ["a", "b", "c"]
    assert [rig.story(name) for name in "abc"] == [["started", "interrupted"], ["interrupted"], ["interrupted"]]
    assert rig.speech.active == []


def test_an_interrupt_of_silence_is_answered_at_once_and_sends_nothing(rig):
    interrupt_id = rig.interrupt()
    assert rig.answer(interrupt_id) == []
    assert rig.commands == []


def test_an_interrupt_before_the_first_packet_drops_all_and_sends_nothing(rig):
    utterance = rig.begin("a")
    rig.receive(utterance, rig.pcm(0.1))
    interrupt_id = rig.interrupt()
    assert [end.outcome.value for end in rig.answer(interrupt_id)] == ["interrupted"]
    assert rig.commands == []
    assert rig.speech.totals.dropped_bytes == 4_800


def test_a_very_early_interrupt_that_beats_the_first_sound_reaches_liveavatar(rig):
    rig.say("a", 1)
    interrupt_id = rig.interrupt()
    rig.cleared()
    (end,) = rig.answer(interrupt_id)
    assert (end.played_s, rig.story("a")) == (0.0, ["interrupted"])
    assert len(rig.cuts) == 1


def test_where_liveavatar_never_tells_a_start_a_cut_utterance_that_should_have_been_heard_was_started(rig):
    utterance = rig.say("a", 3)
    rig.tell(appended(utterance))
    rig.run(0.7)
    rig.interrupt()
    rig.cleared()
    assert rig.story("a") == ["started", "interrupted"]
    assert rig.end_of("a").played_s == pytest.approx(0.5)


def test_where_liveavatar_never_tells_a_start_a_cut_utterance_that_was_too_young_was_not_heard(rig):
    utterance = rig.say("a", 3)
    rig.tell(appended(utterance))
    rig.run(0.1)
    rig.interrupt()
    rig.cleared()
    assert (rig.story("a"), rig.end_of("a").played_s) == (["interrupted"], 0.0)


def test_where_liveavatar_tells_starts_a_cut_utterance_without_one_was_not_heard(rig):
    first = rig.say("a", 0.4)
    rig.tell(started(first))
    rig.run(0.4)
    rig.tell(ended(first))
    second = rig.say("b", 3)
    rig.tell(appended(second))
    rig.run(0.5)
    rig.interrupt()
    rig.cleared()
    assert (rig.story("b"), rig.end_of("b").played_s) == (["interrupted"], 0.0)


def test_a_rejected_utterance_that_is_cut_stays_failed(rig):
    error = InvalidField("bad", field="chunk.audio")
    utterance = rig.begin("a")
    rig.receive(utterance, rig.pcm(1))
    rig.seal(utterance, error)
    rig.interrupt()
    rig.cleared()
    assert (rig.end_of("a").outcome.value, rig.end_of("a").error) == ("failed", error)


def test_played_is_counted_once_over_cut_and_completed_utterances(rig, speaking):
    rig.interrupt()
    rig.cleared()
    second = rig.say("b", 0.4)
    rig.tell(started(second))
    rig.run(0.4)
    rig.tell(ended(second))
    assert rig.speech.totals.played_s == pytest.approx(1.4)


def test_an_utterance_after_a_cut_is_heard_from_its_own_beginning(rig, speaking):
    rig.interrupt()
    rig.cleared()
    second = rig.say("b", 2)
    rig.tell(started(second))
    rig.run(0.5)
    assert second.position_s(rig.speech.clock, rig.now_s) == pytest.approx(0.5)


def test_an_utterance_that_starts_while_its_interrupt_is_on_its_way_is_told_as_started(rig):
    utterance = rig.say("u1", 3.0)
    rig.interrupt()
    rig.run(0.2)
    rig.tell(m.SpeakStarted(m.Refs((utterance.upstream_id,))))
    rig.run(0.3)
    rig.cleared()
    assert rig.story("u1") == ["started", "interrupted"]
    assert rig.end_of("u1").played_s == pytest.approx(0.3)


# --- an interrupt by id


def test_an_interrupt_by_id_leaves_those_behind_it_whole(rig, speaking):
    second = rig.say("b", 1)
    rig.interrupt("a")
    rig.cleared()
    rig.run(1)
    assert rig.sent(second.upstream_id) == rig.pcm(1)
    assert rig.story("a") == ["started", "interrupted"]


def test_an_unknown_id_is_refused_and_cuts_nothing(rig, speaking):
    with pytest.raises(UtteranceNotFound) as refused:
        rig.interrupt("x")
    assert refused.value.metadata == {"utterance_id": "x"}
    assert rig.cuts == []


def test_an_ended_utterance_is_answered_empty(rig):
    rig.seal(rig.begin("a"))
    rig.say("b", 1)
    interrupt_id = rig.interrupt("a")
    assert rig.answer(interrupt_id) == []
    assert rig.cuts == []


def test_a_queued_utterance_is_dropped_without_touching_the_one_that_plays(rig, speaking):
    second = rig.say("b", 1)
    interrupt_id = rig.interrupt("b")
    assert [end.utterance_id for end in rig.answer(interrupt_id)] == ["b"]
    assert rig.cuts == []
    rig.run(1)
    assert rig.story("a") == ["started"]
    assert rig.sent(second.upstream_id) == b""


def test_a_cancelled_utterance_is_cut_when_it_is_being_spoken(rig, speaking):
    rig.session.cancel(speaking)
    rig.wake()
    rig.cleared()
    assert rig.story("a") == ["started", "interrupted"]


def test_cancelling_an_ended_utterance_changes_nothing(rig):
    utterance = rig.begin("a")
    rig.seal(utterance)
    rig.session.cancel(utterance)
    assert rig.story("a") == ["completed"]


def test_an_interrupt_of_an_ended_session_is_refused(rig):
    rig.session.end(EndReason.CALLER_ENDED, rig.now_s)
    with pytest.raises(SessionEnded):
        rig.interrupt()


# --- an utterance that was sent early, behind the interrupted one


def test_an_utterance_sent_early_is_sent_again_whole_under_a_fresh_id(rig, near_the_end):
    _, second = near_the_end
    old_id = second.upstream_id
    rig.interrupt("a")
    sent_before = len(rig.packets)
    rig.run(0.1)
    rig.cleared()
    assert second.upstream_id != old_id
    assert all(packet.event_id != old_id for packet in rig.packets[sent_before:])
    rig.tell(started(second))
    rig.run(2)
    rig.tell(ended(second))
    assert rig.sent(second.upstream_id) == b"".join(rig.pcm(0.5, fill=fill) for fill in range(1, 5))
    assert rig.story("b") == ["started", "completed"]
    assert rig.end_of("b").played_s == pytest.approx(2)


def test_events_under_its_old_id_are_ignored(rig, near_the_end):
    _, second = near_the_end
    old_id = second.upstream_id
    rig.interrupt("a")
    rig.cleared()
    rig.tell(m.SpeakInterrupted(m.Refs((old_id,))), m.Appended(m.Refs((old_id,))))
    rig.tell(m.SpeakStarted(m.Refs((old_id,))), m.SpeakEnded(m.Refs((old_id,))))
    assert (rig.story("b"), second.confirmed) == ([], 0)


@pytest.mark.parametrize("sign", ["id", "none", "pose"])
def test_a_start_that_the_interrupt_overtakes_costs_no_audio(rig, near_the_end, sign):
    """`a` ends by itself while the interrupt is in flight, so that `b` starts and is dropped."""
    _, second = near_the_end
    rig.interrupt("a")
    rig.tell({"id": started(second), "none": m.SpeakStarted(m.Refs()), "pose": TALKING}[sign])
    rig.cleared()
    rig.tell(started(second))
    rig.run(2)
    rig.tell(ended(second))
    assert rig.sent(second.upstream_id) == b"".join(rig.pcm(0.5, fill=fill) for fill in range(1, 5))
    assert rig.story("b") == ["started", "completed"]
    assert len(rig.story("a")) == 2


def test_an_interrupt_whose_utterance_ends_before_it_went_out_is_not_sent(rig, near_the_end):
    first, second = near_the_end
    rig.run(0.2)
    interrupt_id = rig.session.interrupt("a")
    rig.tell(ended(first))
    rig.run(0.9)
    assert rig.cuts == []
    rig.tell(started(second))
    rig.run(2)
    rig.tell(ended(second))
    assert rig.story("a") == ["started", "completed"]
    assert rig.answer(interrupt_id) == []
    assert rig.sent(second.upstream_id) == b"".join(rig.pcm(0.5, fill=fill) for fill in range(1, 5))
    assert rig.story("b") == ["started", "completed"]


def test_nothing_is_concluded_while_an_interrupt_is_on_its_way(make_rig):
    rig = make_rig({"interrupt_timeout_s": 30.0}).ready()
    first, second = rig.say("a", 0.4), rig.say("b", 2)
    rig.tell(appended(first), appended(second))
    rig.interrupt("a")
    for _ in range(8):
        rig.run(1)
        rig.wake()
    assert rig.story("a") == rig.story("b") == []
    rig.cleared()
    rig.run(2)
    assert rig.sent(second.upstream_id) == rig.pcm(2)


def test_an_early_utterance_that_was_played_whole_before_the_interrupt_has_ended(rig):
    first, second = rig.say("a", 0.4), rig.say("b", 0.4)
    rig.tell(started(first))
    interrupt_id = rig.interrupt("a")
    rig.tell(ended(second))
    rig.cleared()
    assert (rig.story("a"), rig.story("b")) == (["started", "completed"], ["started", "completed"])
    assert rig.answer(interrupt_id) == []


def test_cutting_the_early_one_cuts_what_is_before_it_too(rig, near_the_end):
    """LiveAvatar drops all its audio; it cannot drop the second utterance alone."""
    interrupt_id = rig.interrupt("b")
    rig.cleared()
    assert [end.utterance_id for end in rig.answer(interrupt_id)] == ["a", "b"]


# --- concurrent interrupts


def test_two_interrupts_of_the_same_share_one_command_and_both_are_answered(rig, speaking):
    first, second = rig.interrupt("a"), rig.interrupt()
    rig.cleared()
    assert len(rig.cuts) == 1
    assert [end.utterance_id for end in rig.answer(first)] == ["a"]
    assert [end.utterance_id for end in rig.answer(second)] == ["a"]


def test_an_interrupt_of_all_behind_one_by_id_is_answered_with_all(rig, speaking):
    rig.say("b", 1)
    first, second = rig.interrupt("a"), rig.interrupt()
    rig.cleared()
    assert [end.utterance_id for end in rig.answer(first)] == ["a"]
    assert [end.utterance_id for end in rig.answer(second)] == ["a", "b"]
    assert rig.story("b") == ["interrupted"]


def test_interrupts_of_two_utterances_are_both_answered(rig, near_the_end):
    """The second must not replace the first, whose caller would then wait forever."""
    interrupt_ids = rig.interrupt("a"), rig.interrupt("b")
    rig.cleared()
    assert [[end.utterance_id for end in rig.answer(one)] for one in interrupt_ids] == [["a"], ["b"]]
    assert len(rig.cuts) == 1
    assert rig.story("b") == ["interrupted"]
    assert rig.speech.active == []


def test_an_interrupt_of_all_while_one_is_on_its_way_cuts_what_came_meanwhile(rig, speaking):
    rig.interrupt()
    rig.say("b", 1)
    interrupt_id = rig.interrupt("b")
    assert [end.utterance_id for end in rig.answer(interrupt_id)] == ["b"]
    rig.cleared()
    assert rig.speech.active == []


def test_the_end_of_the_session_answers_interrupts_on_their_way(rig, speaking):
    interrupt_id = rig.interrupt()
    rig.session.end(EndReason.UPSTREAM_FAILED, rig.now_s)
    assert [end.utterance_id for end in rig.answer(interrupt_id)] == ["a"]
    assert rig.story("a") == ["started", "interrupted"]
