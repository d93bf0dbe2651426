"""Description of versions and machine, enough to repeat a run. No secrets."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

_PACKAGES: Final = ("liveavatar-gateway", "grpcio", "locust", "gevent", "uvloop", "hdrhistogram")


def description() -> dict[str, str]:
    """Return versions and machine."""
    packages = {name: found for name in _PACKAGES if (found := _version(name))}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "load before": " ".join(f"{one:.2f}" for one in os.getloadavg()),
        "commit": _commit(),
        **packages,
    }


def steal_s() -> tuple[float, float]:
    """Return the seconds that the hypervisor gave to others, and all seconds, over all cores since boot."""
    times = psutil.cpu_times()
    return getattr(times, "steal", 0.0), sum(times)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str:
    """Return the checkout's commit, with a mark when files differ from it; empty outside of a checkout."""
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=10"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()
