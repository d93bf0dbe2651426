"""Which process drives which session, as operators see it."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.live import LiveSession


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """A session and the process that drives it."""

    session: LiveSession
    """As it is, or as its owner left it."""
    owner: str
    """Name of the process in leases."""
    epoch: int = 1
    """Counts its owners."""
    lease_left_s: float | None = None
    """How long the owner may be silent before another takes over; None when nobody would."""


class Ownership(Protocol):
    """What is known of this process and of all that share its registry."""

    @property
    def owner(self) -> str:
        """Name of this process."""

    @property
    def adopted_count(self) -> int:
        """Sessions taken over from dead processes since the start of this one."""

    @property
    def swept_count(self) -> int:
        """Sessions of dead processes that were ended upstream since the start of this one."""

    async def page(self, token: str, size: int) -> tuple[Sequence[Owned], str]:
        """Sessions newest first, behind the one that `token` names, and the token of the next page.

        Raises:
            InvalidField: the token was never given out.
        """


class OwnSessions:
    """Where nothing is shared: this process has all sessions that there are."""

    adopted_count = 0
    swept_count = 0

    def __init__(self, directory: Directory) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}"
        self._directory = directory

    async def page(self, token: str, size: int) -> tuple[Sequence[Owned], str]:
        """The same for this process alone."""
        sessions, next_token = self._directory.page(self._directory.newest(), token, size)
        return [Owned(session=session, owner=self.owner) for session in sessions], next_token
