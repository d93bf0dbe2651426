"""Words appear when they are heard."""

import pytest

from liveavatar_demo.captions import words_heard

WORDS = ["one", "three", "seventeen"]


def test_no_word_before_the_first_sound_and_all_at_the_end():
    assert words_heard(WORDS, 0.0, 4.0) == 0
    assert words_heard(WORDS, 0.01, 4.0) == 1
    assert words_heard(WORDS, 4.0, 4.0) == 3
    assert words_heard(WORDS, 9.0, 4.0) == 3


@pytest.mark.parametrize(("letters", "words"), [(3.9, 1), (4.1, 2), (9.9, 2), (10.1, 3)])
def test_a_long_word_takes_longer(letters: float, words: int):
    total = sum(len(word) + 1 for word in WORDS)
    assert words_heard(WORDS, letters, float(total)) == words


def test_words_never_go_back():
    heard = [words_heard(WORDS, ms / 1000, 4.0) for ms in range(4001)]
    assert heard == sorted(heard)


def test_audio_without_a_length_has_all_its_words():
    assert words_heard(WORDS, 0.0, 0.0) == 3
