"""The contract stands alone: stubs made from `proto/` into an empty folder can hold a whole conversation."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("conversation_with_bare_stubs.py")


@pytest.fixture(scope="module")
def stubs(tmp_path_factory) -> Path:
    """Message and service stubs as any Python user makes them, with grpcio-tools alone."""
    folder = tmp_path_factory.mktemp("stubs")
    google = ROOT / "third_party/googleapis"
    protos = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"-I{google}",
         f"--python_out={folder}", f"--grpc_python_out={folder}", *protos],
        check=True,
    )  # fmt: skip
    return folder


def test_a_conversation_with_grpcio_and_generated_stubs_alone(stubs, emulator, shared_gateway):
    # -S keeps site-packages' .pth files out, through which our own client would be found before these stubs.
    site_packages = sysconfig.get_paths()["platlib"], sysconfig.get_paths()["purelib"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(stubs), *site_packages])}
    done = subprocess.run(
        [sys.executable, "-S", str(SCRIPT), shared_gateway.address, "1.5"],
        env=environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["stubs"].startswith(str(stubs))
    assert told["ended"] == [
        ["first", "UTTERANCE_OUTCOME_COMPLETED"],
        ["second", "UTTERANCE_OUTCOME_INTERRUPTED"],
    ]
    assert told["events"][-1] == "ended"
    assert told["events"].count("utterance_started") == told["events"].count("utterance_ended") == 2
    assert told["end_reason"] == "END_REASON_CALLER_ENDED"
    recording = emulator.session(told["upstream_id"])
    assert recording["audio_after_interrupt"]["packets"] == 0
    # 16 kHz was asked for, 24 kHz arrived: one and a half times the bytes.
    assert recording["utterances"][0]["received_bytes"] == told["confirmed_bytes"] * 3 // 2
