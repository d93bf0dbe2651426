"""Runs every example of the guide as a reader would: as a program of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from clients.python.sound import wav

from liveavatar.gateway import AudioFormat
from testkit.speech import sound

GUIDE = Path(__file__).parents[3] / "docs" / "python-client.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_guide_work(number, emulator, shared_gateway, tls_gateway, identity, tmp_path):
    example = EXAMPLES[number]
    gateway = tls_gateway if "tls=" in example else shared_gateway
    assert "localhost:50051" in example
    wav(tmp_path / "speech.wav", sound(0.5), AudioFormat())
    (tmp_path / "ca.pem").write_bytes(identity.certificate)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example.replace("localhost:50051", gateway.address)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not re.search("Traceback|Warning|never retrieved", done.stderr), done.stderr


def test_the_guide_has_examples():
    assert len(EXAMPLES) >= 8
