"""The timeline reads well on a terminal and elsewhere, and is kept where nothing is shown."""

import io
import time

from rich.console import Console

from liveavatar_demo.proof import Check
from liveavatar_demo.timeline import Timeline


class Screen:
    """A timeline and what it has shown."""

    def __init__(self, encoding: str = "utf-8", **console) -> None:
        self._bytes = io.BytesIO()
        text = io.TextIOWrapper(self._bytes, encoding=encoding, newline="\n", write_through=True)
        self.timeline = Timeline(Console(file=text, highlight=False, color_system=None, **console))

    @property
    def lines(self) -> list[str]:
        return self._bytes.getvalue().decode().splitlines()


CHECKS = [Check("arrived", ok=True, detail="100 samples"), Check("heard to its end", ok=False, detail="1 s")]


def test_moments_are_lines_with_their_time():
    screen = Screen(width=20)
    screen.timeline.begin()
    screen.timeline.mark("ready", "a line that is never wrapped in a file", at_mono_s=time.monotonic() + 12.5)
    assert screen.lines == ["  12.50 s  a line that is never wrapped in a file"]
    assert [(moment.event, round(moment.at_s, 1)) for moment in screen.timeline.moments] == [("ready", 12.5)]


def test_text_is_no_markup():
    screen = Screen()
    screen.timeline.say("[bold]a[/bold] [1]")
    assert screen.lines == ["[bold]a[/bold] [1]"]


def test_progress_without_a_terminal_is_a_line_every_two_seconds():
    screen = Screen()
    with screen.timeline.speaking(9.47) as show:
        for tenths in range(48):
            show(tenths / 10)
    assert screen.lines == ["           played 2.0 of 9.5 s", "           played 4.0 of 9.5 s"]


def test_progress_on_a_terminal_is_a_bar():
    screen = Screen(force_terminal=True, width=100)
    with screen.timeline.speaking(9.47) as show:
        show(3.0)
    assert "played 3.0 of 9.5 s" in "".join(screen.lines)


def test_checks_are_aligned():
    screen = Screen()
    screen.timeline.verdict(CHECKS)
    assert screen.lines == ["", "✓  arrived           100 samples", "✗  heard to its end  1 s", ""]


def test_a_narrow_terminal_gets_details_below_their_names():
    screen = Screen(force_terminal=True, width=30)
    screen.timeline.verdict(CHECKS)
    assert screen.lines == ["", "✓  arrived", "      100 samples", "✗  heard to its end", "      1 s", ""]


def test_signs_are_letters_where_the_encoding_has_no_others():
    screen = Screen(encoding="ascii")
    screen.timeline.verdict(CHECKS)
    assert [line[:2] for line in screen.lines[1:3]] == ["ok", "NO"]


def test_a_quiet_timeline_keeps_what_it_does_not_show():
    screen = Screen(quiet=True)
    screen.timeline.mark("ready", "ready")
    with screen.timeline.speaking(5.0) as show:
        show(4.0)
    screen.timeline.verdict(CHECKS)
    assert screen.lines == []
    assert [moment.event for moment in screen.timeline.moments] == ["ready"]
