"""Accounts: concurrency slots, credits and the records of their sessions. Pure.

Source: LiveAvatar API reference, credits and limits: one minute is charged at start, then one per begun minute;
sandbox sessions are free; a start with less than one minute of credit is refused.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Final, Literal

from liveavatar_emulator import errors
from liveavatar_emulator.account_limits import AccountLimits
from liveavatar_emulator.catalog import OwnAvatars
from liveavatar_emulator.config import Settings
from liveavatar_emulator.seeds import uuid_from

CREDITS_PER_MINUTE = 1.0
"""Price in LITE mode."""

EndReason = Literal[
    "USER_CLOSED",
    "USER_DISCONNECTED",
    "IDLE_TIMEOUT",
    "MAX_DURATION_REACHED",
    "NO_CREDITS",
    "ZOMBIE_SESSION_REAP",
    "AVATAR_DELETED",
    "SERVER_ERROR",
    "AGENT_HANG_UP",
    "DISPATCH_FAILED",
    "UNKNOWN",
]
"""Reasons for the end of a session, in the service's words."""


@dataclass(slots=True, eq=False)
class SessionRecord:
    """A started session in the account's history. `started_s` and `ended_s` are monotonic."""

    id: str
    account: str
    avatar_id: str
    is_sandbox: bool
    created_at: datetime
    started_s: float
    context_id: str | None = None
    ended_s: float | None = None
    end_reason: str | None = None
    events_erased: bool = False
    refunded: bool = False

    @property
    def active(self) -> bool:
        """True while the session runs."""
        return self.ended_s is None

    def duration_s(self, now_s: float) -> float:
        """Return the session's duration so far, or its final duration."""
        return max(0.0, (now_s if self.ended_s is None else self.ended_s) - self.started_s)

    def credits_consumed(self, now_s: float) -> int:
        """Return the begun minutes, at least one; 0 for sandbox sessions and failed starts."""
        if self.is_sandbox or self.refunded:
            return 0
        return int(max(1, ceil(self.duration_s(now_s) / 60)) * CREDITS_PER_MINUTE)

    def row(self, now_s: float) -> dict[str, object]:
        """Return the record as the service's JSON; an ended session also has `end_at` and `end_reason`."""
        duration_s = self.duration_s(now_s)
        updated_at = self.created_at + timedelta(seconds=duration_s)
        row: dict[str, object] = {
            "id": self.id,
            "created_at": _iso(self.created_at),
            "updated_at": _iso(updated_at),
            "duration": int(duration_s),
            "source": "API",
            "mode": "LITE",
            "is_sandbox": self.is_sandbox,
            "credits_consumed": self.credits_consumed(now_s),
        }
        if not self.active:
            row["end_at"] = _iso(updated_at)
            row["end_reason"] = self.end_reason
        return row


@dataclass(frozen=True, slots=True)
class Secret:
    """A provider's key as the account sees it. The emulator does not store its value."""

    id: str
    type: str
    name: str
    created_at: datetime

    def row(self) -> dict[str, object]:
        """Return the secret as the service's JSON."""
        return {
            "id": self.id,
            "secret_name": self.name,
            "secret_type": self.type,
            "created_at": _iso(self.created_at),
        }


NO_LIMITS: Final = AccountLimits()


class Account:
    """A customer with a balance, sessions, secrets and avatars. Invariant: the balance is never negative."""

    def __init__(self, name: str, balance: float, limits: AccountLimits = NO_LIMITS) -> None:
        self.name = name
        self.balance = balance if limits.credits is None else limits.credits
        self.limits = limits
        self.peak_slots = 0
        """Most slots that were occupied at once."""
        self.overage_minutes = 0
        self.avatars = OwnAvatars(name)
        self.secrets: dict[str, Secret] = {}
        self.records: dict[str, SessionRecord] = {}
        self._occupying: dict[str, SessionRecord] = {}

    def occupied_slots(self, settings: Settings, now_s: float) -> int:
        """Return the sessions that count against the concurrency limit: active and just ended ones."""
        release_s = settings.slot_release_ms / 1000
        freed = [
            session_id
            for session_id, record in self._occupying.items()
            if record.ended_s is not None and record.ended_s + release_s <= now_s
        ]
        for session_id in freed:
            del self._occupying[session_id]
        return len(self._occupying)

    def admit(self, record: SessionRecord, settings: Settings, now_s: float) -> None:
        """Take a slot and charge the first minute for a session that starts now.

        Raises:
            ApiError: 403/4032 no slot, or 403/4033 less than a minute of credit.
        """
        limit = settings.concurrency if self.limits.concurrency is None else self.limits.concurrency
        if self.occupied_slots(settings, now_s) >= limit:
            raise errors.ApiError(403, errors.CONCURRENCY, "Session concurrency limit reached")
        if not record.is_sandbox and not self.charge_minute(overage=settings.overage):
            raise errors.ApiError(403, errors.NO_CREDITS, "Insufficient credits for session")
        self.records[record.id] = record
        self._occupying[record.id] = record
        self.peak_slots = max(self.peak_slots, len(self._occupying))

    def charge_minute(self, *, overage: bool = False) -> bool:
        """Charge one minute; False, and nothing charged, if the balance is too low.

        With `overage` a minute beyond the balance is only counted, and True is returned.
        """
        if self.balance < CREDITS_PER_MINUTE:
            self.overage_minutes += overage
            return overage
        self.balance -= CREDITS_PER_MINUTE
        return True

    def reset_balance(self, balance: float) -> None:
        """Set the balance to that of the account's own limits, or to `balance`."""
        self.balance = balance if self.limits.credits is None else self.limits.credits

    def rate(self, settings: Settings) -> int:
        """Return the requests per second of a caller on an endpoint; 0 for no limit."""
        return settings.rate if self.limits.rate is None else self.limits.rate

    def refund(self, record: SessionRecord) -> None:
        """Refund the first minute of a session whose start-up failed."""
        if not record.is_sandbox and not record.refunded:
            self.balance += CREDITS_PER_MINUTE
        record.refunded = True

    def store_secret(self, kind: str, name: str, now: datetime, ids: random.Random) -> Secret:
        """Store a secret under a new id."""
        secret = Secret(id=uuid_from(ids), type=kind, name=name, created_at=now)
        self.secrets[secret.id] = secret
        return secret

    def forget(self) -> None:
        """Forget the history, the secrets and the changes to avatars, and free every slot."""
        self.peak_slots = 0
        self.overage_minutes = 0
        self.avatars = OwnAvatars(self.name)
        self.secrets.clear()
        self.records.clear()
        self._occupying.clear()

    def history(
        self, *, active: bool, avatar_id: str | None = None, context_id: str | None = None
    ) -> list[SessionRecord]:
        """Return the active or the ended sessions that match the filters, newest first."""
        return [
            record
            for record in reversed(self.records.values())
            if record.active is active
            and avatar_id in (None, record.avatar_id)
            and context_id in (None, record.context_id)
        ]


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
