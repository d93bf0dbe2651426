"""Clock of a registry whose processes all run on one machine.

A registry stores no time of the wall clock: somebody may set that. Its callers see times of their own monotonic
clock (`_mono_s`) or durations, and each registry converts those to the clock that its processes share. For one
machine that is the monotonic clock together with the start of the machine; a registry on a server of its own has
that server's clock and its expiring keys.
"""

import contextlib
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

_MAX_AHEAD_S: Final = 3600.0
"""A stored time that is further ahead was not written by a gateway."""


class MachineClock:
    """Monotonic clock that all processes of one start of a machine share, and that nobody sets."""

    def __init__(self, *, boot_id: str = "", now: Callable[[], float] = time.monotonic) -> None:
        """Use the clock of this start of the machine.

        Args:
            boot_id: Name of this start of the machine; read from the operating system when empty.
            now: Source of monotonic seconds.
        """
        self.boot_id: Final = boot_id or this_boot()
        self.now_s: Final = now

    def reads(self, boot_id: str | None) -> bool:
        """Return whether a time that was stored under `boot_id` can be compared with times of now."""
        return boot_id == self.boot_id

    def is_plausible(self, mono_s: float) -> bool:
        """Return whether a stored time is no further ahead than a gateway would write, and is a number."""
        return mono_s <= self.now_s() + _MAX_AHEAD_S

    def comparable(self, boot_id: str | None, mono_s: float | None) -> float | None:
        """Return a stored time if it can be compared with times of now; None otherwise."""
        return mono_s if mono_s is not None and self.reads(boot_id) and self.is_plausible(mono_s) else None


def this_boot() -> str:
    """Return the name of this start of the machine."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()  # noqa: S603 - no input
    # Times of earlier processes cannot be compared then, so all of those processes count as dead.
    return f"unknown-{uuid.uuid4()}"
