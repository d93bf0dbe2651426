"""`make check` refuses an attribute that is assigned from outside its object."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts/check_wiring.py"


def check(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(path)], capture_output=True, text=True, check=False, timeout=30
    )


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("class A:\n    def f(self, pool):\n        pool.find = 1\n", "pool.find"),
        ("class A:\n    def f(self):\n        self.driver.progress = print\n", "self.driver.progress"),
        ("def f(session):\n    session.count += 1\n", "session.count"),
        ("def f(session):\n    a, session.b = 1, 2\n", "session.b"),
        ("def f(session):\n    setattr(session, 'b', 2)\n", "session.…"),
        ("def f(make):\n    session = make()\n    session.b = 2\n", "session.b"),
        ("def f(session):\n    for session.b in range(3):\n        pass\n", "session.b"),
        ("def f(session):\n    with open('x') as session.b:\n        pass\n", "session.b"),
        ("def f(session):\n    a, (*session.b, c) = 1, (2, 3)\n", "session.b"),
        ("def f(session):\n    session.__dict__['b'] = 1\n", "session.…"),
        ("def f(session):\n    vars(session)['b'] = 1\n", "session.…"),
        ("def f(session):\n    object.__setattr__(session, 'b', 1)\n", "session.…"),
        ("class A:\n    b = 1\n\n    def f(self):\n        self.session.b = 2\n", "self.session.b"),
    ],
)
def test_a_patched_object_is_refused_with_its_line(tmp_path, source, target):
    path = tmp_path / "module.py"
    path.write_text(source)
    done = check(path)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{path}:")
    assert f": {target} is assigned from outside" in done.stdout


@pytest.mark.parametrize(
    "source",
    [
        "class A:\n    def __init__(self):\n        self.x = 1\n",
        "def f():\n    session = Session()\n    session.x = 1\n",
        "class _Entry:\n    x = 1\n\n\ndef f(entry):\n    entry.x = 2\n",
    ],
)
def test_a_modules_own_state_is_its_own(tmp_path, source):
    path = tmp_path / "module.py"
    path.write_text(source)
    done = check(path)
    assert (done.returncode, done.stdout) == (0, "wiring: clean\n")
