"""A process that crashes leaves no memory behind."""

import resource
import subprocess
import sys

_CRASH = """
from liveavatar_gateway.core_dumps import forbid_core_dumps
import ctypes, os, resource, signal
forbid_core_dumps()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)
os.kill(os.getpid(), signal.SIGABRT)
"""


def test_a_process_that_forbids_core_dumps_leaves_none(tmp_path):
    def allow() -> None:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    run = subprocess.run(
        [sys.executable, "-c", _CRASH], cwd=tmp_path, preexec_fn=allow, capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "(0, 0) 0"
    assert run.returncode == -6
    assert list(tmp_path.iterdir()) == []
