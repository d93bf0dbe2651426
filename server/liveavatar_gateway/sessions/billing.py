"""Billing: each minute of each LiveAvatar session is counted in the registry when it begins.

A minute counts once, whichever processes drive the session: a charge states the minutes since the start of the
LiveAvatar session, see `registry/usage.py`. An outage of the registry ends and delays no session: its minutes are
counted later.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from liveavatar_gateway.auth.budgets import Budget
from liveavatar_gateway.core.errors import BudgetExhausted, RegistryUnavailable
from liveavatar_gateway.registry.base import Registry
from liveavatar_gateway.registry.usage import (
    NO_LIMITS,
    Charge,
    Limits,
    Period,
    Spent,
    hour_of,
    period_end,
    period_names,
)
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_MINUTE_S: Final = 60.0
_WARN_AT: Final = 0.8
"""Part of a budget from which its use is logged."""
_END_LEAD_S: Final = 2.0
"""Time before a minute that a spent budget does not pay, at which a session is ended; a stop takes a while."""
_RETRY_S: Final = 1.0
_TIDY_S: Final = 3600.0
_MAX_REMEMBERED: Final = 10_000
_WAITED: Final = "/waited"
"""End of the id under which the minutes are kept that passed before a caller took a LiveAvatar session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """Session as usage and budgets see it."""

    session_id: str
    tenant: str
    label: str
    """Value under which usage is broken down."""
    free: bool
    """True in LiveAvatar's sandbox, which bills no minutes."""
    waits: bool = False
    """True for a session that waits for a caller: it counts as no session, and ends when the budget is spent."""


ExhaustedListener = Callable[[str, BudgetExhausted], None]
"""Ends a session whose tenant has spent its budget, at the next border between two utterances."""


@dataclass(slots=True, kw_only=True)
class _Meter:
    """LiveAvatar session whose minutes are counted here."""

    id: str
    payer: Payer
    began_s: float
    """Begin of its first minute, monotonic."""
    minutes: int
    """Minutes that were counted."""
    max_minutes: float = math.inf
    """Minutes until LiveAvatar's limit, which comes before the bill of a further minute."""
    checked: int = 0
    """Minutes for which the budget of the next was checked."""

    @property
    def next_s(self) -> float:
        """Begin of the first minute that was not counted."""
        return math.inf if self.minutes >= self.max_minutes else self.began_s + self.minutes * _MINUTE_S


class Billing:
    """Counter of billed minutes, sessions and played time of this process. `run` is its one task."""

    def __init__(
        self,
        registry: Registry,
        metrics: Metrics,
        *,
        budget_of: Callable[[str], Budget],
        on_exhausted: ExhaustedListener,
        is_running: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Prepare.

        Args:
            registry: Registry in which all processes count.
            metrics: Counts minutes, warnings and refusals.
            budget_of: Returns the present budget of a tenant.
            on_exhausted: Ends sessions, if the budget says so.
            is_running: Returns whether this process has, or may have, a LiveAvatar session.
            clock: Source of monotonic seconds.
            utc_now: Source of the wall clock's time.
        """
        self._registry = registry
        self._metrics = metrics
        self._budget_of = budget_of
        self._on_exhausted = on_exhausted
        self._is_running = is_running
        self._clock = clock
        self._utc_now = utc_now
        self._meters: dict[str, _Meter] = {}
        self._todo: dict[str, Callable[[], Awaitable[None]]] = {}
        """Work that is repeated until the registry takes it, in order; the same key is done once."""
        self._logged: set[tuple[str, str, str]] = set()
        self._tidy_at_s = -math.inf
        self._outage = False
        self._wakeup = Wakeup()

    # --- opening

    async def require(self, payer: Payer) -> None:
        """Refuse a session of a tenant whose budget is spent, before anything is done for it.

        Raises:
            BudgetExhausted: no further minute is left.
            RegistryUnavailable: the registry cannot be read.
        """
        budget = self._budget_of(payer.tenant)
        if payer.free or not budget.is_limited:
            return
        hour = hour_of(self._utc_now())
        spent = await self._registry.spent(payer.tenant, hour)
        if spent.exceeds(_limits(budget), 1):
            raise self._refusal(payer.tenant, budget, spent, hour)

    async def reserve(self, upstream_session_id: str, payer: Payer, *, follows: bool) -> None:
        """Count the first minute of a LiveAvatar session that is about to start.

        Args:
            upstream_session_id: LiveAvatar's id of the session.
            payer: Session that pays.
            follows: True for an avatar that follows another one of the same session, which no budget refuses.

        Raises:
            BudgetExhausted: no further minute is left; nothing was counted.
            RegistryUnavailable: the registry cannot be written.
        """
        if payer.free:
            return
        budget, now_s, hour = self._budget_of(payer.tenant), self._clock(), hour_of(self._utc_now())
        charge = Charge(
            id=upstream_session_id,
            tenant=payer.tenant,
            label=payer.label,
            hour=hour,
            minutes=1,
            began_mono_s=now_s,
        )
        spent = await self._registry.charge(charge, limits=NO_LIMITS if follows else _limits(budget))
        if spent.refused:
            raise self._refusal(payer.tenant, budget, spent, hour)
        self._meters[upstream_session_id] = _Meter(id=upstream_session_id, payer=payer, began_s=now_s, minutes=1)
        self._note(payer.tenant, budget, spent, hour)
        self._wakeup.set()

    async def refund(self, upstream_session_id: str) -> None:
        """Give back the minute of a session that LiveAvatar did not start. Raises nothing."""
        self._meters.pop(upstream_session_id, None)
        key = f"refund {upstream_session_id}"
        self._todo[key] = lambda: self._registry.refund(upstream_session_id)
        # At once, since a retry of the start needs the minute.
        await self._attempt(key)

    def started(
        self, upstream_session_id: str, payer: Payer, *, max_duration_s: float | None, follows: bool
    ) -> None:
        """Count from now on the minutes of a LiveAvatar session that has started."""
        if not follows:
            self._count_session(payer)
        if (meter := self._meters.get(upstream_session_id)) is None:
            return
        meter.began_s = self._clock()
        meter.max_minutes = _minutes(max_duration_s)
        # Another process needs the begin, in case this one dies.
        self._todo[f"begin {meter.id}"] = lambda: self._save_begin(meter)
        self._wakeup.set()

    async def _save_begin(self, meter: _Meter) -> None:
        await self._registry.charge(self._charge(meter, meter.minutes, self._hour(self._clock())))

    def transfer(self, upstream_session_id: str, payer: Payer) -> None:
        """Let another session pay for a LiveAvatar session, from the next minute on."""
        self._count_session(payer)

        async def move() -> None:
            known = self._meters.get(upstream_session_id)
            if known is not None and known.payer != payer:
                await self._move(known, payer)

        self._todo[f"transfer {upstream_session_id}"] = move
        self._wakeup.set()

    async def _move(self, known: _Meter, payer: Payer) -> None:
        meter = _Meter(
            id=known.id,
            payer=payer,
            # The minute that runs was paid by the former payer.
            began_s=known.began_s + known.minutes * _MINUTE_S,
            minutes=0,
            max_minutes=known.max_minutes - known.minutes,
            # The budget is checked before the first minute too.
            checked=-1,
        )
        charge = self._charge(meter, 0, self._hour(self._clock()))
        await self._registry.transfer_charge(charge, former=f"{known.id}{_WAITED}")
        self._meters[known.id] = meter

    def _count_session(self, payer: Payer, played_s: float = 0.0) -> None:
        if payer.waits:
            return
        charge = Charge(
            id=payer.session_id,
            tenant=payer.tenant,
            label=payer.label,
            hour=hour_of(self._utc_now()),
            session_count=1,
            played_s=played_s,
        )

        async def count() -> None:
            await self._registry.charge(charge)

        self._todo[f"session {payer.session_id}"] = count
        self._wakeup.set()

    # --- sessions of other processes

    def adopt(
        self, upstream_session_id: str, payer: Payer, *, started_at: datetime | None, max_duration_s: float | None
    ) -> None:
        """Count from now on the minutes of a LiveAvatar session that another process started.

        Args:
            upstream_session_id: LiveAvatar's id of the session.
            payer: Session that pays.
            started_at: Start of the bill, for a session that the registry does not know.
            max_duration_s: LiveAvatar's limit; None without one.
        """
        if payer.free:
            return
        now_s = self._clock()
        age_s = 0.0 if started_at is None else max(0.0, (self._utc_now() - started_at).total_seconds())

        async def read() -> None:
            known = (await self._registry.charged([upstream_session_id])).get(upstream_session_id)
            began_s = None if known is None else known.began_mono_s
            meter = self._meters[upstream_session_id] = _Meter(
                id=upstream_session_id,
                payer=payer,
                began_s=now_s - age_s if began_s is None else began_s,
                minutes=0 if known is None else known.minutes,
                max_minutes=_minutes(max_duration_s),
            )
            if known is not None and known.tenant != payer.tenant:
                # Its process died between the moment in which a caller took it and the change of the payer.
                await self._move(meter, payer)

        self._todo[f"adopt {upstream_session_id}"] = read
        self._wakeup.set()

    # --- the end

    def stopped(self, upstream_session_id: str, *, ran: bool = True) -> None:
        """Count the last minutes of a LiveAvatar session that has stopped, whichever process started it.

        Args:
            upstream_session_id: LiveAvatar's id of the session.
            ran: False for an orphan that LiveAvatar had ended at an unknown time, so that nothing more is counted.
        """
        stopped_s = self._clock()

        async def settle() -> None:
            meter = self._meters.get(upstream_session_id) or await self._meter_of(upstream_session_id)
            if meter is None:
                return
            if ran:
                await self._count(meter, stopped_s)
            # From now on the registry counts nothing for it, whatever a process that stood still believes.
            await self._registry.charge(self._charge(meter, meter.minutes, self._hour(stopped_s), final=True))
            self._meters.pop(upstream_session_id, None)

        self._todo[f"stop {upstream_session_id}"] = settle
        self._wakeup.set()

    async def _meter_of(self, upstream_session_id: str) -> _Meter | None:
        known = (await self._registry.charged([upstream_session_id])).get(upstream_session_id)
        if known is None or not known.minutes:
            return None
        payer = Payer(session_id="", tenant=known.tenant, label=known.label, free=False)
        began_s = self._clock() if known.began_mono_s is None else known.began_mono_s
        return _Meter(id=upstream_session_id, payer=payer, began_s=began_s, minutes=known.minutes)

    async def ended(self, payer: Payer, played_s: float) -> None:
        """Count the played time of a session that ends; the registry is tried once before this returns."""
        self._count_session(payer, played_s)
        await self._attempt(f"session {payer.session_id}")

    # --- the one task

    async def run(self) -> None:
        """Count minutes as they begin, until cancelled; then count what is left, once."""
        try:
            while True:
                await self._run_once()
        except asyncio.CancelledError:
            await self._finish()
            raise

    async def _run_once(self) -> None:
        worked = False
        try:
            worked = await self._work()
        except Exception:  # noqa: BLE001 - root of its task: a fault must not keep later minutes from being counted
            _log.exception("billing.crashed")
        due_s = min((self._due_s(meter) for meter in self._meters.values()), default=math.inf)
        wait_s = min(due_s, self._tidy_at_s) - self._clock() if worked else _RETRY_S
        if worked:
            await self._wakeup.wait(wait_s)
        else:
            await asyncio.sleep(wait_s)

    async def _finish(self) -> None:
        try:
            await self._work()
        except Exception:  # noqa: BLE001 - the process exits
            _log.exception("billing.crashed")
        if self._todo:
            _log.error("billing.uncounted", count=len(self._todo))

    async def _work(self) -> bool:
        """Count what is due; returns False in an outage of the registry."""
        for key in tuple(self._todo):
            if not await self._attempt(key):
                return False
        try:
            for meter in tuple(self._meters.values()):
                await self._advance(meter)
            if self._clock() >= self._tidy_at_s:
                await self._registry.tidy_usage(hour_of(self._utc_now()))
                self._tidy_at_s = self._clock() + _TIDY_S
        except RegistryUnavailable as error:
            self._note_outage(error)
            return False
        self._outage = False
        return True

    async def _attempt(self, key: str) -> bool:
        """Do one piece of work; it stays in the list if the registry does not take it."""
        if (work := self._todo.get(key)) is None:
            return True
        try:
            await work()
        except RegistryUnavailable as error:
            self._note_outage(error)
            return False
        except Exception:  # noqa: BLE001 - one faulty piece must not keep the others waiting
            _log.exception("billing.failed", what=key)
        # Newer work may have come under the same key meanwhile.
        if self._todo.get(key) is work:
            del self._todo[key]
        return True

    def _due_s(self, meter: _Meter) -> float:
        if meter.next_s < math.inf and self._ends_sessions(meter) and meter.checked < meter.minutes:
            return meter.next_s - _END_LEAD_S
        return meter.next_s

    def _ends_sessions(self, meter: _Meter) -> bool:
        budget = self._budget_of(meter.payer.tenant)
        return budget.is_limited and (meter.payer.waits or budget.at_limit == "end")

    async def _advance(self, meter: _Meter) -> None:
        now_s = self._clock()
        if now_s < self._due_s(meter):
            return
        if not self._is_running(meter.id):
            # Another process drives it now, or its stop is in the list.
            self._meters.pop(meter.id, None)
            return
        if self._ends_sessions(meter) and meter.checked < meter.minutes:
            await self._check_next(meter)
        await self._count(meter, now_s)

    async def _check_next(self, meter: _Meter) -> None:
        """End the session if the budget does not pay its next minute."""
        tenant, hour = meter.payer.tenant, self._hour(meter.next_s)
        budget = self._budget_of(tenant)
        spent = await self._registry.spent(tenant, hour)
        meter.checked = meter.minutes
        if spent.exceeds(_limits(budget), 1):
            self._on_exhausted(meter.payer.session_id, self._exhausted(tenant, budget, spent, hour))

    async def _count(self, meter: _Meter, until_s: float) -> None:
        """Count each minute that began before a time, in the hour in which it began."""
        while meter.next_s < until_s:
            hour = self._hour(meter.next_s)
            spent = await self._registry.charge(self._charge(meter, meter.minutes + 1, hour))
            meter.minutes += 1
            self._note(meter.payer.tenant, self._budget_of(meter.payer.tenant), spent, hour)

    def _charge(self, meter: _Meter, minutes: int, hour: int, *, final: bool = False) -> Charge:
        return Charge(
            id=meter.id,
            tenant=meter.payer.tenant,
            label=meter.payer.label,
            hour=hour,
            minutes=minutes,
            began_mono_s=meter.began_s,
            final=final,
        )

    def _hour(self, mono_s: float) -> int:
        return hour_of(self._utc_now() - timedelta(seconds=self._clock() - mono_s))

    # --- what operators see

    def _note(self, tenant: str, budget: Budget, spent: Spent, hour: int) -> None:
        self._metrics.minutes_billed(tenant, spent.added)
        limits = _limits(budget)
        for period, name in period_names(hour).items():
            limit = limits.of(period)
            # The charge that crosses the line logs it, so that one of all processes does.
            if limit and spent.of(period) - spent.added < limit * _WARN_AT <= spent.of(period):
                self._log_once("budget.warning", tenant, period, name, used=spent.of(period), limit=limit)

    def _log_once(self, event: str, tenant: str, period: Period, name: str, *, used: int, limit: int) -> None:
        key = (event, tenant, name)
        if key in self._logged:
            return
        if len(self._logged) >= _MAX_REMEMBERED:
            self._logged.clear()
        self._logged.add(key)
        _log.warning(event, tenant=tenant, period=period.value, name=name, used=used, limit=limit)
        if event == "budget.warning":
            self._metrics.budget_warned(tenant)

    def _refusal(self, tenant: str, budget: Budget, spent: Spent, hour: int) -> BudgetExhausted:
        self._metrics.budget_refused(tenant)
        return self._exhausted(tenant, budget, spent, hour)

    def _exhausted(self, tenant: str, budget: Budget, spent: Spent, hour: int) -> BudgetExhausted:
        """Return the error for the period that is spent and ends last."""
        limits = _limits(budget)
        spent_periods = [
            (period, limit)
            for period in Period
            if (limit := limits.of(period)) is not None and spent.of(period) + 1 > limit
        ]
        period, limit = spent_periods[-1]
        until, used = period_end(period, hour), spent.of(period)
        self._log_once("budget.exhausted", tenant, period, period_names(hour)[period], used=used, limit=limit)
        return BudgetExhausted(
            tenant,
            period=period.value,
            used=used,
            limit=limit,
            until=until.isoformat(),
            retry_after_s=max(0.0, (until - self._utc_now()).total_seconds()),
        )

    def _note_outage(self, error: RegistryUnavailable) -> None:
        if not self._outage:
            self._outage = True
            _log.error("billing.delayed", error=error.detail)


def _limits(budget: Budget) -> Limits:
    return Limits(hour=budget.minutes_per_hour, day=budget.minutes_per_day, month=budget.minutes_per_month)


def _minutes(max_duration_s: float | None) -> float:
    return math.inf if max_duration_s is None else math.ceil(max_duration_s / _MINUTE_S)
