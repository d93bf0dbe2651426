"""The playback clock: what the avatar has said by a given moment."""

from hypothesis import given
from hypothesis import strategies as st

from liveavatar_emulator.playback import BYTES_PER_SECOND, Change, Cut, Ended, Outcome, Playback, RanDry, Started

SECOND = BYTES_PER_SECOND


def run(playback: Playback, until_s: float) -> list[Change]:
    changes = []
    while (change := playback.fire(until_s)) is not None:
        changes.append(change)
    return changes


def names(changes: list[Change]) -> list[str]:
    return [type(change).__name__ for change in changes]


def test_speech_starts_a_delay_after_its_first_chunk():
    playback = Playback(start_delay_s=0.2)
    playback.append(SECOND, "u1", 10.0)
    assert playback.next_due_s() == 10.2
    assert run(playback, 10.1) == []
    (started,) = run(playback, 10.2)
    assert isinstance(started, Started)
    assert started.utterance.source_event_id == "u1"


def test_a_sealed_utterance_ends_when_its_audio_is_out():
    playback = Playback(start_delay_s=0.2)
    playback.append(SECOND, "u1", 0.0)
    playback.append(SECOND, "u1", 0.1)
    playback.speak_end(0.15)
    _, ended = run(playback, 99.0)
    assert isinstance(ended, Ended)
    assert ended.at_s == 2.2
    assert ended.utterance.outcome is Outcome.ENDED
    assert ended.utterance.played_bytes == 2 * SECOND


def test_changes_happen_at_their_due_time_however_late_they_are_asked_for():
    playback = Playback(start_delay_s=0.2)
    playback.append(SECOND, "u1", 0.0)
    playback.speak_end(0.0)
    assert [change.at_s for change in run(playback, 50.0)] == [0.2, 1.2]


def test_an_open_utterance_does_not_end_when_it_runs_dry():
    playback = Playback(start_delay_s=0.0)
    utterance = playback.append(SECOND, "u1", 0.0).utterance
    assert names(run(playback, 60.0)) == ["Started", "RanDry"]
    assert utterance.outcome is Outcome.OPEN
    assert playback.next_due_s() is None


def test_a_dry_spell_is_an_underrun_only_when_audio_follows_it():
    playback = Playback(start_delay_s=0.0)
    utterance = playback.append(SECOND, "u1", 0.0).utterance
    run(playback, 3.0)
    assert utterance.underruns == []
    appended = playback.append(SECOND, "u1", 3.0)
    assert appended.underrun is not None
    assert (appended.underrun.dry_at_s, appended.underrun.resumed_at_s) == (1.0, 3.0)


def test_a_dry_end_is_not_an_underrun():
    playback = Playback(start_delay_s=0.0)
    utterance = playback.append(SECOND, "u1", 0.0).utterance
    run(playback, 5.0)
    playback.speak_end(5.0)
    (ended,) = run(playback, 5.0)
    assert ended.at_s == 5.0
    assert utterance.underruns == []


def test_playback_resumes_from_where_it_ran_dry():
    playback = Playback(start_delay_s=0.0)
    utterance = playback.append(SECOND, "u1", 0.0).utterance
    run(playback, 3.0)
    playback.append(SECOND, "u1", 3.0)
    assert playback.playhead_bytes(utterance, 3.5) == SECOND + SECOND // 2
    playback.speak_end(3.5)
    assert run(playback, 99.0)[-1].at_s == 4.0


def test_queued_utterances_play_one_after_another():
    playback = Playback(start_delay_s=0.2)
    for name in ("a", "b"):
        playback.append(SECOND, name, 0.0)
        playback.speak_end(0.0)
    changes = run(playback, 99.0)
    assert names(changes) == ["Started", "Ended", "Started", "Ended"]
    assert [round(change.at_s, 6) for change in changes] == [0.2, 1.2, 1.2, 2.2]


def test_a_later_utterance_waits_for_its_own_start_delay():
    playback = Playback(start_delay_s=0.2)
    playback.append(SECOND, "a", 0.0)
    playback.speak_end(0.0)
    playback.append(SECOND, "b", 1.1)
    assert run(playback, 99.0)[2].at_s == 1.1 + 0.2


def test_start_can_wait_for_a_buffered_amount():
    playback = Playback(start_delay_s=0.0, start_after_s=1.0)
    playback.append(SECOND // 2, "u1", 0.0)
    assert run(playback, 5.0) == []
    playback.append(SECOND // 2, "u1", 6.0)
    assert run(playback, 6.0)[0].at_s == 6.0


def test_speak_end_starts_an_utterance_that_is_too_short_to_fill_the_buffer():
    playback = Playback(start_delay_s=0.0, start_after_s=1.0)
    playback.append(SECOND // 10, "u1", 0.0)
    playback.speak_end(2.0)
    assert run(playback, 2.0)[0].at_s == 2.0


def test_an_interrupt_cuts_at_its_effect_and_audio_plays_until_then():
    playback = Playback(start_delay_s=0.0)
    utterance = playback.append(10 * SECOND, "u1", 0.0).utterance
    run(playback, 1.0)
    playback.interrupt("i1", effective_at_s=1.25, now_s=1.0)
    (cut,) = run(playback, 5.0)
    assert isinstance(cut, Cut)
    assert (cut.event_id, cut.received_at_s, cut.at_s, cut.head) == ("i1", 1.0, 1.25, utterance)
    assert utterance.outcome is Outcome.INTERRUPTED
    assert utterance.played_bytes == SECOND * 5 // 4


def test_an_interrupt_drops_what_is_queued_behind_the_head_unheard():
    playback = Playback(start_delay_s=0.0)
    for name in ("a", "b", "c"):
        playback.append(SECOND, name, 0.0)
        playback.speak_end(0.0)
    run(playback, 0.5)
    playback.interrupt(None, effective_at_s=0.6, now_s=0.5)
    (cut,) = run(playback, 99.0)
    assert isinstance(cut, Cut)
    assert [u.source_event_id for u in cut.dropped] == ["b", "c"]
    assert [u.played_bytes for u in cut.dropped] == [0, 0]


def test_audio_after_an_interrupt_opens_a_new_utterance_that_survives_the_cut():
    playback = Playback(start_delay_s=0.0)
    old = playback.append(10 * SECOND, "u1", 0.0).utterance
    run(playback, 1.0)
    playback.interrupt("i1", effective_at_s=1.2, now_s=1.0)
    new = playback.append(SECOND, "u1", 1.1)
    assert new.opened
    assert new.utterance is not old
    changes = run(playback, 1.3)
    assert names(changes) == ["Cut", "Started"]
    assert changes[1].at_s == 1.2


def test_an_utterance_that_ends_before_the_cut_has_ended_and_was_not_interrupted():
    playback = Playback(start_delay_s=0.0)
    utterance = playback.append(SECOND, "u1", 0.0).utterance
    playback.speak_end(0.0)
    run(playback, 0.95)
    playback.interrupt("i1", effective_at_s=1.15, now_s=0.95)
    ended, cut = run(playback, 2.0)
    assert isinstance(ended, Ended)
    assert isinstance(cut, Cut)
    assert cut.head is None
    assert utterance.outcome is Outcome.ENDED


def test_an_interrupt_with_nothing_queued_still_takes_effect():
    playback = Playback()
    playback.interrupt("i1", effective_at_s=0.19, now_s=0.0)
    assert playback.next_due_s() == 0.19
    (cut,) = run(playback, 1.0)
    assert isinstance(cut, Cut)
    assert cut.head is None


def test_speak_end_with_nothing_open_is_harmless():
    playback = Playback()
    assert playback.speak_end(1.0) is None
    assert playback.next_due_s() is None


def test_speed_multiplies_the_rate():
    playback = Playback(speed=4.0, start_delay_s=0.0)
    playback.append(4 * SECOND, "u1", 0.0)
    playback.speak_end(0.0)
    assert run(playback, 9.0)[-1].at_s == 1.0


def test_changing_speed_keeps_what_was_played():
    playback = Playback(speed=1.0, start_delay_s=0.0)
    utterance = playback.append(4 * SECOND, "u1", 0.0).utterance
    playback.speak_end(0.0)
    run(playback, 1.0)
    playback.configure(speed=3.0, start_delay_s=0.0, start_after_s=0.0, now_s=1.0)
    assert playback.playhead_bytes(utterance, 1.0) == SECOND
    assert run(playback, 9.0)[-1].at_s == 2.0


def test_freezing_leaves_the_playhead_where_it_was():
    playback = Playback(start_delay_s=0.0)
    utterance = playback.append(4 * SECOND, "u1", 0.0).utterance
    run(playback, 1.5)
    playback.freeze(1.5)
    assert playback.next_due_s() is None
    assert playback.playhead_bytes(utterance, 60.0) == SECOND * 3 // 2
    assert utterance.outcome is Outcome.OPEN


def test_the_playhead_stands_on_whole_samples():
    playback = Playback(start_delay_s=0.0)
    utterance = playback.append(SECOND, "u1", 0.0).utterance
    run(playback, 0.0)
    assert all(playback.playhead_bytes(utterance, n * 0.00001) % 2 == 0 for n in range(200))


steps = st.lists(
    st.tuples(
        st.sampled_from(["speak", "speak", "speak", "end", "interrupt", "wait"]),
        st.floats(min_value=0, max_value=1.5),
        st.integers(min_value=1, max_value=40_000).map(lambda samples: 2 * samples),
    ),
    max_size=40,
)


@given(steps=steps)
def test_any_course_of_commands_leaves_a_consistent_history(steps):
    """Changes come in order, each utterance starts and ends at most once, and none plays what it lacks."""
    playback = Playback()
    now_s = 0.0
    seen: list[Change] = []
    utterances = {}
    playheads: dict[int, int] = {}
    for what, wait_s, size_bytes in steps:
        now_s += wait_s
        seen += run(playback, now_s)
        if what == "speak":
            utterance = playback.append(size_bytes, None, now_s).utterance
            utterances[utterance.number] = utterance
        elif what == "end":
            playback.speak_end(now_s)
        elif what == "interrupt":
            playback.interrupt(None, effective_at_s=now_s + 0.19, now_s=now_s)
        for number, utterance in utterances.items():
            playhead = playback.playhead_bytes(utterance, now_s)
            assert playheads.get(number, 0) <= playhead <= utterance.received_bytes
            playheads[number] = playhead
    playback.speak_end(now_s)
    seen += run(playback, now_s + 10_000)

    assert playback.next_due_s() is None
    assert [change.at_s for change in seen] == sorted(change.at_s for change in seen)
    assert all(u.outcome is not Outcome.OPEN for u in utterances.values())
    for utterance in utterances.values():
        starts = [c for c in seen if isinstance(c, Started) and c.utterance is utterance]
        ends = [c for c in seen if isinstance(c, Ended) and c.utterance is utterance]
        cuts = [c for c in seen if isinstance(c, Cut) and (c.head is utterance or utterance in c.dropped)]
        assert len(starts) <= 1
        assert len(ends) + len(cuts) == 1
        if ends:
            assert utterance.played_bytes == utterance.received_bytes
            assert starts
    dry = [c for c in seen if isinstance(c, RanDry)]
    assert len(dry) >= sum(len(u.underruns) for u in utterances.values())
