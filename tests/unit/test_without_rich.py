"""Modules that a plain start of the gateway leaves out."""

import subprocess
import sys

HEAVY = {"rich", "numpy", "soxr", "jwt", "starlette", "uvicorn", "liveavatar.gateway.aio"}


def test_a_plain_start_waits_for_nothing_that_only_other_configurations_need():
    probe = (
        "import sys, liveavatar_gateway.cli.serve; "
        f"print('heavy:', sorted({HEAVY} & set(sys.modules))); "
        "import rich.console; print('rich is', rich.console.Console.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "heavy: []\nrich is Console\n"
