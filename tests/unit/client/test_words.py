"""Timings of words: the shapes of text-to-speech services, and the text that they give."""

from datetime import timedelta
from types import SimpleNamespace

import pytest

from liveavatar.gateway import Word
from liveavatar.gateway.words import MAX_ITEMS, SpokenText, counts_from_its_piece, is_timed

HTTP = {
    "characters": list("Hi you"),
    "character_start_times_seconds": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
    "character_end_times_seconds": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
}
SOCKET = {"chars": list("Hi"), "charStartTimesMs": [0, 100], "charDurationsMs": [100, 150]}
CARTESIA = {"words": ["Hi,", "you"], "start": [0.0, 0.3], "end": [0.2, 0.6]}


def sent(words) -> tuple[list[str], list[int], list[int]]:
    message = SpokenText(words).restart()
    return list(message.texts), list(message.start_ms), list(message.end_ms)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (HTTP, (list("Hi you"), [0, 100, 200, 300, 400, 500], [100, 200, 300, 400, 500, 600])),
        (SimpleNamespace(**HTTP), (list("Hi you"), [0, 100, 200, 300, 400, 500], [100, 200, 300, 400, 500, 600])),
        (SOCKET, (["H", "i"], [0, 100], [100, 250])),
        (
            {"chars": ["a"], "char_start_times_ms": [5], "char_durations_ms": [2]},
            (["a"], [5], [7]),
        ),
        (CARTESIA, (["Hi,", " you"], [0, 300], [200, 600])),
        (SimpleNamespace(**CARTESIA), (["Hi,", " you"], [0, 300], [200, 600])),
        (Word("Hi", 0.5, 1.0), (["Hi"], [500], [1000])),
        ([Word("Hi ", 0, 0.5), Word("you", 0.5)], (["Hi ", "you"], [0, 500], [500, 500])),
        ([Word("Hi", 0), Word("you", 0.5)], (["Hi", " you"], [0, 500], [])),
        ([CARTESIA, Word("!", 0.7, 0.8)], (["Hi,", " you", "!"], [0, 300, 700], [200, 600, 800])),
        (iter([CARTESIA, None]), (["Hi,", " you"], [0, 300], [200, 600])),
        # Times never go back, and an end is never before its start.
        ([Word("a", 1.0, 0.5), Word("b", 0.2, 0.3)], (["a", " b"], [1000, 1000], [1000, 1000])),
        ([Word("a", 1.0), Word("", 2.0)], (["a"], [1000], [])),
    ],
)
def test_the_shapes_of_timings(words, expected):
    assert sent(words) == expected


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (["Hello", ",", "dear", "world", "!"], "Hello, dear world!"),
        (["(", "yes", ")", "no"], "(yes) no"),
        (["It", "'s", "me"], "It's me"),
        (["今日", "は", "良い"], "今日は良い"),
        (["iPhone", "很好"], "iPhone 很好"),
        (["สวัสดี", "ครับ"], "สวัสดีครับ"),
        (["안녕", "하세요"], "안녕 하세요"),
        (["one ", "two", " three"], "one two three"),
    ],
)
def test_a_space_is_put_between_words_that_have_none(texts, joined):
    assert "".join(sent([Word(text, number) for number, text in enumerate(texts)])[0]) == joined


@pytest.mark.parametrize("words", [7, "text", b"text", {"other": 1}, [3], object()])
def test_what_holds_no_timings_is_refused(words):
    with pytest.raises(TypeError, match="words must be Word objects"):
        SpokenText(words)


@pytest.mark.parametrize(
    "words",
    [
        {**HTTP, "character_end_times_seconds": [0.1]},
        {**SOCKET, "charDurationsMs": []},
        {"words": ["a"], "start": [0.0], "end": None},
        Word("a", float("nan")),
    ],
)
def test_an_alignment_needs_all_its_times(words):
    with pytest.raises(ValueError, match=r"texts with|NaN"):
        SpokenText(words)


def test_an_offset_moves_all_times():
    text = SpokenText()
    assert not text
    text.add(SOCKET, offset_s=2.0)
    message = text.restart()
    assert (list(message.start_ms), list(message.end_ms)) == ([2000, 2100], [2100, 2250])


def test_each_stream_gets_all_timings_once():
    text = SpokenText([Word(f"{number} ", number) for number in range(MAX_ITEMS + 2)])
    first, second = text.restart(), text.take()
    assert (first.first_item, len(first.texts), second.first_item, len(second.texts)) == (0, 1000, 1000, 2)
    assert not text.has_unsent
    assert text.take() is None
    text.add(Word("later", 9999))
    assert text.take().first_item == 1002
    assert text.restart().first_item == 0


def test_a_gateway_that_refuses_timings_gets_no_more():
    text = SpokenText(HTTP)
    text.refuse()
    assert text.restart() is None


@pytest.mark.parametrize(
    ("played_s", "whole", "heard"),
    [(0.0, False, ""), (0.15, False, "Hi"), (0.3, False, "Hi "), (0.3, True, "Hi you"), (5, False, "Hi you")],
)
def test_the_text_that_was_heard_follows_the_rule_of_the_gateway(played_s, whole, heard):
    assert SpokenText(HTTP).heard(timedelta(seconds=played_s), is_complete=whole) == heard


def test_a_word_without_an_end_lasts_to_the_next():
    text = SpokenText([Word("one", 0), Word("two", 1.0)])
    assert text.heard(timedelta(seconds=0.4), is_complete=False) == ""
    assert text.heard(timedelta(seconds=0.5), is_complete=False) == "one"
    assert text.heard(timedelta(seconds=1.0), is_complete=False) == "one two"


async def test_words_of_an_async_iterable_come_later():
    async def words():
        yield Word("a", 0)

    text = SpokenText(words())
    assert (bool(text), text.is_finished) == (False, False)
    text.finish()
    assert text.is_finished


def test_timings_between_pieces_of_audio_are_told_from_samples():
    assert all(map(is_timed, (Word("a", 0), [Word("a", 0)], HTTP, SOCKET, CARTESIA)))
    assert not any(map(is_timed, (b"ab", bytearray(2), memoryview(b"ab"), "text", 3)))
    assert counts_from_its_piece(SOCKET)
    assert not counts_from_its_piece(HTTP)
