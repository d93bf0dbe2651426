"""Fair order between tenants: virtual time that advances by slot-seconds divided by the weight.

A permit is charged an expected duration when it is granted, its real duration once that is longer, and exactly its
real duration when it ends. Shares therefore hold however long sessions last, and they do not oscillate, because
granted permits count before they are used. See `docs/decisions/0021-fair-order-and-shared-permits.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

MIN_CHARGE_S: Final = 1.0
"""Least charge of a permit, so that no tenant is served forever with sessions that end at once."""
MAX_CHARGE_S: Final = 3600.0
DEFAULT_DURATION_S: Final = 60.0
"""Expected duration of a session before any has ended."""
SMOOTHING: Final = 0.1
"""Weight of the newest duration in a mean."""
MIN_WEIGHT: Final = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantShare:
    """Part of the pool that the settings give to a tenant."""

    weight: float = 1.0
    """Share of the slot-seconds while others wait too, relative to the weights of the others."""
    floor: int = 0
    """Permits that are kept free for the tenant."""
    ceiling: int | None = None
    """Largest number of permits of the tenant, over all accounts; None is no limit."""
    max_waiting: int | None = None
    """Largest number of waiters of the tenant; None is the limit of the whole queue."""
    accounts: tuple[str, ...] = ()
    """Accounts on which the floor is kept; empty for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Parts of the pool of all tenants."""

    by_tenant: Mapping[str, TenantShare] = field(default_factory=dict)
    """Tenants that the settings mention."""
    default: TenantShare = field(default_factory=TenantShare)
    """Share of every other tenant."""

    def of(self, tenant: str) -> TenantShare:
        """Return the share of a tenant."""
        return self.by_tenant.get(tenant, self.default)


EQUAL_SHARES: Final = Shares()


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantTime:
    """Use of the pool by a tenant up to now."""

    tenant: str
    settled: float = 0.0
    """Virtual time of its permits that have ended, since somebody began to wait in an empty queue. Negative for
    permits that began before."""
    duration_s: float = DEFAULT_DURATION_S
    """Expected duration of a session, the smoothed mean of former ones."""

    @property
    def charge_s(self) -> float:
        """Slot-seconds that a permit is charged when it is granted."""
        return min(max(self.duration_s, MIN_CHARGE_S), MAX_CHARGE_S)

    def ended(self, held_s: float, weight: float) -> "TenantTime":
        """Settle a permit that was held for `held_s` seconds."""
        duration_s = self.duration_s + (held_s - self.duration_s) * SMOOTHING
        return replace(self.settle(held_s, weight), duration_s=duration_s)

    def settle(self, held_s: float, weight: float) -> "TenantTime":
        """Charge slot-seconds for good, without learning a duration."""
        return replace(self, settled=self.settled + max(held_s, MIN_CHARGE_S) / max(weight, MIN_WEIGHT))


def entry_time(used: float, reference: float, leeway: float) -> float:
    """Return the used time with which a tenant without waiters begins to wait.

    Args:
        used: Virtual time that it has used up to now, charges in advance excepted.
        reference: Least used time of the tenants that wait. The tenant begins no earlier, so that nobody saves up
            turns. Since charges in advance are excepted, the tenant soon reaches its share.
        leeway: Time of its present permits and of one more. The tenant begins at most that much later, so that
            nobody pays for permits that nobody else wanted.
    """
    return min(max(used, reference), reference + leeway)
