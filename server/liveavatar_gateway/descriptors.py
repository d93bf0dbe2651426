"""File descriptors of the process: as many as the system grants, shared between callers and sessions."""

import contextlib
import errno
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PER_SESSION: Final = 2
"""Command socket of a session, and that of its next avatar or of a REST call."""
_RESERVE: Final = 128
"""Files, listeners, metrics, the registry, and what libraries open."""
_LEAST_LEFT: Final = 32
"""Descriptors that must be free when a session starts: its socket could not be opened, and it would be billed."""
_MIN_CONNECTIONS: Final = 16
_MANY: Final = 1 << 20
_PORTABLE_LIMIT: Final = 10_240
"""Limit that macOS grants where it refuses an unlimited one. Source: setrlimit(2) of macOS, OPEN_MAX."""
_NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE})
_OPEN: Final = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")


class TooFewDescriptors(Exception):
    """Limit of descriptors that leaves none for callers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Descriptors of the process, by use."""

    limit: int
    """Most descriptors that the system grants."""
    connections: int
    """Most connections on each port for gRPC."""


def share_out(limit: int, *, max_connections: int, max_sessions: int, ports: int) -> Shares:
    """Share descriptors out; sessions come first, then callers, up to their own limit.

    Args:
        limit: Most descriptors that the system grants.
        max_connections: Most connections wanted on each port.
        max_sessions: Most sessions at once.
        ports: Number of ports for gRPC.

    Raises:
        TooFewDescriptors: too few are left for callers.
    """
    left = (limit - _PER_SESSION * max_sessions - _RESERVE) // ports
    connections = min(max_connections, left)
    if connections < min(_MIN_CONNECTIONS, max_connections):
        needed = _PER_SESSION * max_sessions + _RESERVE + ports * max_connections
        raise TooFewDescriptors(
            f"the system grants this process {limit} open files, too few for {max_sessions} sessions and their "
            f"callers; allow {needed} (`ulimit -n {needed}`, LimitNOFILE= of systemd, `ulimits` of compose), or "
            "lower GATEWAY_MAX_SESSIONS"
        )
    return Shares(limit=limit, connections=connections)


class Descriptors:
    """Descriptors of this process, all that the system grants."""

    def __init__(self) -> None:
        """Raise the soft limit to the hard one, or as far as the system allows."""
        limit = _raise_limit()
        self.limit = _MANY if limit == resource.RLIM_INFINITY else limit
        """Most descriptors that may be open."""

    @property
    def free(self) -> int:
        """Descriptors that can still be opened."""
        return self.limit - len(os.listdir(_OPEN))  # noqa: PTH208 - names are enough

    @property
    def suffice(self) -> bool:
        """True if a session that starts now can open its socket."""
        try:
            return self.free >= _LEAST_LEFT
        except OSError as error:
            # The list needs a descriptor itself. Another failure does not show a lack of them.
            return error.errno not in _NONE_LEFT


def _raise_limit() -> int:
    """Raise the soft limit of this process; return the soft limit that is then in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, max(soft, _PORTABLE_LIMIT)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
