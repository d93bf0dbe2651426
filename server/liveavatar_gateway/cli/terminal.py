"""Controlling terminal of the process: present, or hung up."""

import os
import signal
from typing import Final

_TERMINAL: Final = "/dev/tty"


class ControllingTerminal:
    """Distinguishes the SIGHUP of a closed terminal from a SIGHUP sent to reload files.

    The kernel removes the controlling terminal of a process before it sends the SIGHUP of a hang-up, so `/dev/tty`
    can be opened before a hang-up but not after it. A process that never had a terminal, or that ignores hang-ups
    (`nohup`), cannot lose one.
    """

    def __init__(self) -> None:
        ignored = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._had = not ignored and _opens()

    @property
    def is_gone(self) -> bool:
        """True if the process had a terminal at its start and has lost it."""
        return self._had and not _opens()


def _opens() -> bool:
    try:
        fd = os.open(_TERMINAL, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return False
    os.close(fd)
    return True
