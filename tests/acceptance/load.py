"""Load suite as a part of a proof: a scenario of `make load`, and its verdict."""

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any, Final

from liveavatar_demo.process import clean_environment
from testkit.checkout import PYTHONPATH, ROOT

_BEYOND_S: Final = 120.0
"""Longest time that a run takes beyond its load."""
_JUDGED: Final = (0, 1, 3)
"""Exit codes of a run that was judged: pass, fail, void."""


async def run_load(
    scenario: str, *arguments: str, folder: Path, seconds: float, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a scenario as `make load` does; return verdict and result.

    Raises:
        AssertionError: the run could not be made.
    """
    ours = {name: value for name, value in clean_environment().items() if not name.startswith("LOAD_")}
    options = ("--out", str(folder), "--seconds", str(seconds), "--seed", str(seed))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "load", "run", scenario, *options, *arguments),
        env={**ours, "PYTHONPATH": PYTHONPATH},
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds + _BEYOND_S):
            output, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
    assert process.returncode in _JUDGED, output.decode()[-2000:]
    return json.loads((folder / "verdict.json").read_text()), json.loads((folder / "result.json").read_text())
