"""Permits and waiters, as the book of the pool has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final


@unique
class PermitState(StrEnum):
    """State of a permit. A permit that is free has no row."""

    HELD = "held"
    """A session is starting, runs, or may run."""
    SETTLING = "settling"
    """The session has ended; LiveAvatar frees it a little later."""
    SUSPECT = "suspect"
    """The process that held it is dead; its session may run."""


TRANSITIONS: Final[Mapping[PermitState, frozenset[PermitState]]] = {
    PermitState.HELD: frozenset({PermitState.SETTLING, PermitState.SUSPECT}),
    PermitState.SUSPECT: frozenset({PermitState.HELD, PermitState.SETTLING}),
    PermitState.SETTLING: frozenset(),
}
"""Next states of each state. From each, a permit may also become free."""


@unique
class PermitKind(StrEnum):
    """Purpose of a permit."""

    CALLER = "caller"
    WARM = "warm"
    """Warm session without a caller. Granted only when nobody else waits."""
    RESERVED = "reserved"
    """Session that a caller prepared and has not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PermitRow:
    """Permit in use."""

    id: str
    account: str
    tenant: str = ""
    owner: str
    """Process that holds it."""
    session_id: str = ""
    """Session of the gateway."""
    upstream_session_id: str = ""
    """LiveAvatar session that it pays for; empty before a token is minted."""
    kind: PermitKind = PermitKind.CALLER
    profile: str = ""
    """Profile of a warm session."""
    state: PermitState = PermitState.HELD
    since_s: float
    """Time of its grant."""
    charged_s: float = 0.0
    """Slot-seconds that its tenant was charged at the grant."""
    until_s: float | None = None
    """End of settling."""
    ended_at_s: float | None = None
    """End of the session before in this permit, or of its own while it settles; None when unknown or long ago."""
    refusal_count: int = 0
    """Consecutive starts in this permit that LiveAvatar refused."""

    def in_use(self, now_s: float) -> bool:
        """Return whether the permit counts against the limit of its account."""
        return self.state is not PermitState.SETTLING or self.until_s is None or now_s < self.until_s

    @property
    def counts_for_tenant(self) -> bool:
        """True while the permit counts against floor and ceiling of its tenant."""
        return self.state is not PermitState.SETTLING

    def cost_s(self, now_s: float) -> float:
        """Return the slot-seconds that its tenant is charged for it so far."""
        return max(self.charged_s, now_s - self.since_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiter:
    """Caller in the queue. Its permit gets the waiter's id."""

    id: str
    tenant: str = ""
    owner: str
    number: int = 0
    """Order of arrival; 0 for a newcomer, whose number the book chooses."""
    accounts: tuple[str, ...]
    """Accounts whose permits it can use, in order of preference; empty when there are none at present."""
    deadline_s: float
    session_id: str = ""
    kind: PermitKind = PermitKind.CALLER
    profile: str = ""
    at_most: int | None = None
    """Most warm sessions of its profile, of all processes; None for no bound."""
    since_s: float = 0.0
    """Time at which it entered the queue; the book sets it."""
