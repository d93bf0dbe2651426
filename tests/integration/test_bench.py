"""The benchmark with a few sessions: every byte is compared, and each gateway has a ratio to the floor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PASS, UNUSABLE, VOID = 0, 2, 3

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="pins processes to cores"),
    pytest.mark.timeout(180),
]


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(ROOT / source) for source in ("server", "loadtest", "clients/python"))
    return subprocess.run(
        [sys.executable, "-m", "load", "bench", *options],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.mark.long
def test_this_checkout_and_another_are_measured_beside_the_floor(tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("server", "clients"):
        (other / name).symlink_to(ROOT / name)
    done = bench("--load", "3s-100ms", "--sessions", "4", "--seconds", "2", "--rounds", "1", "--tree", str(other),
                 "--json", "-")  # fmt: skip
    # On a machine that others use the generator may be late.
    assert done.returncode in (PASS, VOID), done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert set(result["servers"]) == {"floor", "gateway", "other"}
    assert result["servers"]["floor"]["ratio"]["median"] == 1.0
    for name, server in result["servers"].items():
        (window,) = server["windows"]
        assert window["audio_s"] > 4, name
        assert window["packets"] > 8, name
        assert window["cpu_ms_per_audio_s"] > 0, name
        assert server["ratio"]["low"] <= server["ratio"]["median"] <= server["ratio"]["high"]


def test_a_folder_without_a_gateway_is_named(tmp_path: Path):
    done = bench("--tree", str(tmp_path))
    assert done.returncode == UNUSABLE
    assert f"{tmp_path} is no checkout of the gateway" in done.stderr
