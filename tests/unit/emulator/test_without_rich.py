"""Modules that a start of the emulator without rooms leaves out."""

import subprocess
import sys


def test_a_plain_start_waits_for_neither_rich_nor_the_sdk_of_rooms():
    probe = (
        "import sys, liveavatar_emulator.cli, liveavatar_emulator.server; "
        "print('heavy:', sorted({'rich', 'livekit', 'numpy', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "heavy: []\n"
