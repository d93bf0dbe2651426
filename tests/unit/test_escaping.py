"""Escapes for texts from outside."""

import json
import sys
import unicodedata

import pytest

from liveavatar_gateway.escaping import csv_cell, escaped, json_text

HOSTILE = {
    "clear the screen": ("a\x1b[2Jb", r"a\x1b[2Jb"),
    "set the title": ("\x1b]0;root\x07", r"\x1b]0;root\x07"),
    "link": ("\x1b]8;;http://evil\x1b\\here", "\\x1b]8;;http://evil\\x1b\\here"),
    "C1 introducer": ("\x9b31m", r"\x9b31m"),
    "delete": ("a\x7f", r"a\x7f"),
    "nul": ("a\0b", r"a\x00b"),
    "another line": ("ok\r\n2026-01-01 [info] forged", r"ok\r\n2026-01-01 [info] forged"),
    "tab": ("a\tb", r"a\tb"),
    "bidi override": ("abc\u202ecba", r"abc\u202ecba"),
    "bidi isolate": ("\u2066x\u2069", r"\u2066x\u2069"),
    "bidi mark": ("\u200e\u200f\u061c", r"\u200e\u200f\u061c"),
    "line separator": ("a\u2028b\u2029c\x85", r"a\u2028b\u2029c\x85"),
    "invisible": ("a\u200bb\ufeff\u00ad", r"a\u200bb\ufeff\xad"),
    "tag": ("\U000e0041", r"\U000e0041"),
    "surrogate": ("\ud800", r"\ud800"),
    "private use": ("\ue000", r"\ue000"),
}
PLAIN = (
    "",
    "plain text",
    "Zürich",
    "日本語\u3000全角",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "👩\u200d🚀",
    "a=b 'c' \"d\" \\x1b",
)


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE)
def test_what_acts_on_a_terminal_is_shown_instead(text, shown):
    assert escaped(text) == shown


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_is_left_as_it_is(text):
    assert escaped(text) == text


def test_no_character_without_a_glyph_is_left():
    active = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    left = {character for character in map(chr, range(sys.maxunicode + 1)) if escaped(character) == character}
    assert {character for character in left if unicodedata.category(character) in active} == {"\u200c", "\u200d"}


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r=1", "\uff1d1"])
def test_no_cell_is_a_formula(text):
    assert csv_cell(text).startswith("'")


def test_a_cell_is_escaped_too():
    assert csv_cell("a\x1b[2J\nb") == r"a\x1b[2J\nb"


@pytest.mark.parametrize(("text", "_shown"), HOSTILE.values(), ids=HOSTILE)
def test_json_has_printable_ascii_alone_and_the_same_value(text, _shown):
    written = json_text({"label": text})
    assert written.isascii()
    assert written.isprintable()
    assert json.loads(written) == {"label": text}
