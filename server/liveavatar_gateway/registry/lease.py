"""When a process counts as dead: a rule without I/O, and the clock that all processes of a machine share."""

import contextlib
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What a process left to be judged by."""

    boot_id: str
    """Start of the machine it ran in."""
    until_mono_s: float
    """When its lease is over, on that machine's monotonic clock: changes of the wall clock mean nothing to it."""


def is_dead(
    lease: Lease | None, *, seen_alive: bool | None, boot_id: str, now_mono_s: float, grace_s: float
) -> bool:
    """Decide whether a process is gone, so that its sessions may be taken.

    Args:
        lease: Its lease; None when it left in order.
        seen_alive: What the operating system says of it; None when that cannot be told.
        boot_id: This start of the machine.
        now_mono_s: Time on the monotonic clock of this start.
        grace_s: How much longer than its lease a process is spared of which nothing else is known.

    A process that is seen alive keeps its sessions however late its lease is: it may merely be slow, and two
    owners of one socket are worse than none for a while.
    """
    if lease is None or lease.boot_id != boot_id:
        return True
    if seen_alive is not None:
        return not seen_alive
    return now_mono_s > lease.until_mono_s + grace_s


def monotonic_s() -> float:
    """Seconds on a clock that all processes of this boot share and nobody sets."""
    return time.monotonic()


def this_boot() -> str:
    """Name of this start of the machine: monotonic times of two boots cannot be compared."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()  # noqa: S603 - no input
    # Unknown: then nothing of an earlier process can be compared, and all of them count as gone.
    return f"unknown-{uuid.uuid4()}"
