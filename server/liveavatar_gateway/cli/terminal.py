"""The terminal that started a process: there, or hung up."""

import os
import signal
from typing import Final

_TERMINAL: Final = "/dev/tty"


class ControllingTerminal:
    """Tells a hang-up of the terminal from a SIGHUP that somebody sent to have files read again.

    The kernel takes the controlling terminal away from a process before it sends the SIGHUP of a hang-up, so
    `/dev/tty` opens before and not after it. A process that never had one, or that was told to ignore hang-ups
    (`nohup`), loses none.
    """

    def __init__(self) -> None:
        ignored = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._had = not ignored and _opens()

    @property
    def is_gone(self) -> bool:
        """Return whether the terminal that was there at the start is there no more."""
        return self._had and not _opens()


def _opens() -> bool:
    try:
        fd = os.open(_TERMINAL, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return False
    os.close(fd)
    return True
