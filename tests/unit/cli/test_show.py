"""Output of values for programs and people."""

from datetime import UTC, datetime, timedelta

import pytest

from liveavatar_gateway.cli.show import json_fields, known, print_fields, print_table, span


def test_fields_become_json_values():
    fields = {
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "wait": timedelta(seconds=1.5),
        "usage": {"count": 1},
        "x": None,
    }
    assert json_fields(fields) == {
        "at": "2026-01-02T00:00:00.000+00:00",
        "wait_s": 1.5,
        "usage": {"count": 1},
        "x": None,
    }


def test_fields_are_aligned(capsys):
    print_fields({"a": True, "long": None, "pose": "unspecified"})
    assert capsys.readouterr().out == "a     yes\nlong  -\npose  -\n"


def test_an_unspecified_value_is_a_dash():
    assert (known("unspecified"), known("idle")) == ("-", "idle")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3600, "1 h 00 min"), (7384, "2 h 03 min")],
)
def test_a_duration_has_at_most_two_units(seconds, expected):
    assert span(timedelta(seconds=seconds)) == expected


def test_fields_and_tables_show_hostile_texts_without_their_effects(capsys):
    hostile = "\x1b]8;;http://evil\x1b\\[red]x[/red]\n\u202e:boom:"
    print_fields({"labels": hostile})
    print_table(("id", "label"), [("s-1", hostile)])
    shown = r"\x1b]8;;http://evil\x1b\[red]x[/red]\n\u202e:boom:"
    printed = capsys.readouterr().out
    assert printed.splitlines() == [f"labels  {shown}", printed.splitlines()[1], f"s-1  {shown}"]
