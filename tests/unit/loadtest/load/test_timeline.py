"""The timeline of faults: what it refuses, in which order it is played, and which errors it explains."""

import pytest

from load.timeline import Timeline, TimelineError

_TIMELINE = """
[[at]]
at_s = 20
what = "interrupts are answered late"
for_s = 10
settings = { interrupt_ack_ms = 900 }

[[at]]
at_s = 5
what = "every command socket is dropped"
for_s = 3
expect = ["SESSION_ENDED"]
fault = { kind = "drop", session = "all", code = 1011 }
"""


def test_steps_come_in_order_of_time_and_changed_settings_are_put_back():
    steps = Timeline.parse(_TIMELINE).steps()
    assert [(at_s, event.what.split()[0], undo) for at_s, event, undo in steps] == [
        (5.0, "every", False),
        (20.0, "interrupts", False),
        (30.0, "interrupts", True),
    ]


@pytest.mark.parametrize(
    ("reason", "at_s", "expected"),
    [
        ("SESSION_ENDED", 5.0, True),
        ("SESSION_ENDED", 7.9, True),
        ("SESSION_ENDED", 4.9, False),
        ("SESSION_ENDED", 8.0, False),
        ("READY_TIMEOUT", 6.0, False),
        ("SESSION_ENDED", 25.0, False),
    ],
)
def test_only_a_named_reason_within_its_time_is_provoked(reason, at_s, expected):
    assert Timeline.parse(_TIMELINE).expects(reason, at_s) is expected


def test_no_file_is_a_timeline_without_happenings():
    assert Timeline.read("").steps() == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[at]]\nat_s = 1\nwhat = 'nothing at all'", "give exactly one of 'fault', 'settings' and 'restart'"),
        ("[[at]]\nat_s = 1\nwhat = 'two at once'\nrestart = {}\nfault = {}", "give exactly one of"),
        (
            "[[at]]\nat_s = -1\nwhat = 'before it began'\nrestart = {}",
            r"at\.0\.at_s: .*greater than or equal to 0",
        ),
        ("[[at]]\nat_s = 1\nwhat = 'a wrong word'\nrestart = {}\nuntil = 3", r"at\.0\.until: Extra inputs"),
        ("", "at: Field required"),
        ("[[at", "timeline: "),
    ],
)
def test_what_cannot_be_played_is_refused_with_its_place(text: str, says: str):
    with pytest.raises(TimelineError, match=says):
        Timeline.parse(text)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(TimelineError, match=r"cannot be read: .*nowhere\.toml"):
        Timeline.read("/nowhere.toml")
