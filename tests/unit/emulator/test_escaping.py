"""Escapes for texts of callers."""

import json

import pytest

from liveavatar_emulator.escaping import escaped, json_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("ok\r\nforged", r"ok\r\nforged"),
        ("abc\u202ecba\u2066", r"abc\u202ecba\u2066"),
        ("a\u2028b", r"a\u2028b"),
        ("Zürich 日本語", "Zürich 日本語"),
    ],
)
def test_what_acts_on_a_terminal_is_shown_instead(text, shown):
    assert escaped(text) == shown


@pytest.mark.parametrize("text", ["plain", "\x1b[2J", "\u202e", "\x7f", "\x9b", "Zürich"])
def test_a_line_of_json_is_printable_ascii_with_the_same_value(text):
    line = json_line({"n": 1, "text": text})
    assert line.endswith(b"\n")
    assert line[:-1].decode("ascii").isprintable()
    assert json.loads(line) == {"n": 1, "text": text}
