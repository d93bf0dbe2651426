"""Usage in the tables of an SQLite registry; for the rules see `usage.py`. Each function runs in a transaction."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from liveavatar_gateway.registry.clock import MachineClock
from liveavatar_gateway.registry.usage import (
    CHARGE_DAYS,
    HOURLY_DAYS,
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

USAGE_SCHEMA: Final = (
    """
    CREATE TABLE charges (
        id TEXT PRIMARY KEY,         -- of a LiveAvatar session, or of a session
        tenant TEXT NOT NULL,
        label TEXT NOT NULL,
        hour INTEGER NOT NULL,       -- of the first charge, in which a refund is taken back
        last_hour INTEGER NOT NULL,
        minutes INTEGER NOT NULL,
        session_count INTEGER NOT NULL,
        played_ms INTEGER NOT NULL,
        began_boot_id TEXT,
        began_mono_s REAL,
        final INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE usage (
        hour INTEGER NOT NULL,       -- the first of its day, once hours are merged into days
        tenant TEXT NOT NULL,
        label TEXT NOT NULL,
        minutes INTEGER NOT NULL DEFAULT 0,
        session_count INTEGER NOT NULL DEFAULT 0,
        played_ms INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (tenant, hour, label)
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE spent (
        tenant TEXT NOT NULL,
        period TEXT NOT NULL,        -- as in 2026-11-30T05, 2026-11-30, 2026-11
        minutes INTEGER NOT NULL,
        PRIMARY KEY (tenant, period)
    ) STRICT, WITHOUT ROWID""",
)

_KNOWN: Final = """
    SELECT tenant, label, minutes, session_count, played_ms, began_boot_id, began_mono_s, hour, final
    FROM charges WHERE id = ?"""
_CHARGE: Final = """
    INSERT INTO charges (
        id, tenant, label, hour, last_hour, minutes, session_count, played_ms, began_boot_id, began_mono_s,
        final)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET
        last_hour = excluded.last_hour,
        minutes = max(minutes, excluded.minutes),
        session_count = max(session_count, excluded.session_count),
        played_ms = max(played_ms, excluded.played_ms),
        began_boot_id = coalesce(excluded.began_boot_id, began_boot_id),
        began_mono_s = coalesce(excluded.began_mono_s, began_mono_s),
        final = max(final, excluded.final)"""
_ADD: Final = """
    INSERT INTO usage (hour, tenant, label, minutes, session_count, played_ms) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (tenant, hour, label) DO UPDATE SET
        minutes = max(minutes + excluded.minutes, 0),
        session_count = max(session_count + excluded.session_count, 0),
        played_ms = max(played_ms + excluded.played_ms, 0)"""
_SPEND: Final = """
    INSERT INTO spent (tenant, period, minutes) VALUES (?, ?, ?)
    ON CONFLICT (tenant, period) DO UPDATE SET minutes = max(minutes + excluded.minutes, 0)"""
_LABELS_OF_DAY: Final = """
    SELECT count(DISTINCT label), coalesce(max(label = ?), 0)
    FROM usage WHERE tenant = ? AND hour BETWEEN ? AND ?"""
_ROWS: Final = """
    SELECT hour / 24 AS day, tenant, label, sum(minutes), sum(session_count), sum(played_ms)
    FROM usage WHERE hour BETWEEN ? AND ? AND (?3 ISNULL OR tenant = ?3)
    GROUP BY day, tenant, label HAVING (day, tenant, label) > (?4, ?5, ?6)
    ORDER BY day, tenant, label LIMIT ?7"""
_MERGE: Final = """
    INSERT INTO usage (hour, tenant, label, minutes, session_count, played_ms)
    SELECT hour / 24 * 24, tenant, label, minutes, session_count, played_ms
    FROM usage WHERE hour < ? AND hour % 24 <> 0
    ON CONFLICT (tenant, hour, label) DO UPDATE SET
        minutes = minutes + excluded.minutes,
        session_count = session_count + excluded.session_count,
        played_ms = played_ms + excluded.played_ms"""


def charge(connection: sqlite3.Connection, clock: MachineClock, charge: Charge, limits: Limits) -> Spent:
    """Count what a charge adds; see `Registry.charge`."""
    known = connection.execute(_KNOWN, (charge.id,)).fetchone()
    if known is None:
        label = _countable_label(connection, charge)
        tenant, minutes, session_count, played_ms = charge.tenant, 0, 0, 0
    else:
        tenant, label, minutes, session_count, played_ms = known[:5]
    if known is not None and known[8]:
        return spent(connection, tenant, charge.hour)
    totals = (charge.minutes, charge.session_count, round(charge.played_s * 1000))
    added = [
        max(0, total - counted) for total, counted in zip(totals, (minutes, session_count, played_ms), strict=True)
    ]
    before = spent(connection, tenant, charge.hour)
    if added[0] and before.exceeds(limits, added[0]):
        return Spent(hour=before.hour, day=before.day, month=before.month, refused=True)
    began = (None, None) if charge.began_mono_s is None else (clock.boot_id, charge.began_mono_s)
    connection.execute(
        _CHARGE, (charge.id, tenant, label, charge.hour, charge.hour, *totals, *began, charge.final)
    )
    if any(added):
        connection.execute(_ADD, (charge.hour, tenant, label, *added))
    if not added[0]:
        return before
    _spend(connection, tenant, charge.hour, added[0])
    after = spent(connection, tenant, charge.hour)
    return Spent(hour=after.hour, day=after.day, month=after.month, added=added[0])


def _countable_label(connection: sqlite3.Connection, charge: Charge) -> str:
    """Return the label of a charge, or the common label if its day has too many labels already."""
    label = charge.label[:MAX_LABEL_CHARS]
    first = charge.hour // 24 * 24
    values = (label, charge.tenant, first, first + 23)
    count, known = connection.execute(_LABELS_OF_DAY, values).fetchone()
    return label if known or count < MAX_LABELS else OTHER_LABEL


def _spend(connection: sqlite3.Connection, tenant: str, hour: int, minutes: int) -> None:
    connection.executemany(_SPEND, [(tenant, name, minutes) for name in period_names(hour).values()])


def spent(connection: sqlite3.Connection, tenant: str, hour: int) -> Spent:
    """Return the minutes of a tenant; see `Registry.spent`."""
    names = period_names(hour)
    rows = connection.execute(
        "SELECT period, minutes FROM spent WHERE tenant = ? AND period IN (?, ?, ?)", (tenant, *names.values())
    ).fetchall()
    minutes: dict[str, int] = dict(rows)
    return Spent(
        hour=minutes.get(names[Period.HOUR], 0),
        day=minutes.get(names[Period.DAY], 0),
        month=minutes.get(names[Period.MONTH], 0),
    )


def transfer(connection: sqlite3.Connection, clock: MachineClock, new: Charge, former: str) -> None:
    """Keep what is counted under an id under another id, and count anew; see `Registry.transfer_charge`."""
    if connection.execute(_KNOWN, (former,)).fetchone() is None:
        connection.execute("UPDATE charges SET id = ?, final = 1 WHERE id = ?", (former, new.id))
        charge(connection, clock, new, NO_LIMITS)


def refund(connection: sqlite3.Connection, charge_id: str) -> None:
    """Take a charge back; see `Registry.refund`."""
    known = connection.execute(_KNOWN, (charge_id,)).fetchone()
    if known is None:
        return
    tenant, label, minutes, session_count, played_ms, _, _, hour, _ = known
    connection.execute("DELETE FROM charges WHERE id = ?", (charge_id,))
    connection.execute(_ADD, (hour, tenant, label, -minutes, -session_count, -played_ms))
    connection.execute(
        "DELETE FROM usage WHERE hour = ? AND tenant = ? AND label = ? "
        "AND minutes <= 0 AND session_count <= 0 AND played_ms <= 0",
        (hour, tenant, label),
    )
    _spend(connection, tenant, hour, -minutes)


def charged(
    connection: sqlite3.Connection, clock: MachineClock, charge_ids: Sequence[str]
) -> Mapping[str, Charged]:
    """Return charges; see `Registry.charged`."""
    found: dict[str, Charged] = {}
    for charge_id in charge_ids:
        if (known := connection.execute(_KNOWN, (charge_id,)).fetchone()) is not None:
            tenant, label, minutes, _, _, boot_id, began_mono_s, _, _ = known
            found[charge_id] = Charged(
                tenant=tenant, label=label, minutes=minutes, began_mono_s=clock.comparable(boot_id, began_mono_s)
            )
    return found


def rows(
    connection: sqlite3.Connection,
    *,
    tenant: str | None,
    first_day: int,
    last_day: int,
    after: UsageKey,
    size: int,
) -> list[UsageRow]:
    """Return usage by day, tenant and label; see `Registry.usage`."""
    first_hour = max(first_day, after[0]) * 24
    found = connection.execute(_ROWS, (first_hour, last_day * 24 + 23, tenant, *after, size)).fetchall()
    return [
        UsageRow(
            day=day,
            tenant=of,
            label=label,
            minutes=minutes,
            session_count=session_count,
            played_s=played_ms / 1000,
        )
        for day, of, label, minutes, session_count, played_ms in found
    ]


def tidy(connection: sqlite3.Connection, hour: int) -> None:
    """Merge and remove what is old; see `Registry.tidy_usage`."""
    day = hour // 24
    hourly_from = (day - HOURLY_DAYS) * 24
    connection.execute(_MERGE, (hourly_from,))
    connection.execute("DELETE FROM usage WHERE hour < ? AND hour % 24 <> 0", (hourly_from,))
    connection.execute("DELETE FROM usage WHERE hour < ?", ((day - KEPT_DAYS) * 24,))
    connection.execute("DELETE FROM spent WHERE period < ?", (oldest_period(hour),))
    connection.execute(
        "DELETE FROM charges WHERE last_hour < ? AND id NOT IN (SELECT upstream_session_id FROM upstreams) "
        "AND id NOT IN (SELECT session_id FROM sessions WHERE NOT ended)",
        (hour - CHARGE_DAYS * 24,),
    )
