"""`make mirror` fails on each way in which the unit tests may stop being a mirror."""

from pathlib import Path

import pytest

from check_mirror import differences, has_logic, main, mirror_of

MODULE = "server/liveavatar_gateway/core/playout.py"
MIRROR = "tests/unit/core/test_playout.py"


def test_this_checkout_is_mirrored(capsys):
    assert main() == 0, capsys.readouterr().out


def test_a_dead_mirror_is_a_difference():
    (found,) = differences({}, {MIRROR}, {}, {})
    assert found.startswith(f"{MIRROR} has no module")


def test_a_module_with_logic_and_without_a_test_is_a_difference():
    assert differences({MODULE: True}, set(), {}, {}) == [f"{MODULE} has no {MIRROR}"]
    assert differences({MODULE: False}, set(), {}, {}) == []


@pytest.mark.parametrize("name", ["test_playout.py", "test_playout_after_a_restart.py"])
def test_a_module_may_have_several_themes(name):
    assert differences({MODULE: True}, {f"tests/unit/core/{name}"}, {}, {}) == []


def test_an_exception_names_a_test_and_modules_that_exist(tmp_path: Path):
    covered = {MODULE: ("tests/integration/test_life.py", "a reason")}
    assert differences({MODULE: True}, set(), covered, {}, tmp_path) == [
        f"{MODULE} names tests/integration/test_life.py, which does not exist"
    ]
    themes = {"tests/unit/core/test_theme.py": ["server/liveavatar_gateway/core/gone.py"]}
    (found,) = differences({}, {"tests/unit/core/test_theme.py"}, {}, themes)
    assert found.endswith("core/gone.py, which does not exist")


def test_an_exception_that_is_not_needed_is_a_difference(tmp_path: Path):
    (tmp_path / MIRROR).parent.mkdir(parents=True)
    (tmp_path / MIRROR).touch()
    covered = {MODULE: (MIRROR, "a reason")}
    themes = {MIRROR: [MODULE]}
    assert differences({MODULE: True}, {MIRROR}, covered, themes, tmp_path) == [
        f"the entry of {MODULE} is not needed",
        f"the entry of {MIRROR} is not needed",
    ]


@pytest.mark.parametrize(
    ("module", "mirror"),
    [
        ("server/liveavatar_gateway/sessions/handles.py", "tests/unit/sessions/test_handles.py"),
        ("server/liveavatar_gateway/cli/__init__.py", "tests/unit/cli/test_cli.py"),
        ("server/liveavatar_emulator/avatar/face.py", "tests/unit/emulator/avatar/test_face.py"),
        ("clients/python/liveavatar/gateway/_pcm.py", "tests/unit/client/test_pcm.py"),
        ("loadtest/load/report/html.py", "tests/unit/loadtest/load/report/test_html.py"),
        ("loadtest/stage/cores.py", "tests/unit/loadtest/stage/test_cores.py"),
        ("testkit/processes.py", None),
    ],
)
def test_the_path_of_a_mirror(module, mirror):
    assert mirror_of(module) == mirror


@pytest.mark.parametrize(
    ("source", "logic"),
    [
        ("LIMIT = 3\nclass Facts:\n    size: int\n", False),
        ("class Reader(Protocol):\n    def read(self) -> int:\n        '''Read.'''\n", False),
        ("def double(value):\n    return 2 * value\n", True),
    ],
)
def test_logic_is_a_function_with_a_body(source, logic):
    assert has_logic(source) is logic
