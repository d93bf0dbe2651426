"""Bounds of LiveAvatar's texts and numbers."""

import pytest

from liveavatar_gateway.upstream.bounds import MAX_SESSION_S, bounded, session_seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", "short"),
        ("x" * 20, "x" * 20),
        ("x" * 21, "xxxxxxxxxxx… (cut)"),
        ("ä" * 20, "äääää… (cut)"),
    ],
)
def test_a_long_text_is_cut_between_characters_and_marked(text, expected):
    result = bounded(text, 20)
    assert result == expected
    assert len(result.encode()) <= 20


@pytest.mark.parametrize(
    ("value", "expected"), [(60, 60.0), ("90.5", 90.5), (1, 1.0), (MAX_SESSION_S, MAX_SESSION_S)]
)
def test_a_plausible_limit_is_used(value, expected):
    assert session_seconds(value) == expected


@pytest.mark.parametrize("value", [None, True, 0, -1, "", "nan", "inf", 1e12, 10**400, [60], MAX_SESSION_S + 1])
def test_an_impossible_limit_is_ignored(value):
    assert session_seconds(value) is None
