"""CPU time of processes and cores, from the Linux kernel, and who runs where."""

import os
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from stage.errors import StageError

_CPUCLOCK_SCHED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Cores of the processes. The measured process has its core for itself."""

    measured: int
    load: int
    """Generator and emulator."""
    more: tuple[int, ...] = ()
    """Cores that are left, for generators that need more than one."""

    @property
    def others(self) -> tuple[int, ...]:
        """All but the measured one."""
        return (self.load, *self.more)


def process_cpu_s(pid: int) -> float:
    """Return the CPU time of a process with all its threads, present and past, to the nanosecond.

    This is the clock that clock_getcpuclockid(3) names; /proc/<pid>/stat has the same in steps of 10 ms.
    """
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """Times of a core since boot, in ticks."""

    total: int
    idle: int
    steal: int
    """Time the hypervisor gave to others."""

    @classmethod
    def parse(cls, stat: str, core: int) -> Self:
        """Read one core's line of /proc/stat."""
        for line in stat.splitlines():
            name, *numbers = line.split()
            if name == f"cpu{core}":
                user, nice, system, idle, iowait, irq, softirq, steal = map(int, numbers[:8])
                return cls(user + nice + system + idle + iowait + irq + softirq + steal, idle + iowait, steal)
        raise StageError(f"the machine has no core {core}")

    @classmethod
    def now(cls, core: int) -> Self:
        """Read one core's times."""
        return cls.parse(Path("/proc/stat").read_text(), core)

    def busy_since(self, before: Self) -> float:
        """Return the share of the time in which the core was busy or stolen, 0 to 1."""
        return 1.0 - (self.idle - before.idle) / max(1, self.total - before.total)

    def stolen_since(self, before: Self) -> float:
        """Return the share of the time that the hypervisor gave to others, 0 to 1."""
        return (self.steal - before.steal) / max(1, self.total - before.total)


def choose_cores() -> Cores:
    """Take the first two cores that this process may use.

    Raises:
        StageError: There is only one; what is measured and what loads it would compete. Or this is not Linux.
    """
    if sys.platform != "linux":
        raise StageError("Linux is needed: processes are pinned to cores, and the kernel's clocks are read")
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise StageError("two cores are needed, one of them for the gateway alone")
    return Cores(measured=allowed[0], load=allowed[1], more=tuple(allowed[2:]))


@contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """Run on these cores inside, on any if there are none; processes started inside stay there, all threads."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
