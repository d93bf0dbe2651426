"""A wall clock of a process's own that a test can set while the process runs."""

import glob
from pathlib import Path

_LIBRARIES = "/usr/lib/*/faketime/libfaketime.so.1"


class WallClock:
    """Wall clock of a process started with `environment()`; its monotonic clock is unchanged.

    libfaketime reads the file once a second: at each question for the time it costs nine tenths of a gateway.
    Source: its README, "Using FAKETIME_TIMESTAMP_FILE" and "FAKETIME_CACHE_DURATION".
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump(0)

    def jump(self, offset_s: float) -> None:
        """Be so far from the true time, within two seconds; 0 is back to it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset_s:+f}\n")
        new.replace(self._file)

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": _library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


class HastenedClock:
    """All clocks of a process started with `environment()` run `speed` times as fast, its timers with them."""

    def __init__(self, speed: float) -> None:
        self.speed = speed

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": _library(), "FAKETIME": f"+0 x{self.speed:g}"}


def _library() -> str:
    libraries = glob.glob(_LIBRARIES)  # noqa: PTH207 - a pattern from the root
    if not libraries:
        raise RuntimeError(f"no {_LIBRARIES}; on Debian and Ubuntu: apt install libfaketime")
    return libraries[0]
