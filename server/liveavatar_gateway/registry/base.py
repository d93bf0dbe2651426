"""Interface of a registry: state of sessions that outlives the process that drives them.

A process has a lease and owns sessions. When a process dies, another claims its sessions under a higher epoch, and
later writes of the dead process are refused. A registry stores payloads without knowing their meaning; see
`sessions/record.py` for that.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

from liveavatar_gateway.registry.pool import PoolChange
from liveavatar_gateway.registry.usage import NO_LIMITS, Charge, Charged, Limits, Spent, UsageKey, UsageRow

_Result = TypeVar("_Result")

Payload = Mapping[str, Any]
"""JSON object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseConfig:
    """Lease by which a process shows that it lives."""

    ttl_s: float = 10.0
    """Lifetime of a lease without renewal. It counts only where the operating system cannot say whether the
    process lives: lower takes over sooner there, and tolerates shorter pauses."""
    renew_s: float = 3.0
    """Renewal period; at most a third of `ttl_s`, so that two renewals may be lost."""
    grace_s: float = 5.0
    """Time beyond its lease for which a process is spared when only its lease is known."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Right to write about a session. It is lost when another process claims the session."""

    session_id: str
    epoch: int
    """Number of the owner, counted from 1."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """LiveAvatar session that may be running."""

    upstream_session_id: str
    access: Payload | None = field(default=None, repr=False)
    """Addresses and tokens, unsealed; None before they are known, or when they cannot be unsealed."""
    account: str = ""
    """Account on which it runs."""


@dataclass(frozen=True, slots=True)
class HandleHash:
    """Hash of a handle that resumes a session."""

    sha256: str
    """Digest of the handle, hexadecimal."""
    until_mono_s: float | None = None
    """Deadline for its use, on the caller's monotonic clock; None is the end of the session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """Session as its owner saved and journaled it."""

    session_id: str
    owner: str
    epoch: int
    ended: bool
    sequence: int
    """Number of its last event."""
    payload: Payload
    utterances: tuple[tuple[str, Payload], ...]
    """Ids and payloads, in the order in which the utterances began."""
    upstreams: tuple[Upstream, ...]
    """LiveAvatar sessions without a confirmed stop, the newest last."""
    handles: tuple[HandleHash, ...]
    seen_mono_s: float | None
    """Time of the owner's last renewal, on the caller's monotonic clock; None when nobody can tell."""
    address: str
    """Address at which its owner serves, "host:port"; empty when unknown."""
    end_request: str = ""
    """Reason for which another process asked for the end of the session; empty without a request."""
    account: str = ""
    """Name of the LiveAvatar account and key with which the session was made."""
    saved_mono_s: float | None = field(default=None, compare=False)
    """Time to which durations in `payload` refer, on the caller's monotonic clock; None when nobody can tell."""
    tenant: str = ""
    """Tenant of the session; empty for a session of anonymous callers."""
    unreadable: str = ""
    """Reason why payload, handles or numbers cannot be read; they are empty then, and the upstream ids remain."""

    def runs_on(self, accounts: Collection[str]) -> bool:
        """Return whether all its LiveAvatar sessions run on some accounts."""
        return all((known.account or self.account) in accounts for known in self.upstreams)


class Registry(Protocol):
    """State of sessions, shared by all processes that use the same registry.

    Use as an async context manager; leaving it is a clean exit.

    Every method that may wait is awaited. `journal_*` and `discard_journal` are called for each packet and event:
    they neither wait nor fail. Journaled values survive this process at once, other processes see them, and `save`
    and `finish` move them into the table. A value that is journaled under an invalid fence changes nothing.

    Every time named `_mono_s` is on the monotonic clock of the calling process. A registry stores such times as
    durations, or on a clock that all its processes share and nobody sets: the wall clock decides nothing. A
    registry on a server of its own uses that server's clock and expiring keys.

    Raises (all awaited methods):
        RegistryUnavailable: the registry cannot be read or written at present. Nothing changed.
        OwnerMoved: another process claimed the session, so the fence is invalid.
    """

    owner: str
    """Id of this process, never used again."""
    account: str
    """Account under which this process stores sessions."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    def use_accounts(self, own: Sequence[str], retired: Sequence[str] = ()) -> None:
        """Set the accounts whose keys this process has.

        Args:
            own: Accounts whose sessions this process finds, besides `account`.
            retired: Accounts of former keys, whose orphans this process finds too.
        """

    # --- this process

    async def renew(self, address: str) -> Mapping[str, int]:
        """Renew the lease; returns the epoch of each living session that this process owns."""

    async def end_requests(self) -> Mapping[str, str]:
        """Return the living sessions of this process that another asked to end, with the reason of each."""

    # --- its sessions

    async def create(self, session_id: str, payload: Payload, *, tenant: str = "") -> Fence:
        """Add a session of this process for a tenant. The session is living until `finish`."""

    async def reserve(
        self, session_id: str, payload: Payload, *, tenant: str, request_id: str, instead_of: str = ""
    ) -> Fence | None:
        """Add a session of this process for a request; None when the request already has a session.

        Args:
            session_id: The session.
            payload: Its record.
            tenant: Tenant of the session. Each tenant has request ids of its own.
            request_id: The caller's id of the request.
            instead_of: Newest session of that request, if this session may follow it.
        """

    async def save(self, fence: Fence, payload: Payload) -> None:
        """Replace the payload of a session, and move its journaled values into the table."""

    async def add_upstream(
        self, fence: Fence, upstream_session_id: str, *, account: str = "", permit_id: str = ""
    ) -> None:
        """Add a LiveAvatar session that is about to start; returns once a crash cannot lose the id.

        Args:
            fence: Right to write about the session.
            upstream_session_id: LiveAvatar's id.
            account: Account on which it runs; empty for the account of this registry.
            permit_id: Permit that pays for it; empty when none is in the registry.
        """

    async def move_upstream(self, source: Fence, target: Fence, upstream_session_id: str) -> None:
        """Move a LiveAvatar session with its access to another session of this process.

        Raises:
            OwnerMoved: `source` has no such LiveAvatar session, or a fence is invalid.
        """

    async def save_access(self, fence: Fence, upstream_session_id: str, access: Payload) -> None:
        """Store, sealed, addresses and tokens of a LiveAvatar session."""

    async def drop_upstream(self, upstream_session_id: str) -> None:
        """Remove a LiveAvatar session that has stopped, whoever owned it."""

    async def finish(self, fence: Fence, payload: Payload, *, retention_s: float) -> bool:
        """Keep the final payload and journaled values for `retention_s`; False while an upstream session remains.

        Such a session stays living, so that another process stops it if this one dies.
        """

    def journal_sequence(self, fence: Fence, sequence: int) -> None:
        """Journal the number of the last event, before anybody is sent the event."""

    def journal_utterance(self, fence: Fence, utterance_id: str, payload: Payload) -> None:
        """Journal the progress of an utterance."""

    def journal_handles(self, fence: Fence, handles: Sequence[HandleHash]) -> None:
        """Journal the handles that resume a session in place of the former ones, before a caller gets one."""

    def discard_journal(self, fence: Fence) -> None:
        """Discard the journaled values of a session that another process owns."""

    # --- sessions of others

    async def find(self, session_id: str) -> StoredSession | None:
        """Find a session, whoever owns it; None when there is no such session."""

    async def find_request(self, request_id: str, *, tenant: str) -> StoredSession | None:
        """Find the newest session of a tenant's request, whoever owns it; None when there is no such session."""

    async def is_abandoned(self, stored: StoredSession) -> bool:
        """Return whether the owner of a living session is dead, or silent beyond its lease and the grace."""

    async def orphans(self) -> Sequence[StoredSession]:
        """Return all living sessions of dead owners, oldest first, those of retired accounts included."""

    async def other_accounts(self) -> Mapping[str, int]:
        """Count orphans that run on accounts that are neither known nor retired, by account."""

    async def session_ids(self, upstream_session_ids: Sequence[str]) -> Mapping[str, str]:
        """Return our session of each of these LiveAvatar sessions; those of others are left out."""

    async def claim(self, stored: StoredSession) -> Fence | None:
        """Claim a session in the state in which it was read; None when another process was faster."""

    async def quarantine(self, fence: Fence, reason: str) -> None:
        """Move the content of an unreadable session to a place for people; its upstream ids stay."""

    async def request_end(self, session_id: str, reason: str) -> None:
        """Ask the present or next owner to end a living session; the first reason stays."""

    async def page(self, after: str, size: int) -> Sequence[StoredSession]:
        """Return sessions older than the session `after`, newest first; from the newest when `after` is empty."""

    async def purge(self) -> None:
        """Remove final records whose retention is over, and dead processes that own nothing."""

    # --- permits and queue of all accounts together

    async def pool(self, change: PoolChange[_Result]) -> tuple[_Result, int]:
        """Run a change of the pool's book in one transaction; see `PoolStore.pool`."""

    async def pool_version(self) -> int:
        """Return the version of the pool's book; see `PoolStore.pool_version`."""

    # --- usage, of all accounts together: a new API key must neither reset a budget nor hide what was spent

    async def charge(self, charge: Charge, *, limits: Limits = NO_LIMITS) -> Spent:
        """Count what a charge adds to what is counted under its id, and return the tenant's minutes.

        Nothing is counted if minutes that it adds exceed a limit; the result says so.
        """

    async def transfer_charge(self, charge: Charge, *, former: str) -> None:
        """Keep what is counted under the id of a charge under the id `former` for good, and count anew.

        From then on the id counts for the tenant and label of `charge`. Idempotent.
        """

    async def refund(self, charge_id: str) -> None:
        """Take back all that was counted under an id, from the hour of its first charge. Idempotent."""

    async def charged(self, charge_ids: Sequence[str]) -> Mapping[str, Charged]:
        """Return the charges of these ids; unknown ids are left out."""

    async def spent(self, tenant: str, hour: int) -> Spent:
        """Return the minutes of a tenant in an hour, and in its day and month."""

    async def usage(
        self, *, tenant: str | None, first_day: int, last_day: int, after: UsageKey, size: int
    ) -> Sequence[UsageRow]:
        """Return usage by day, tenant and label, in that order.

        Args:
            tenant: The only tenant; None for all.
            first_day: First day.
            last_day: Last day, included.
            after: Key after which rows are returned.
            size: Largest number of rows.
        """

    async def tidy_usage(self, hour: int) -> None:
        """Merge and remove usage that is old at an hour. Charges of living sessions stay."""
