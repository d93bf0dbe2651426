"""Scenario files: what they may say, and how a mistake is explained."""

from pathlib import Path

import pytest

from liveavatar_emulator.scenario import BadScenario, check_rooms, parse

SAMPLES = sorted(Path(__file__).parents[3].joinpath("docs", "scenarios").glob("*.toml"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_is_a_scenario(path):
    scenario = parse(path.read_text())
    assert scenario.settings
    assert scenario.at or scenario.when


def test_there_are_samples():
    assert len(SAMPLES) >= 3


def test_an_empty_file_is_a_scenario_in_which_nothing_happens():
    assert parse("") == parse("[settings]")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[at]\n", "not TOML"),
        ("[setting_]", "unknown table 'setting_'; did you mean 'settings'?"),
        ("[foo]", "unknown table 'foo'; there are [settings], [[at]] and [[when]]"),
        ("[settings]\nsped = 2", "[settings]: unknown setting 'sped'; did you mean 'speed'?"),
        ("[settings]\nspeed = -2", "[settings]: setting 'speed': Input should be greater than or equal to 0.01"),
        ("[[at]]\nfault = {endpoint='start', status=500}", "[[at]] entry 1 (line 1): seconds: Field required"),
        (
            "# x\n[[at]]\nseconds = 1\nrestart = {}\n\n[[at]]\nsecond = 1\nrestart = {}",
            "[[at]] entry 2 (line 6): unknown key 'second'; did you mean 'seconds'?",
        ),
        ("[[at]]\nseconds = 1", "needs exactly one of fault, settings, restart, end; has none"),
        (
            "[[at]]\nseconds = 1\nrestart = {}\nsettings = {speed = 2}",
            "needs exactly one of fault, settings, restart, end; has settings and restart",
        ),
        (
            "[[at]]\nseconds = 1\nfault = {kind = 'drop', session = 1, cod = 1011}",
            "[[at]] entry 1 (line 1): fault: unknown key 'cod'; did you mean 'code'?",
        ),
        ("[[at]]\nseconds = 1\nfault = {kind = 'drop'}", "fault: session is missing"),
        ("[[at]]\nseconds = 1\nend = {}", "end: session is missing"),
        ("[[at]]\nseconds = 1\nend = {session = 'next'}", "use [[when]]"),
        (
            "[[at]]\nseconds = 1\nend = {session = 1, reason = 'BORED'}",
            "end.reason: Input should be 'USER_CLOSED'",
        ),
        ("[[at]]\nseconds = 1\ntimes = 2\nrestart = {}", "times needs every_seconds"),
        ("[[at]]\nseconds = 1\nevery_seconds = 0\nrestart = {}", "every_seconds: Input should be greater"),
        ("[[at]]\nseconds = 1\nsettings = {sped = 2}", "unknown setting 'sped'"),
        ("[[when]]\nsession = 'first'\nrestart = {}", 'session: the number of a session from 1 on, or "all"'),
        ("[[when]]\ntimes = 2\nrestart = {}", "times needs after_bytes"),
        (
            "[[when]]\nfault = {kind = 'drop', session = 1}",
            "[[when]] entry 1 (line 1): fault: session and after_... belong to the [[when]] entry itself",
        ),
        ("[[when]]\nend = {session = 1}", "end: session belongs to the [[when]] entry itself"),
        (
            "when = [{restart = {down = 1}}]",
            "[[when]] entry 1: restart: unknown key 'down'; did you mean 'down_s'?",
        ),
    ],
)
def test_a_mistake_is_explained_with_its_place(text, problem):
    with pytest.raises(BadScenario) as caught:
        parse(text)
    assert problem in str(caught.value)


def test_a_scenario_that_changes_the_speed_cannot_have_rooms():
    check_rooms(parse("[settings]\nspeed = 1\n[[at]]\nseconds = 1\nsettings = {idle_s = 9}"))
    for text in ("[settings]\nspeed = 2", "[[at]]\nseconds = 1\nsettings = {speed = 2}"):
        with pytest.raises(BadScenario, match="real time"):
            check_rooms(parse(text))
