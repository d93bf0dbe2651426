"""Core dumps, which would write keys and tokens to a disk."""

import contextlib
import ctypes
import resource
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4
"""Source: prctl(2), Linux."""


def forbid_core_dumps() -> None:
    """Have no core dump of this process written, and no other process of its user look into its memory.

    The limit alone would not do where a program takes the dumps. Best effort, since some sandboxes allow neither.
    """
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
