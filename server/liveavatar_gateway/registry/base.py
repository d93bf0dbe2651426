"""What every registry does: remembers sessions beyond the life of the process that drives them.

A process has a lease and owns sessions. When it dies, another claims its sessions under a higher epoch, and
whatever the dead one would still write is refused. A registry keeps facts without knowing what they mean;
`sessions/record.py` does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

Payload = Mapping[str, Any]
"""Values that JSON has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseConfig:
    """How a process shows that it lives."""

    ttl_s: float = 10.0
    """How long a lease lasts without renewal. It counts only where nothing can be said about the process itself:
    lower takes over sooner there, and tolerates shorter pauses."""
    renew_s: float = 3.0
    """Renewal period; at most a third of `ttl_s`, so that two renewals may be lost."""
    grace_s: float = 5.0
    """How much longer than its lease a process is spared of which nothing else is known."""


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to write about a session. It is lost when another process claims the session."""

    session_id: str
    epoch: int
    """Counts the owners of the session from 1."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """One session at LiveAvatar that may be running."""

    upstream_session_id: str
    access: Payload | None = field(default=None, repr=False)
    """Its addresses and tokens, opened; None before they were known, or when they cannot be opened."""


@dataclass(frozen=True, slots=True)
class HandleHash:
    """A handle that resumes a session, without the handle."""

    sha256: str
    """Digest of the handle, hexadecimal."""
    until_mono_s: float | None = None
    """Deadline for its use, on the caller's monotonic clock; None is the end of the session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """A session as its owner left it."""

    session_id: str
    owner: str
    epoch: int
    ended: bool
    sequence: int
    """Number of its last event."""
    facts: Payload
    utterances: tuple[tuple[str, Payload], ...]
    """Ids and facts in the order they were begun."""
    upstreams: tuple[Upstream, ...]
    """Sessions at LiveAvatar that nobody has stopped, the newest last."""
    handles: tuple[HandleHash, ...]
    seen_mono_s: float | None
    """Time of the owner's last renewal, on the caller's monotonic clock; None when nobody can tell."""
    address: str
    """Where its owner serves, "host:port"; empty when that is not known."""
    end_wanted: str = ""
    """Why somebody who is not its owner wants it to end; empty when nobody does."""
    account: str = ""
    """Name of the LiveAvatar account and key it was made with."""
    saved_mono_s: float | None = field(default=None, compare=False)
    """Time to which durations in `facts` refer, on the caller's monotonic clock; None when nobody can tell."""
    unreadable: str = ""
    """Why its facts, handles or numbers cannot be read; then they are empty here, and its upstream ids remain."""


class Registry(Protocol):
    """Remembers sessions for all processes that share it.

    Every time named `_mono_s` is on the monotonic clock of the process that calls. A registry keeps such times as
    durations on a clock that all its processes share and nobody sets; no time of the wall clock decides anything.

    Use as an async context manager; leaving it is a clean exit.

    `note_*` are called where a packet or an event leaves, from the event loop. They never wait for a disk and
    never fail: what was noted survives this process at once and is seen by all others, and `save` and `finish`
    take it along into the table. A note under a fence that is not valid any more changes nothing. Everything else
    may take as long as a disk does, and is awaited.

    Raises (all methods but `note_*`):
        RegistryUnavailable: it cannot be read or written now. Nothing changed.
        OwnerMoved: the fence is not valid any more: another process has the session.
    """

    owner: str
    """This process, unique for ever."""
    account: str
    """Whose sessions it makes and finds."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    # --- this process

    async def renew(self, address: str) -> Mapping[str, int]:
        """Renew the lease; returns the epoch of each living session that is this process's own."""

    async def wanted_ends(self) -> Mapping[str, str]:
        """Which living sessions of this process somebody else wants to end, and why."""

    # --- its sessions

    async def create(self, session_id: str, facts: Payload) -> Fence:
        """Add a session of this process. It is living until `finish`."""

    async def reserve(
        self, session_id: str, facts: Payload, *, request_id: str, instead_of: str = ""
    ) -> Fence | None:
        """Add a session of this process for a request, unless there is one; None when there is.

        Args:
            session_id: The session.
            facts: What is known of it.
            request_id: The caller's name for its wish.
            instead_of: Newest session of that request, if it may be followed by this one.
        """

    async def save(self, fence: Fence, facts: Payload) -> None:
        """Replace what is known of a session, and write what was noted of it."""

    async def add_upstream(self, fence: Fence, upstream_session_id: str) -> None:
        """Note that a session at LiveAvatar is about to start; returns when a crash cannot lose that any more."""

    async def save_access(self, fence: Fence, upstream_session_id: str, access: Payload) -> None:
        """Keep, sealed, what is needed to reach a session at LiveAvatar."""

    async def drop_upstream(self, upstream_session_id: str) -> None:
        """Note that a session at LiveAvatar is over, whoever owned it."""

    async def finish(self, fence: Fence, facts: Payload, *, keep_s: float) -> bool:
        """Keep the final record and what was noted, for `keep_s` seconds; False when not all upstream is stopped.

        Such a session stays among the living, for another process to stop it when this one is gone.
        """

    def note_sequence(self, fence: Fence, sequence: int) -> None:
        """Note the number of the last event, before anybody is told of it."""

    def note_utterance(self, fence: Fence, utterance_id: str, facts: Payload) -> None:
        """Note how far an utterance is."""

    def note_handles(self, fence: Fence, handles: Sequence[HandleHash]) -> None:
        """Replace the handles that resume a session, before anybody is given one."""

    def forget_notes(self, fence: Fence) -> None:
        """Let go of what was noted of a session that another process has."""

    # --- sessions of others

    async def find(self, session_id: str) -> StoredSession | None:
        """Look a session up, whoever owns it; None when there is none."""

    async def find_request(self, request_id: str) -> StoredSession | None:
        """Look up the newest session that was created for a request, whoever owns it; None when there is none."""

    async def abandoned(self, row: StoredSession) -> bool:
        """Whether a living session's owner is dead, or has been silent for longer than its lease and the grace."""

    async def orphans(self) -> Sequence[StoredSession]:
        """All living sessions whose owners are dead, oldest first; those made with retired keys among them."""

    async def other_accounts(self) -> Mapping[str, int]:
        """Count sessions that dead processes left under accounts that are neither this nor retired, by name."""

    async def owners_of(self, upstream_session_ids: Sequence[str]) -> Mapping[str, str]:
        """Which of these sessions at LiveAvatar are ours, with the id of our session each belongs to."""

    async def claim(self, row: StoredSession) -> Fence | None:
        """Take a session over as it was read; None when somebody else was faster."""

    async def put_aside(self, fence: Fence, reason: str) -> None:
        """Move the content of an unreadable session to where people find it and no search does; its ids stay."""

    async def request_end(self, session_id: str, reason: str) -> None:
        """Ask whoever owns a session, now or later, to end it. The first reason stays; one that ended stays so."""

    async def page(self, after: str, size: int) -> Sequence[StoredSession]:
        """Sessions newest first, behind the one named, or from the newest when `after` is empty."""

    async def tidy(self) -> None:
        """Forget final records whose time is over, and processes that are dead and own nothing."""
