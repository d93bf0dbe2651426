"""Lines of `sessions watch`."""

from datetime import UTC, datetime

import click
import pytest

from liveavatar_gateway.cli import watch


def test_a_label_is_a_key_and_a_value():
    assert watch.label("team=a=b") == ("team", "a=b")


@pytest.mark.parametrize("text", ["team", "=a", ""])
def test_a_label_without_a_key_or_a_sign_is_refused(text):
    with pytest.raises(click.BadParameter):
        watch.label(text)


def test_a_line_has_short_enum_values():
    at = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    line = watch._line(at, "s-1", 3, "state_changed", {"state": "SESSION_STATE_READY", "count": 2})
    assert line == "03:04:05.678  s-1      3  state_changed      state=READY count=2"


def test_a_final_record_shows_its_reason_and_an_error_its_message():
    fields = {"session_id": "s-1", "session": {"end_reason": "END_REASON_OPERATOR"}, "error": {"message": "lost"}}
    assert watch._flat(fields) == {"end_reason": "END_REASON_OPERATOR", "error": "lost"}
