"""The examples of the README run as they stand, but for the address."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


def test_there_is_one_with_the_client_and_one_with_bare_stubs():
    client, bare = EXAMPLES
    assert "AsyncClient" in client
    assert "AudioServiceStub" in bare


@pytest.mark.parametrize("number", [0, 1], ids=["client", "bare stubs"])
async def test_an_example_of_the_readme_runs(emulator, shared_gateway, number):
    code = EXAMPLES[number].replace("127.0.0.1:50051", shared_gateway.address)
    before = emulator.active()
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ("heard until" in done.stdout) or ("UTTERANCE_OUTCOME_COMPLETED" in done.stdout)
    emulator.wait_active(before)
