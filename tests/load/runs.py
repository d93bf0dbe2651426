"""Runs the load suite as `make load` does, only shorter, and reads what it left."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liveavatar_demo.process import clean_environment
from testkit.checkout import PYTHONPATH, ROOT

MUTANTS = Path(__file__).parent / "mutants"
PASS, FAIL, VOID, INTERRUPTED = 0, 1, 3, 130
ATTEMPTS = 4
_WITHIN_S = 240.0


@dataclass(frozen=True)
class Run:
    """Run that ended."""

    status: int
    output: str
    folder: Path

    @property
    def verdict(self) -> dict[str, Any]:
        return json.loads((self.folder / "verdict.json").read_text())

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.folder / "result.json").read_text())

    def objectives(self, status: str) -> list[str]:
        return [one["objective"] for one in self.verdict["objectives"] if one["status"] == status]


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "load", "run", "smoke", "--out", str(folder), *arguments]


def mutant(name: str) -> list[str]:
    """Options that put a broken gateway in the place of the real one."""
    return ["--gateway-command", shlex.join([sys.executable, str(MUTANTS / f"{name}.py"), "serve"])]


def environment() -> dict[str, str]:
    ours = {name: value for name, value in clean_environment().items() if not name.startswith("LOAD_")}
    return {**ours, "PYTHONPATH": PYTHONPATH}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(folder, *arguments),
        env=environment(),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, *arguments: str) -> Run:
    process = start(folder, *arguments)
    try:
        output, _ = process.communicate(timeout=_WITHIN_S)
    finally:
        process.terminate()
    return Run(process.returncode, output, folder)


def attempts(folder: Path, *arguments: str) -> Iterator[Run]:
    """Runs until one is not void: on a machine that others use, the generator may be starved for a while."""
    for number in range(ATTEMPTS):
        found = run(folder / str(number), *arguments)
        yield found
        if found.status != VOID:
            return


def judged(folder: Path, *arguments: str) -> Run:
    """The first run that is not void."""
    *_, last = attempts(folder, *arguments)
    return last
