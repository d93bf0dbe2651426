"""Usage of a registry in memory; for the rules see `usage.py`."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from liveavatar_gateway.registry.usage import (
    CHARGE_DAYS,
    KEPT_DAYS,
    MAX_LABEL_CHARS,
    MAX_LABELS,
    NO_LIMITS,
    OTHER_LABEL,
    Charge,
    Charged,
    Limits,
    Period,
    Spent,
    UsageKey,
    UsageRow,
    oldest_period,
    period_names,
)


@dataclass(slots=True)
class _Charge:
    """Totals that are counted for an id."""

    first: Charge
    """Totals, under the tenant, label and hour of the first charge."""
    last_hour: int


@dataclass(slots=True)
class UsageMemory:
    """Charges, usage by day, and totals by period."""

    charges: dict[str, _Charge] = field(default_factory=dict)
    days: dict[UsageKey, UsageRow] = field(default_factory=dict)
    totals: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Minutes by tenant and name of a period."""

    def charge(self, charge: Charge, limits: Limits) -> Spent:
        """Count what a charge adds; see `Registry.charge`."""
        known = self.charges.get(charge.id)
        counted = Charge(
            id=charge.id,
            tenant=charge.tenant,
            label=self._countable_label(charge),
            hour=charge.hour,
            began_mono_s=charge.began_mono_s,
        )
        if known is not None:
            counted = known.first
        if counted.final:
            return self.spent(counted.tenant, charge.hour)
        minutes = max(counted.minutes, charge.minutes)
        added = minutes - counted.minutes
        before = self.spent(counted.tenant, charge.hour)
        if added and before.exceeds(limits, added):
            return replace(before, refused=True)
        total = replace(
            counted,
            minutes=minutes,
            session_count=max(counted.session_count, charge.session_count),
            played_s=max(counted.played_s, charge.played_s),
            began_mono_s=counted.began_mono_s if charge.began_mono_s is None else charge.began_mono_s,
            final=charge.final,
        )
        self.charges[charge.id] = _Charge(total, charge.hour)
        self._add(
            total,
            charge.hour,
            minutes=added,
            session_count=total.session_count - counted.session_count,
            played_s=total.played_s - counted.played_s,
        )
        return replace(self.spent(total.tenant, charge.hour), added=added)

    def _countable_label(self, charge: Charge) -> str:
        label, day = charge.label[:MAX_LABEL_CHARS], charge.hour // 24
        labels = {of for known_day, tenant, of in self.days if (known_day, tenant) == (day, charge.tenant)}
        return label if label in labels or len(labels) < MAX_LABELS else OTHER_LABEL

    def _add(self, of: Charge, hour: int, *, minutes: int, session_count: int, played_s: float) -> None:
        day = hour // 24
        key = (day, of.tenant, of.label)
        row = self.days.get(key) or UsageRow(
            day=day, tenant=of.tenant, label=of.label, minutes=0, session_count=0, played_s=0.0
        )
        row = replace(
            row,
            minutes=row.minutes + minutes,
            session_count=row.session_count + session_count,
            played_s=round(row.played_s + played_s, 3),
        )
        self.days[key] = row
        if not (row.minutes or row.session_count or row.played_s):
            del self.days[key]
        for name in period_names(hour).values():
            self.totals[of.tenant, name] += minutes

    def spent(self, tenant: str, hour: int) -> Spent:
        """Return the minutes of a tenant; see `Registry.spent`."""
        names = period_names(hour)
        return Spent(
            hour=self.totals[tenant, names[Period.HOUR]],
            day=self.totals[tenant, names[Period.DAY]],
            month=self.totals[tenant, names[Period.MONTH]],
        )

    def transfer(self, charge: Charge, former: str) -> None:
        """Keep what is counted under an id under another id, and count anew; see `Registry.transfer_charge`."""
        if former in self.charges:
            return
        if (known := self.charges.pop(charge.id, None)) is not None:
            self.charges[former] = replace(known, first=replace(known.first, final=True))
        self.charge(charge, NO_LIMITS)

    def refund(self, charge_id: str) -> None:
        """Take a charge back; see `Registry.refund`."""
        if (known := self.charges.pop(charge_id, None)) is not None:
            total = known.first
            self._add(
                total,
                total.hour,
                minutes=-total.minutes,
                session_count=-total.session_count,
                played_s=-total.played_s,
            )

    def charged(self, charge_ids: Sequence[str]) -> Mapping[str, Charged]:
        """Return charges; see `Registry.charged`."""
        totals = {name: self.charges[name].first for name in charge_ids if name in self.charges}
        return {
            name: Charged(
                tenant=total.tenant, label=total.label, minutes=total.minutes, began_mono_s=total.began_mono_s
            )
            for name, total in totals.items()
        }

    def rows(
        self, *, tenant: str | None, first_day: int, last_day: int, after: UsageKey, size: int
    ) -> Sequence[UsageRow]:
        """Return usage by day, tenant and label; see `Registry.usage`."""
        chosen = [
            row
            for key, row in sorted(self.days.items())
            if key > after and first_day <= row.day <= last_day and tenant in (None, row.tenant)
        ]
        return chosen[:size]

    def tidy(self, hour: int, running: Collection[str]) -> None:
        """Remove what is old, except charges of what is running; see `Registry.tidy_usage`."""
        oldest_day, oldest_charge = hour // 24 - KEPT_DAYS, hour - CHARGE_DAYS * 24
        self.days = {key: row for key, row in self.days.items() if row.day >= oldest_day}
        for total in [total for total in self.totals if total[1] < oldest_period(hour)]:
            del self.totals[total]
        self.charges = {
            name: known
            for name, known in self.charges.items()
            if known.last_hour >= oldest_charge or name in running
        }
