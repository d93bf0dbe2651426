"""Words of an utterance: the text that was heard has no hole, and ends where the avatar fell silent."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import GatewayError, TimingsGap, TimingsInvalid, TimingsLimit
from liveavatar_gateway.core.events import SpeechPaused, UtteranceEnded
from liveavatar_gateway.core.speech import words
from liveavatar_gateway.core.speech.words import TimedText, UtteranceText, with_text
from liveavatar_gateway.core.states import Outcome

HELLO = TimedText(["Hello, ", "dear ", "world."], [0, 500, 1000], [400, 900, 1600])


def text_of(*pieces: TimedText, room_chars: int = words.MAX_SESSION_CHARS) -> UtteranceText:
    text = UtteranceText("u")
    for piece in pieces:
        text.add(piece, room_chars=room_chars, field="timings.text")
    return text


def refusal(text: UtteranceText, piece: TimedText, *, room_chars: int = words.MAX_SESSION_CHARS) -> GatewayError:
    before = text.heard(1e6)
    with pytest.raises(GatewayError) as refused:
        text.add(piece, room_chars=room_chars, field="timings.text")
    assert text.heard(1e6) == before, "a refused piece changed the text"
    return refused.value


# --- what was heard


@pytest.mark.parametrize(
    ("played_s", "heard"),
    [
        (0.0, ""),
        (0.199, ""),
        (0.2, "Hello, "),
        (0.699, "Hello, "),
        (0.7, "Hello, dear "),
        (1.299, "Hello, dear "),
        (1.3, "Hello, dear world."),
        (9.0, "Hello, dear world."),
    ],
)
def test_a_word_was_heard_from_its_middle_on(played_s, heard):
    assert text_of(HELLO).heard(played_s) == heard


def test_characters_are_joined_as_they_are():
    text = text_of(TimedText(list("Hi, you"), list(range(0, 700, 100)), list(range(100, 800, 100))))
    assert text.heard(0.44) == "Hi, "


def test_a_word_without_an_end_lasts_to_the_next():
    text = text_of(TimedText(["one ", "two "], [0, 1000]))
    assert text.heard(0.49) == ""
    assert text.heard(0.5) == "one "
    # Nothing is known after its start.
    assert text.heard(1.0) == "one two "
    text.add(TimedText(["three"], [2000]), room_chars=100, field="")
    assert text.heard(1.49) == "one "
    assert text.heard(1.5) == "one two "


def test_the_end_of_a_word_may_lie_behind_the_next():
    text = text_of(TimedText(["long ", "short "], [0, 100], [2000, 200]))
    assert text.heard(0.5) == ""
    assert text.heard(1.0) == "long short "


def test_the_text_of_an_utterance_that_was_heard_whole_may_reach_beyond_its_audio():
    text = text_of(TimedText(["one ", "two ", "three"], [0, 1000, 3000], [900, 2400, 4000]))
    assert text.heard(1.4, is_complete=True) == "one two "
    assert text.heard(1.4) == "one "


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=5), st.integers(0, 3000), st.integers(0, 2000)), max_size=30),
    st.lists(st.integers(0, 29), max_size=8),
    st.integers(0, 3),
    st.floats(0, 100),
    st.floats(0, 100),
)
def test_any_cut_into_pieces_gives_the_same_text_which_only_grows(items, cuts, overlap, early_s, late_s):
    texts = [text for text, _, _ in items]
    starts = [sum(step for _, step, _ in items[: index + 1]) for index in range(len(items))]
    ends = [start + length for start, (_, _, length) in zip(starts, items, strict=True)]
    whole = text_of(TimedText(texts, starts, ends))
    pieces = UtteranceText("u")
    for begin, end in pairwise(sorted({0, *(cut for cut in cuts if cut < len(items)), len(items)})):
        first = max(0, begin - overlap)
        piece = TimedText(texts[first:end], starts[first:end], ends[first:end], first)
        pieces.add(piece, room_chars=1000, field="")
    early_s, late_s = sorted((early_s, late_s))
    assert pieces.heard(early_s) == whole.heard(early_s)
    assert whole.heard(late_s).startswith(whole.heard(early_s))
    assert "".join(texts).startswith(whole.heard(late_s))
    assert whole.heard(1e6) == "".join(texts)
    assert whole.char_count == pieces.char_count == len("".join(texts))


# --- pieces


def test_pieces_continue_the_text():
    text = text_of(TimedText(["a"], [0], [10]), TimedText([], []), TimedText(["b"], [10], [20]))
    assert text.heard(1.0) == "ab"


def test_repeated_pieces_do_not_double_the_text():
    text = text_of(HELLO)
    # After a broken stream its caller sends all of it again, in other pieces.
    text.add(TimedText(HELLO.texts[:2], HELLO.start_ms[:2], HELLO.end_ms[:2], 0), room_chars=100, field="")
    assert text.heard(9.0) == "Hello, dear world."
    text.add(TimedText(["world.", " Bye"], [1000, 2000], [1600, 2100]), room_chars=100, field="")
    assert text.heard(9.0) == "Hello, dear world. Bye"


def test_a_gap_is_refused_and_the_text_continues_after_it_only_by_number():
    text = text_of(HELLO)
    gap = refusal(text, TimedText(["!"], [2000], [2100], 4))
    assert isinstance(gap, TimingsGap)
    assert gap.metadata == {"utterance_id": "u", "expected": "3", "got": "4"}
    assert gap.field == "timings.text.first_item"
    text.add(TimedText(["lost"], [3000], [3100]), room_chars=100, field="")
    assert text.heard(9.0) == "Hello, dear world."
    text.add(TimedText([" Bye"], [3000], [3100], 3), room_chars=100, field="")
    text.add(TimedText(["."], [3100], [3100]), room_chars=100, field="")
    assert text.heard(9.0) == "Hello, dear world. Bye."


@pytest.mark.parametrize(
    ("piece", "field"),
    [
        (TimedText(["a"] * 1001, [0] * 1001), "texts"),
        (TimedText([""], [0]), "texts"),
        (TimedText(["a" * 257], [0]), "texts"),
        (TimedText(["a", "b"], [0]), "start_ms"),
        (TimedText(["a"], [0, 1]), "start_ms"),
        (TimedText(["a", "b"], [1, 0]), "start_ms"),
        (TimedText(["a"], [-1]), "start_ms"),
        (TimedText(["a"], [86_400_001]), "start_ms"),
        (TimedText(["a", "b"], [0, 1], [5]), "end_ms"),
        (TimedText(["a"], [10], [9]), "end_ms"),
        (TimedText(["a"], [10], [86_400_001]), "end_ms"),
        (TimedText(["a"], [0], [], -1), "first_item"),
        # Seconds in place of milliseconds.
        (TimedText(["word "] * 250, list(range(250))), "start_ms"),
    ],
)
def test_impossible_timings_are_refused_by_their_field(piece, field):
    error = refusal(text_of(), piece)
    assert isinstance(error, TimingsInvalid)
    assert error.field == f"timings.text.{field}"


def test_times_never_go_back_from_piece_to_piece():
    assert refusal(text_of(HELLO), TimedText(["a"], [999])).field == "timings.text.start_ms"


def test_the_text_of_an_utterance_is_bounded():
    text = UtteranceText("u")
    for start in range(0, words.MAX_CHARS, 250):
        text.add(TimedText(["a" * 250], [start * 10]), room_chars=words.MAX_CHARS, field="")
    error = refusal(text, TimedText(["a"], [words.MAX_MS]))
    assert isinstance(error, TimingsLimit)
    assert (error.metadata["limit"], error.metadata["scope"]) == ("100000", "utterance")


def test_the_text_of_a_session_is_bounded():
    error = refusal(text_of(), TimedText(["abc"], [0]), room_chars=2)
    assert isinstance(error, TimingsLimit)
    assert (error.metadata["limit"], error.metadata["scope"]) == ("200000", "session")


# --- an end that another process reported


@pytest.mark.parametrize(
    ("outcome", "heard"), [(Outcome.INTERRUPTED, "Hello, "), (Outcome.COMPLETED, "Hello, dear world.")]
)
def test_an_end_gets_its_text_from_timings_that_came_again(outcome, heard):
    assert with_text(UtteranceEnded("u", outcome, 0.5), HELLO, field="begin.text").heard_text == heard


# --- in a session


def _say(rig, utterance_id: str, seconds: float, piece: TimedText = HELLO):
    utterance = rig.say(utterance_id, seconds)
    rig.speech.add_text(utterance, piece, field="timings.text")
    return utterance


def _start(rig, utterance) -> None:
    rig.acknowledge()
    rig.tell(m.SpeakStarted(m.Refs((utterance.upstream_id,))))


def test_an_interrupt_answers_the_text_that_was_heard(rig):
    playing = _say(rig, "u1", 4.0)
    _say(rig, "u2", 1.0)
    # As after a broken stream.
    rig.speech.add_text(playing, replace(HELLO, first_item=0), field="begin.text")
    _start(rig, playing)
    rig.run(1.0)
    interrupt_id = rig.interrupt()
    rig.cleared()
    assert [(one.utterance_id, one.heard_text) for one in rig.answer(interrupt_id)] == [
        ("u1", "Hello, dear "),
        ("u2", ""),
    ]
    assert rig.end_of("u1").heard_text == "Hello, dear "
    assert "dear" not in repr(rig.end_of("u1")), "the text would get into logs"


def test_an_utterance_without_timings_has_no_text(rig):
    utterance = rig.say("u", 1.0)
    _start(rig, utterance)
    rig.run(2.0)
    rig.tell(m.SpeakEnded(m.Refs((utterance.upstream_id,))))
    assert rig.end_of("u").heard_text == ""


def test_an_utterance_that_was_heard_whole_has_its_whole_text(rig):
    utterance = _say(rig, "u", 1.5)
    _start(rig, utterance)
    rig.run(2.0)
    rig.tell(m.SpeakEnded(m.Refs((utterance.upstream_id,))))
    assert (rig.end_of("u").outcome, rig.end_of("u").heard_text) == (Outcome.COMPLETED, "Hello, dear world.")


def test_a_pause_answers_the_text_that_was_heard_and_repeats_none(rig):
    utterance = _say(rig, "u", 4.0)
    _start(rig, utterance)
    rig.run(1.0)
    call_id = rig.pause()
    rig.cleared()
    assert rig.pause_answer(call_id).heard_text == "Hello, dear "
    assert rig.of(SpeechPaused)[0].heard_text == "Hello, dear "
    assert "dear" not in repr((rig.of(SpeechPaused), rig.pause_answer(call_id)))
    rig.continue_speech()
    interrupt_id = rig.interrupt()
    rig.cleared()
    assert rig.answer(interrupt_id)[0].heard_text == "Hello, dear "


def test_the_utterances_of_a_session_share_the_bound_of_its_text(rig, monkeypatch):
    monkeypatch.setattr("liveavatar_gateway.core.speech.queue.MAX_SESSION_CHARS", 20)
    _say(rig, "u1", 1.0)
    with pytest.raises(TimingsLimit):
        _say(rig, "u2", 1.0)
    assert rig.speech.find_by_id("u1").text.char_count == 18
    assert rig.speech.find_by_id("unknown") is None
