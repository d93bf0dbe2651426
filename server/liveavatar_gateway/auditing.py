"""Audit of a process: log, interceptor and observer, wired together."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from liveavatar_gateway.reloading import FileReloads
from liveavatar_gateway.rpc.interceptors.audit import AuditInterceptor
from liveavatar_gateway.rpc.peer import Network
from liveavatar_gateway.sessions.audit import EndAudit
from liveavatar_gateway.telemetry.audit import OK, STDOUT, AuditLog, open_file
from liveavatar_gateway.telemetry.line_rate import LineRate


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """Target of the log, and the proxies in front."""

    target: str = ""
    """File, "-" for standard output, or empty for no audit."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks of proxies whose `x-forwarded-for` is believed."""


class Auditing:
    """Audit of a process; without a target it does nothing. The creator closes it."""

    def __init__(self, config: AuditConfig) -> None:
        """Open the log.

        Raises:
            ValueError: the file cannot be opened.
        """
        self._config = config
        self.log = AuditLog.open(config.target) if config.target else None
        """Log; None without a target."""
        self.ends = None if self.log is None else EndAudit(self.log)
        """Observer of sessions; None without a target."""
        self._rate = None if self.log is None else LineRate(self.log.write)

    @property
    def dropped_count(self) -> int:
        """Number of lines that could not be written."""
        return 0 if self.log is None else self.log.dropped_count

    def interceptors(self) -> Sequence[grpc.aio.ServerInterceptor]:
        """Return the interceptor of calls, to be put outside of authentication; none without a target."""
        return [] if self._rate is None else [AuditInterceptor(self._rate, self._config.trusted_proxies)]

    def add_to(self, reloads: FileReloads) -> None:
        """Open the file again on SIGHUP, since a rotation may have moved it away."""
        if self.log is not None and self._config.target != STDOUT:
            path = Path(self._config.target)
            reloads.add("audit log", (path,), lambda: open_file(path), self.log.use)

    def drained(self, grace_s: float) -> None:
        """Write a line about a drain that a signal has begun."""
        if self.log is not None:
            self.log.write("process.drain", OK, {"cause": "signal", "grace_s": grace_s})

    async def aclose(self) -> None:
        """Wait, within bounds, until all lines are written."""
        if self._rate is not None:
            # Lines that stand for many would otherwise wait for the end of their second.
            self._rate.flush()
        if self.log is not None:
            await asyncio.to_thread(self.log.close)
