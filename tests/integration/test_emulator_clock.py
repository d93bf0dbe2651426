"""The measurement of the emulator's clock, with fewer sessions and without a verdict on the machine."""

import json
import os
import subprocess
import sys

import pytest

from testkit.checkout import PYTHONPATH

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="pins processes to cores"),
    pytest.mark.timeout(180),
]


def measure(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "emulator_clock",
            "--sessions",
            "12",
            "--seconds",
            "4",
            "--warmup",
            "1.5",
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    )


def test_lateness_is_measured_while_every_session_talks():
    done = measure("--json", "--limit-ms", "60000")
    assert done.returncode == 0, done.stderr
    kept = json.loads(done.stdout)
    assert kept["sessions"] == 12
    assert 6 <= kept["packets_per_s"] <= 18, "12 sessions send a packet a second each"
    assert kept["moments"] > 0
    assert 0 < kept["p50_ms"] <= kept["p99_ms"] <= kept["max_ms"] * 1.02 + 0.01
    assert 0 < kept["cpu_share"] <= 1.05


def test_a_limit_that_is_broken_is_status_1_and_says_so():
    done = measure("--limit-ms", "0.1")
    assert done.returncode == 1, done.stderr
    assert "is above 0.1 ms" in done.stderr
    assert "12 sessions talking" in done.stdout
