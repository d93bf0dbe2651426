"""Property tests of the pool's pure core: limits, ceilings, shares and service, whatever fails."""

import asyncio
import contextlib
import subprocess
import sys
from typing import Final

from acceptance.line import Line, Outcome, Setting
from testkit.checkout import ROOT

_TESTS: Final = ("tests/unit/pool/test_pool_machine.py", "tests/unit/pool/test_book.py")


async def _run(_setting: Setting) -> Outcome:
    words = [sys.executable, "-m", "pytest", "-q", "-n", "2", *_TESTS]
    process = await asyncio.create_subprocess_exec(
        *words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        output = (await process.communicate())[0].decode(errors="replace")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    last = (output.strip().splitlines() or ["no output"])[-1]
    return Outcome(figure=last.strip("= ")[:300], passed=process.returncode == 0)


PROPERTIES: Final = Line(
    name="properties",
    goal="the core exceeds no limit, number or credit ceiling, and nobody starves, whatever fails",
    run=_run,
    in_short=False,
)
"""Not in the short profile, since `make test` runs the same tests."""
