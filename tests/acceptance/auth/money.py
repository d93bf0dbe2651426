"""Budgets and usage against the emulator's own bill, over two processes and a kill -9."""

import asyncio
import subprocess
import sys

from acceptance.line import Line, Outcome, Setting


async def _run(_setting: Setting) -> Outcome:
    words = [sys.executable, "-m", "pytest", "-q", "-n", "2", "tests/integration/test_usage.py"]
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = (await process.communicate())[0].decode(errors="replace")
    figures = [
        line.partition(": ")[2]
        for line in output.splitlines()
        if line.startswith("tests/integration/test_usage.py::")
    ]
    if process.returncode != 0:
        return Outcome(figure=" | ".join(output.splitlines()[-3:])[:300], passed=False)
    return Outcome(figure="; ".join(figures), passed=len(figures) == 2)


MONEY = Line(
    name="money",
    goal="a budget of 3 minutes holds, and usage is the bill",
    run=_run,
    in_short=False,
)
"""Not in the short profile, since `make test` runs the same tests."""
