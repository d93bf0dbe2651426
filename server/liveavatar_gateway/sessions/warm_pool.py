"""Warm sessions of all profiles of this process, for callers whose wishes match one exactly."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

import structlog

from liveavatar_gateway.core.errors import BudgetExhausted
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.sessions.warm_record import SAME_AVATAR
from liveavatar_gateway.sessions.warm_session import WarmServices, WarmSession
from liveavatar_gateway.sessions.warm_stock import WarmStock
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.model import AvatarRequest
from liveavatar_gateway.upstream.profiles import Profile

_log = structlog.get_logger(__name__)

ACCOUNT_DRAINED: Final = "account_drained"
"""Reason for which a session ended without a caller, in logs and metrics."""
_STEP_S: Final = 1.0
"""Longest time between two decisions, see `WarmPolicyConfig.step_s`."""

_Key = tuple[object, ...]


class WarmPool:
    """Stocks of all profiles. `run` is its one task; without profiles there is nothing to do."""

    def __init__(
        self,
        services: WarmServices,
        metrics: Metrics,
        *,
        may_pay: Callable[[str], bool] = lambda _tenant: True,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Begin without profiles.

        Args:
            services: Parts shared by all warm sessions.
            metrics: Counts sessions that are taken, missed and retired.
            may_pay: Returns False for a tenant that was suspended or removed.
            utc_now: Source of the wall clock's time.
        """
        self._services = services
        self._metrics = metrics
        self._may_pay = may_pay
        self._utc_now = utc_now
        self._wakeup = Wakeup()
        self._stocks: dict[str, WarmStock] = {}
        self._retired: list[WarmStock] = []
        """Stocks of profiles that the file no longer has, until their sessions have ended."""
        self._by_avatar: dict[_Key, tuple[WarmStock, ...]] = {}
        self._profiles: Mapping[str, Profile] = {}
        self._is_closed = False

    # --- profiles

    def use(self, profiles: Mapping[str, Profile]) -> bool:
        """Keep sessions of these profiles warm from now on; returns False if nothing changed.

        Sessions of a profile whose avatar, account or payer changed are ended like those of a removed one.
        """
        # Accounts may have changed for the sessions of unchanged profiles.
        self._wakeup.set()
        if dict(profiles) == dict(self._profiles):
            return False
        known, self._stocks = self._stocks, {}
        for name, profile in profiles.items():
            stock = known.pop(name, None)
            if stock is not None and _same_sessions(stock.profile, profile):
                stock.change(profile)
            else:
                if stock is not None:
                    known[name] = stock
                stock = WarmStock(name, profile, self._services, self._metrics, wake=self._wakeup.set)
            self._stocks[name] = stock
        for stock in known.values():
            self._retired.append(stock)
        self._profiles = dict(profiles)
        self._index()
        _log_cost(self._profiles)
        return True

    def _index(self) -> None:
        found: dict[_Key, tuple[WarmStock, ...]] = {}
        for stock in self._stocks.values():
            key = _key(stock.profile.request())
            found[key] = (*found.get(key, ()), stock)
        self._by_avatar = found

    @property
    def stocks(self) -> Iterable[WarmStock]:
        """Stocks of the present profiles."""
        return tuple(self._stocks.values())

    # --- callers

    def has(self, spec: SessionSpec, *, tenant: str) -> bool:
        """Return whether a session could be taken for a spec now."""
        now_s = time.monotonic()
        return any(
            stock.peek(tenant=tenant, least_s=_least_s(spec), now_s=now_s) is not None
            for stock in self._matching(spec, tenant)
        )

    def take(self, spec: SessionSpec, *, tenant: str) -> WarmSession | None:
        """Return a session for a caller, who calls `hand_over` next; None if no ready one matches exactly."""
        now_s = time.monotonic()
        for stock in self._matching(spec, tenant):
            stock.note_arrival(now_s)
            if (warm := stock.take(tenant=tenant, least_s=_least_s(spec), now_s=now_s)) is not None:
                return warm
        return None

    def _matching(self, spec: SessionSpec, tenant: str) -> Iterable[WarmStock]:
        if spec.has_own_room or spec.connector is not None or self._is_closed:
            return ()
        stocks = [stock for stock in self._by_avatar.get(_key(spec.avatar), ()) if stock.profile.serves(tenant)]
        if stocks and self._services.pool.permits.is_at_ceiling(tenant):
            # The permit of a warm session passes from its payer to the caller's tenant.
            return [stock for stock in stocks if stock.profile.paying_tenant == tenant]
        return stocks

    # --- the one task

    async def run(self) -> None:
        """Keep as many sessions warm as the policy says, until cancelled."""
        while True:
            try:
                self.decide()
            except Exception:  # noqa: BLE001 - the root of its task: a fault must not leave sessions warm for ever
                _log.exception("warm.crashed")
            await self._wakeup.wait(_STEP_S)
            # Many sessions may become ready in one moment.
            await asyncio.sleep(0)

    def decide(self) -> None:
        """Start and retire sessions of all profiles."""
        permits = self._services.pool.permits
        now, stocks = self._utc_now(), (*self._stocks.values(), *self._retired)
        for stock in self._stocks.values():
            stock.decide(
                now=now,
                spare_permits=max(0, permits.limit - permits.used),
                # Asked anew for each stock: one caller needs only one session, of whichever profile.
                freed=[account for other in stocks if other is not stock for account in other.freed_accounts],
                halted=self._halted(stock),
            )
        for stock in tuple(self._retired):
            stock.end_all("removed")
            if stock.is_empty:
                self._retired.remove(stock)

    def _halted(self, stock: WarmStock) -> str:
        if self._is_closed:
            return "drained"
        return "" if self._may_pay(stock.profile.paying_tenant) else "suspended"

    # --- end

    def end_for_budget(self, warm_id: str, error: BudgetExhausted) -> bool:
        """End a warm session whose payer has spent its budget; returns False if the id is not that of one."""
        for stock in (*self._stocks.values(), *self._retired):
            if (warm := stock.find(warm_id)) is not None:
                warm.give_up(error.reason, error=error)
                return True
        return False

    def end_drained(self, warm_id: str) -> bool:
        """End a warm session whose account is drained; returns False if the id is not that of one."""
        for stock in (*self._stocks.values(), *self._retired):
            if (warm := stock.find(warm_id)) is not None:
                warm.give_up(ACCOUNT_DRAINED)
                return True
        return False

    def close(self) -> None:
        """Begin to end all sessions, and start none until `reopen`."""
        self._is_closed = True
        for stock in (*self._stocks.values(), *self._retired):
            stock.end_all("drained")

    def reopen(self) -> None:
        """Keep sessions warm again, after a drain that was cancelled."""
        self._is_closed = False
        self._wakeup.set()


def _key(request: AvatarRequest) -> _Key:
    return tuple(getattr(request, name) for name in SAME_AVATAR)


def _least_s(spec: SessionSpec) -> float | None:
    """Return the life that a session needs for a spec; None for what the profile demands."""
    if spec.avatar.max_duration_s is not None:
        return float(spec.avatar.max_duration_s)
    # A fresh avatar follows before the limit, so any rest of life will do.
    return 0.0 if spec.auto_rotate else None


def _same_sessions(profile: Profile, other: Profile) -> bool:
    return (
        profile.request() == other.request()
        and profile.account == other.account
        and profile.paying_tenant == other.paying_tenant
    )


def _log_cost(profiles: Mapping[str, Profile]) -> None:
    for name, profile in profiles.items():
        _log.info(
            "warm.profile",
            profile=name,
            avatar=profile.avatar_id,
            min=profile.min,
            max=profile.policy(name).maximum,
            payer=profile.paying_tenant,
            credits_per_hour=round(profile.credits_per_hour(), 1),
        )
