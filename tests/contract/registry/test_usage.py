"""Conformance suite of registries: usage is counted once, over all processes, and outlives its sessions."""

import asyncio
import random
import time
from datetime import UTC, date, datetime

import pytest

from liveavatar_gateway.registry import usage_memory, usage_tables
from liveavatar_gateway.registry.usage import (
    HOURLY_DAYS,
    KEPT_DAYS,
    OTHER_LABEL,
    Charge,
    Limits,
    Spent,
    day_of,
    hour_of,
)

HOUR = hour_of(datetime(2026, 11, 30, 5, tzinfo=UTC))
DAY = day_of(date(2026, 11, 30))
START = (-1, "", "")


def charge(name: str = "up-1", minutes: int = 1, **fields) -> Charge:
    return Charge(**{"id": name, "tenant": "acme", "label": "desk", "hour": HOUR, "minutes": minutes, **fields})


async def rows(registry, *, tenant=None, first=DAY, last=DAY, after=START, size=100):
    found = await registry.usage(tenant=tenant, first_day=first, last_day=last, after=after, size=size)
    return [(row.day - DAY, row.tenant, row.label, row.minutes, row.session_count, row.played_s) for row in found]


async def test_a_minute_is_counted_once_however_often_it_is_charged(mine, other):
    assert await mine.charge(charge()) == Spent(hour=1, day=1, month=1, added=1)
    assert await other.charge(charge()) == Spent(hour=1, day=1, month=1)
    assert await other.charge(charge(minutes=3)) == Spent(hour=3, day=3, month=3, added=2)
    assert await mine.charge(charge(minutes=2)) == Spent(hour=3, day=3, month=3)
    assert await rows(mine) == [(0, "acme", "desk", 3, 0, 0.0)]


async def test_charges_at_the_same_time_add_up(mine, other):
    charges = [charge(f"up-{number % 20}", number // 20 + 1) for number in range(100)]
    random.Random(7).shuffle(charges)
    await asyncio.gather(*((mine, other)[number % 2].charge(one) for number, one in enumerate(charges)))
    assert (await other.spent("acme", HOUR)).month == 100


async def test_periods_are_those_of_the_calendar(mine):
    moments = [(11, 30, 5), (11, 30, 6), (11, 29, 5), (12, 1, 0)]
    for number, (month, day, hour) in enumerate(moments):
        await mine.charge(charge(f"up-{number}", hour=hour_of(datetime(2026, month, day, hour, tzinfo=UTC))))
    assert await mine.spent("acme", HOUR) == Spent(hour=1, day=2, month=3)
    assert await mine.spent("other", HOUR) == Spent()


@pytest.mark.parametrize("limits", [Limits(hour=3), Limits(day=3), Limits(month=3)])
async def test_what_a_limit_refuses_is_not_counted(mine, other, limits):
    for number in range(3):
        assert (await (mine, other)[number % 2].charge(charge(f"up-{number}"), limits=limits)).added == 1
    refused = await mine.charge(charge("up-3"), limits=limits)
    assert (refused.refused, refused.added, refused.month) == (True, 0, 3)
    # A charge that was counted before is repeated, not refused.
    assert not (await other.charge(charge("up-2"), limits=limits)).refused
    assert list(await mine.charged(["up-3"])) == []
    assert await rows(mine) == [(0, "acme", "desk", 3, 0, 0.0)]
    await mine.refund("up-0")
    assert (await mine.charge(charge("up-3"), limits=limits)).added == 1


async def test_a_limit_holds_against_all_at_once(mine, other):
    async def open_one(number):
        spent = await (mine, other)[number % 2].charge(charge(f"up-{number}"), limits=Limits(day=5))
        return not spent.refused

    assert sum(await asyncio.gather(*map(open_one, range(30)))) == 5


async def test_a_refund_takes_back_what_was_counted_and_only_once(mine, other):
    await mine.charge(charge("up-1", 2))
    await mine.charge(charge("up-2"))
    await mine.refund("up-1")
    await other.refund("up-1")
    await other.refund("up-9")
    assert await mine.spent("acme", HOUR) == Spent(hour=1, day=1, month=1)
    await mine.refund("up-2")
    assert await rows(mine) == []


async def test_sessions_and_played_time_are_counted_beside_the_minutes(mine, other):
    await mine.charge(charge("s-1", 0, session_count=1))
    await mine.charge(charge("up-1"))
    await other.charge(charge("s-1", 0, session_count=1, played_s=12.3456))
    await mine.charge(charge("s-1", 0, played_s=12.3456))
    assert await rows(mine) == [(0, "acme", "desk", 1, 1, 12.346)]


async def test_nothing_is_counted_after_the_last_charge(mine, other):
    await mine.charge(charge(minutes=2, final=True))
    assert await other.charge(charge(minutes=9)) == Spent(hour=2, day=2, month=2)
    assert await rows(mine) == [(0, "acme", "desk", 2, 0, 0.0)]


async def test_tenant_and_label_of_the_first_charge_count(mine, other):
    await mine.charge(charge())
    await other.charge(charge(minutes=2, tenant="", label=""))
    assert await rows(mine) == [(0, "acme", "desk", 2, 0, 0.0)]


async def test_what_was_charged_is_known_to_every_process(mine, other):
    began_s = time.monotonic()
    await mine.charge(charge(began_mono_s=began_s - 9))
    await mine.charge(charge(began_mono_s=began_s))
    await mine.charge(charge(minutes=2))
    found = await other.charged(["up-0", "up-1"])
    assert list(found) == ["up-1"]
    one = found["up-1"]
    assert (one.tenant, one.label, one.minutes, one.began_mono_s) == ("acme", "desk", 2, began_s)


async def test_usage_is_listed_by_day_tenant_and_label_in_pages(mine):
    for number, (day, tenant, label) in enumerate(
        [(0, "b", ""), (0, "a", "y"), (-1, "b", "x"), (0, "a", "x"), (1, "a", "x"), (0, "a", "x")]
    ):
        await mine.charge(charge(f"up-{number}", tenant=tenant, label=label, hour=HOUR + day * 24 + number))
    listed = [
        (-1, "b", "x", 1, 0, 0.0),
        (0, "a", "x", 2, 0, 0.0),
        (0, "a", "y", 1, 0, 0.0),
        (0, "b", "", 1, 0, 0.0),
        (1, "a", "x", 1, 0, 0.0),
    ]
    assert await rows(mine, first=DAY - 9, last=DAY + 9) == listed
    assert await rows(mine) == listed[1:4]
    assert await rows(mine, tenant="a", first=0, last=DAY + 9) == [listed[1], listed[2], listed[4]]
    pages, after = [], START
    while page := await mine.usage(tenant=None, first_day=0, last_day=DAY + 9, after=after, size=2):
        pages += [(row.day - DAY, row.tenant, row.label) for row in page]
        after = page[-1].key
    assert pages == [row[:3] for row in listed]


async def test_further_labels_of_a_day_are_counted_together(mine, monkeypatch):
    for module in (usage_memory, usage_tables):
        monkeypatch.setattr(module, "MAX_LABELS", 10)
    for number in range(15):
        await mine.charge(charge(f"up-{number}", label=f"label-{number}", hour=HOUR + number))
    await mine.charge(charge("up-known", label="label-7"))
    await mine.charge(charge("up-tenant", label="label-99", tenant="another"))
    await mine.charge(charge("up-next-day", label="late", hour=HOUR + 24))
    found = {row[2]: row[3] for row in await rows(mine, tenant="acme")}
    assert len(found) == 11
    assert (found[OTHER_LABEL], found["label-7"]) == (5, 2)
    assert [row[2] for row in await rows(mine, tenant="another")] == ["label-99"]
    assert [row[2] for row in await rows(mine, first=DAY + 1, last=DAY + 1)] == ["late"]


async def test_usage_outlives_its_session_and_the_process(shared, mine):
    fence = await mine.create("s-1", {})
    await mine.charge(charge())
    await mine.finish(fence, {}, retention_s=-1)
    await mine.purge()
    shared.kill(mine)
    later = await shared.join()
    assert await later.find("s-1") is None
    assert await rows(later) == [(0, "acme", "desk", 1, 0, 0.0)]


async def test_another_account_shares_usage_and_budget(shared, mine):
    """A new API key makes another account of the same customer."""
    await mine.charge(charge(), limits=Limits(day=1))
    rotated = await shared.join(account="another")
    assert (await rotated.charge(charge("up-2"), limits=Limits(day=1))).refused
    assert len(await rows(rotated)) == 1


async def test_old_usage_is_merged_into_days_and_kept_for_the_documented_time(mine):
    for hours in (0, 1, 30):
        await mine.charge(charge(f"up-{hours}", hour=HOUR + hours, session_count=1, played_s=1.5))
    listed = await rows(mine, last=DAY + 9)
    for days in (1, HOURLY_DAYS + 2, KEPT_DAYS - 1, KEPT_DAYS - 1):
        await mine.tidy_usage(HOUR + days * 24)
        assert await rows(mine, last=DAY + 9) == listed
    await mine.tidy_usage(HOUR + (KEPT_DAYS + 1) * 24)
    assert await rows(mine, last=DAY + 9) == listed[1:]


async def test_totals_of_present_periods_survive_the_clean_up(mine):
    await mine.charge(charge())
    await mine.tidy_usage(HOUR + 18)
    assert await mine.spent("acme", HOUR) == Spent(hour=1, day=1, month=1)


async def test_charges_are_recognised_for_days_and_as_long_as_their_session_lives(mine):
    fence = await mine.create("s-1", {})
    await mine.add_upstream(fence, "up-1")
    for name in ("s-1", "up-1", "up-2"):
        await mine.charge(charge(name))
    await mine.tidy_usage(HOUR + 24)
    assert set(await mine.charged(["s-1", "up-1", "up-2"])) == {"s-1", "up-1", "up-2"}
    await mine.tidy_usage(HOUR + 30 * 24)
    assert set(await mine.charged(["s-1", "up-1", "up-2"])) == {"s-1", "up-1"}


async def test_another_tenant_pays_from_a_transfer_on(mine, other):
    await mine.charge(charge(minutes=2))
    taken = charge(minutes=0, tenant="beta", label="phone", began_mono_s=5.0)
    for registry in (mine, other, mine):
        await registry.transfer_charge(taken, former="up-1/waited")
    assert await other.charge(charge(minutes=3, tenant="beta")) == Spent(hour=3, day=3, month=3, added=3)
    assert await rows(mine) == [(0, "acme", "desk", 2, 0, 0.0), (0, "beta", "phone", 3, 0, 0.0)]
    found = await mine.charged(["up-1", "up-1/waited"])
    assert [(one.tenant, one.minutes) for one in found.values()] == [("beta", 3), ("acme", 2)]
    assert (await mine.charge(charge("up-1/waited", 9))).added == 0


async def test_what_was_never_charged_is_transferred_too(mine):
    await mine.transfer_charge(charge(minutes=0, tenant="beta"), former="up-1/waited")
    assert (await mine.charged(["up-1"]))["up-1"].tenant == "beta"
