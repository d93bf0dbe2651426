"""Minutes are counted when they begin: once, over all processes, and after outages of the registry."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from liveavatar_gateway.auth.budgets import Budget
from liveavatar_gateway.core.errors import BudgetExhausted, RegistryUnavailable
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.memory import Memory, MemoryRegistry
from liveavatar_gateway.registry.usage import Spent, day_of, hour_of
from liveavatar_gateway.sessions.billing import Billing, Payer
from liveavatar_gateway.telemetry.metrics import Metrics
from testkit.unreliable_registry import FlappingRegistry

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
PAYER = Payer(session_id="s-1", tenant="acme", label="desk", free=False)


class World:
    """Clock, registry and budget of processes that count."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.now_s = 1000.0
        self.offset_s = 0.0
        self.budget = Budget()
        self.ended: list[tuple[str, BudgetExhausted]] = []
        self.gone: set[str] = set()

    def process(self, wrap=lambda registry: registry) -> Billing:
        return Billing(
            wrap(MemoryRegistry(LeaseConfig(), memory=self.memory)),
            Metrics(),
            budget_of=lambda _: self.budget,
            on_exhausted=lambda session_id, error: self.ended.append((session_id, error)),
            is_running=lambda name: name not in self.gone,
            clock=lambda: self.now_s,
            utc_now=self.utc,
        )

    def utc(self) -> datetime:
        return NOON + timedelta(seconds=self.now_s - 1000.0 + self.offset_s)

    async def spent(self) -> Spent:
        return await MemoryRegistry(LeaseConfig(), memory=self.memory).spent("acme", hour_of(self.utc()))

    async def rows(self):
        registry = MemoryRegistry(LeaseConfig(), memory=self.memory)
        day = day_of(NOON.date())
        found = await registry.usage(tenant=None, first_day=day, last_day=day, after=(-1, "", ""), size=9)
        return [(row.tenant, row.label, row.minutes, row.session_count, row.played_s) for row in found]


@pytest.fixture
def world():
    return World()


@pytest.fixture
def billing(world):
    return world.process()


async def start(
    billing: Billing, name: str = "up-1", payer: Payer = PAYER, *, limit_s=None, follows=False
) -> None:
    await billing.require(payer)
    await billing.reserve(name, payer, follows=follows)
    billing.started(name, payer, max_duration_s=limit_s, follows=follows)
    await billing._work()


@pytest.mark.parametrize(("lasted_s", "minutes"), [(0, 1), (1, 1), (59, 1), (60, 1), (61, 2), (120, 2), (125, 3)])
@pytest.mark.parametrize("watched", [False, True])
async def test_begun_minutes_are_counted_as_liveavatar_bills_them(world, billing, lasted_s, minutes, watched):
    await start(billing)
    for _ in range(lasted_s):
        world.now_s += 1
        if watched:
            await billing._work()
    billing.stopped("up-1")
    world.now_s += 500
    await billing._work()
    assert await world.rows() == [("acme", "desk", minutes, 1, 0.0)]


async def test_a_session_up_to_its_limit_is_not_billed_beyond_it(world, billing):
    await start(billing, limit_s=120)
    world.now_s += 121
    await billing._work()
    billing.stopped("up-1")
    await billing._work()
    assert (await world.spent()).day == 2


async def test_each_avatar_of_a_session_is_billed_and_the_session_counts_once(world, billing):
    await start(billing)
    world.now_s += 50
    await start(billing, "up-2", follows=True)
    world.now_s += 5
    billing.stopped("up-1")
    world.now_s += 60
    billing.stopped("up-2")
    await billing.ended(PAYER, 42.5)
    await billing._work()
    assert await world.rows() == [("acme", "desk", 3, 1, 42.5)]


async def test_the_sandbox_is_a_session_without_minutes(world, billing):
    world.budget = Budget(minutes_per_day=0)
    await start(billing, payer=Payer(session_id="s-1", tenant="acme", label="", free=True))
    world.now_s += 300
    billing.stopped("up-1")
    await billing._work()
    assert await world.rows() == [("acme", "", 0, 1, 0.0)]


async def test_a_start_that_failed_costs_nothing_and_leaves_the_minute_for_the_next(world, billing):
    world.budget = Budget(minutes_per_hour=1)
    await billing.reserve("up-1", PAYER, follows=False)
    await billing.refund("up-1")
    await billing.reserve("up-2", PAYER, follows=False)
    assert (await world.spent()).hour == 1


# --- budgets


@pytest.mark.parametrize(
    ("budget", "period", "until"),
    [
        ({"minutes_per_hour": 2}, "hour", "2026-11-30T13:00:00+00:00"),
        ({"minutes_per_day": 2}, "day", "2026-12-01T00:00:00+00:00"),
        ({"minutes_per_month": 2, "minutes_per_hour": 2}, "month", "2026-12-01T00:00:00+00:00"),
    ],
)
async def test_a_spent_budget_refuses_until_its_period_is_over(world, billing, budget, period, until):
    world.budget = Budget(**budget)
    await start(billing)
    await start(billing, "up-2")
    for attempt in (billing.require(PAYER), billing.reserve("up-3", PAYER, follows=False)):
        with pytest.raises(BudgetExhausted) as refused:
            await attempt
        facts = refused.value.metadata
        assert (facts["period"], facts["used"], facts["limit"], facts["until"]) == (period, "2", "2", until)
        assert refused.value.retry_after_s == (datetime.fromisoformat(until) - world.utc()).total_seconds()
    billing.stopped("up-1")
    billing.stopped("up-2")
    world.offset_s += refused.value.retry_after_s
    await billing._work()
    await billing.require(PAYER)


async def test_running_sessions_continue_beyond_a_budget_that_refuses(world, billing):
    world.budget = Budget(minutes_per_day=1)
    await start(billing)
    world.now_s += 61
    await billing._work()
    await start_standby(billing)
    assert (await world.spent()).day == 3
    assert world.ended == []


async def start_standby(billing: Billing) -> None:
    await billing.reserve("up-2", PAYER, follows=True)


async def test_a_budget_that_ends_sessions_ends_each_before_a_minute_that_it_does_not_pay(world, billing):
    world.budget = Budget(minutes_per_day=3, at_limit="end")
    await start(billing)
    for _ in range(177):
        world.now_s += 1
        await billing._work()
    assert world.ended == []
    assert (await world.spent()).day == 3
    world.now_s += 1
    await billing._work()
    ((session_id, error),) = world.ended
    assert (session_id, error.metadata["period"]) == ("s-1", "day")
    # It speaks beyond the border, which is billed; the request is repeated before each minute.
    world.now_s += 60
    for _ in range(2):
        await billing._work()
    assert (await world.spent()).day == 4
    assert len(world.ended) == 2


async def test_the_next_hour_pays_the_next_minute(world, billing):
    world.offset_s = 3600 - 30
    world.budget = Budget(minutes_per_hour=1, at_limit="end")
    await start(billing)
    world.now_s += 59
    await billing._work()
    assert world.ended == []


async def test_a_budget_is_warned_of_once(world):
    world.budget = Budget(minutes_per_hour=5, minutes_per_month=100)
    first, second = world.process(), world.process()
    with structlog.testing.capture_logs() as lines:
        for number in range(5):
            await (first, second)[number % 2].reserve(f"up-{number}", PAYER, follows=False)
    warnings = [line for line in lines if line["event"] == "budget.warning"]
    assert [(line["tenant"], line["period"], line["used"], line["limit"]) for line in warnings] == [
        ("acme", "hour", 4, 5)
    ]


# --- other processes, and outages


async def test_another_process_continues_to_count_after_a_kill(world, billing):
    await start(billing)
    world.now_s += 70
    await billing._work()
    # Killed here; adopted after three and a half minutes.
    world.now_s += 140
    other = world.process()
    other.adopt("up-1", PAYER, started_at=None, max_duration_s=None)
    await other._work()
    assert (await world.spent()).day == 4
    world.now_s += 31
    await other._work()
    other.stopped("up-1")
    await other._work()
    assert (await world.spent()).day == 5


async def test_an_orphan_that_is_stopped_is_billed_up_to_its_stop(world, billing):
    await start(billing)
    world.now_s += 130
    other = world.process()
    other.stopped("up-1")
    await other._work()
    assert await world.rows() == [("acme", "desk", 3, 1, 0.0)]


async def test_an_orphan_that_had_ended_at_an_unknown_time_is_not_billed_until_now(world, billing):
    await start(billing)
    world.now_s += 4000
    other = world.process()
    other.stopped("up-1", ran=False)
    await other._work()
    assert (await world.spent()).month == 1


async def test_a_process_that_stood_still_counts_nothing_after_the_stop(world, billing):
    await start(billing)
    world.now_s += 70
    other = world.process()
    other.adopt("up-1", PAYER, started_at=None, max_duration_s=None)
    await other._work()
    other.stopped("up-1")
    await other._work()
    world.now_s += 1000
    await billing._work()
    world.gone.add("up-1")
    await billing._work()
    assert (await world.spent()).day == 2


async def test_a_session_of_an_earlier_version_is_billed_from_its_start(world, billing):
    billing.adopt("up-1", PAYER, started_at=world.utc() - timedelta(seconds=90), max_duration_s=None)
    await billing._work()
    assert (await world.spent()).day == 2


async def test_an_outage_delays_the_count_and_loses_nothing(world):
    billing = world.process(lambda registry: FlappingRegistry(registry, every=2))
    while True:
        try:
            await billing.reserve("up-1", PAYER, follows=False)
            break
        except RegistryUnavailable:
            continue
    billing.started("up-1", PAYER, max_duration_s=None, follows=False)
    world.now_s += 125
    billing.stopped("up-1")
    await billing.ended(PAYER, 7.0)
    for _ in range(20):
        await billing._work()
    assert await world.rows() == [("acme", "desk", 3, 1, 7.0)]


async def test_minutes_of_an_outage_belong_to_the_hours_in_which_they_began(world, billing):
    world.offset_s = 3600 - 90
    await start(billing)
    world.now_s += 600
    await billing._work()
    at_one = hour_of(datetime(2026, 11, 30, 13, tzinfo=UTC))
    registry = MemoryRegistry(LeaseConfig(), memory=world.memory)
    assert [(await registry.spent("acme", hour)).hour for hour in (at_one - 1, at_one)] == [2, 8]


async def test_the_wall_clock_bills_nothing(world, billing):
    await start(billing)
    world.offset_s += 86_400
    await billing._work()
    billing.stopped("up-1")
    await billing._work()
    assert sum(row[2] for row in await world.rows()) == 1


async def test_the_task_counts_what_is_left_when_the_process_exits(world, billing):
    task = asyncio.create_task(billing.run())
    await asyncio.sleep(0)
    await start(billing)
    world.now_s += 61
    billing.stopped("up-1")
    task.cancel()
    await asyncio.wait([task])
    assert (await world.spent()).day == 2


WAITING = Payer(session_id="w-1", tenant="payer", label="", free=False, waits=True)


async def taken(world: World, after_s: float) -> Billing:
    """A LiveAvatar session that waited, and was taken."""
    billing = world.process()
    await billing.reserve("up-1", WAITING, follows=False)
    billing.started("up-1", WAITING, max_duration_s=600, follows=False)
    world.now_s += after_s
    await billing._work()
    billing.transfer("up-1", PAYER)
    await billing._work()
    return billing


async def test_the_taker_pays_from_the_next_minute_on_and_the_payer_for_no_session(world):
    billing = await taken(world, 70)
    assert await world.rows() == [("acme", "desk", 0, 1, 0.0), ("payer", "", 2, 0, 0.0)]
    world.now_s += 49
    await billing._work()
    assert (await world.spent()).hour == 0
    world.now_s += 2
    await billing._work()
    assert (await world.spent()).hour == 1
    billing.stopped("up-1")
    await billing._work()
    assert [row[2] for row in await world.rows()] == [1, 2]


async def test_the_minutes_of_both_are_those_of_liveavatar_up_to_its_limit(world):
    billing = await taken(world, 70)
    world.now_s += 10_000
    await billing._work()
    assert [row[2] for row in await world.rows()] == [8, 2]


async def test_a_budget_ends_a_session_that_waits_even_if_it_ends_no_other(world):
    billing = world.process()
    world.budget = Budget(minutes_per_hour=1, at_limit="refuse")
    await billing.reserve("up-1", WAITING, follows=False)
    billing.started("up-1", WAITING, max_duration_s=600, follows=False)
    world.now_s += 59
    await billing._work()
    assert [session_id for session_id, _ in world.ended] == ["w-1"]


async def test_the_takers_budget_is_checked_before_its_first_minute(world):
    billing = await taken(world, 30)
    world.budget = Budget(minutes_per_hour=0, at_limit="end")
    world.now_s += 29
    await billing._work()
    assert [session_id for session_id, _ in world.ended] == ["s-1"]


async def test_a_process_that_adopts_the_taker_moves_what_the_dead_one_had_not_moved_yet(world):
    first, second = world.process(), world.process()
    await first.reserve("up-1", WAITING, follows=False)
    first.started("up-1", WAITING, max_duration_s=600, follows=False)
    await first._work()
    world.now_s += 30
    second.adopt("up-1", PAYER, started_at=world.utc(), max_duration_s=570)
    await second._work()
    assert (await world.spent()).hour == 0
    world.now_s += 40
    await second._work()
    assert (await world.spent()).hour == 1


async def test_a_transfer_waits_for_the_registry_and_happens_once(world):
    billing = await taken(world, 10)
    billing.transfer("up-1", PAYER)
    await billing._work()
    assert [row[2] for row in await world.rows()] == [0, 1]
