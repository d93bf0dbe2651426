"""Warm sessions in this process: a real registry in memory, a real bill, and avatars that a test plays itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from liveavatar_gateway.auth.budgets import Budget
from liveavatar_gateway.pool.account_limits import AccountLimit
from liveavatar_gateway.pool.fair_order import Shares, TenantShare
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.memory import Memory, MemoryRegistry
from liveavatar_gateway.registry.usage import day_of, hour_of
from liveavatar_gateway.sessions.billed_journal import BilledJournal
from liveavatar_gateway.sessions.billing import Billing, Payer
from liveavatar_gateway.sessions.journal import JournalWriter
from liveavatar_gateway.sessions.services import utc_now
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.sessions.warm_session import WarmServices
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.model import AvatarRequest
from liveavatar_gateway.upstream.permits import Permits, PermitsConfig, PermitWish
from testkit.actors import AVATAR_ID, JournaledPool


class Taker:
    """Session of a caller, as far as its journal and its bill go."""

    def __init__(self, world: "WarmWorld", tenant: str) -> None:
        self.id, self.tenant = f"caller-{tenant}", tenant
        self.journal = world.journals.open(self)
        payer = Payer(session_id=self.id, tenant=tenant, label="", free=False)
        self.billed = BilledJournal(self.journal, world.billing, payer)

    def payload(self) -> dict[str, Any]:
        return {}

    def handle_hashes(self) -> tuple[()]:
        return ()

    def moved(self, _: object) -> None: ...

    def end_for(self, _: object) -> None: ...


class WarmWorld:
    """Process that keeps sessions warm."""

    def __init__(self, wrap: Callable[[Any], Any] = lambda registry: registry) -> None:
        self.memory = Memory()
        self.registry = wrap(MemoryRegistry(LeaseConfig(), memory=self.memory))
        self.metrics = Metrics()
        self.pool = JournaledPool()
        self.journals = JournalWriter(self.registry, self.metrics, renew_s=1.0, lease_s=4.0)
        self.budgets: dict[str, Budget] = {}
        self.exhausted: list[str] = []
        self.billing = Billing(
            self.registry,
            self.metrics,
            budget_of=lambda tenant: self.budgets.get(tenant, Budget()),
            on_exhausted=lambda session_id, _: self.exhausted.append(session_id),
            is_running=lambda _: True,
        )
        self.services = WarmServices(pool=self.pool, journals=self.journals, billing=self.billing)

    def taker(self, tenant: str = "beta") -> Taker:
        """Return a session of a caller."""
        return Taker(self, tenant)

    async def minutes(self) -> dict[str, int]:
        """Return the billed minutes of each tenant today."""
        today = day_of(utc_now().date())
        rows = await self.registry.usage(tenant=None, first_day=today, last_day=today, after=(-1, "", ""), size=99)
        return {row.tenant: row.minutes for row in rows if row.minutes}

    async def spent(self, tenant: str) -> int:
        """Return the minutes of a tenant in this hour."""
        return (await self.registry.spent(tenant, hour_of(utc_now()))).hour

    @property
    def rows(self) -> dict[str, tuple[str, ...]]:
        """LiveAvatar sessions of each session in the registry that has not ended."""
        return {
            name: tuple(upstream.upstream_session_id for upstream in stored.upstreams)
            for name, stored in self.memory.sessions.items()
            if not stored.ended
        }


def spec(**avatar: Any) -> SessionSpec:
    """Return the wishes of a caller."""
    more = {name: avatar.pop(name) for name in ("auto_rotate", "connector", "livekit_room") if name in avatar}
    return SessionSpec(avatar=AvatarRequest(avatar_id=AVATAR_ID, **avatar), detach_grace_s=5.0, **more)


async def until(reached: Callable[[], object]) -> None:
    """Wait until something is true, within a limit that no stall reaches."""
    async with asyncio.timeout(10):
        while not reached():
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def queue(world: WarmWorld, *wishes: PermitWish) -> AsyncIterator[None]:
    """Let callers wait for permits of the accounts "default" and "other"; the tenant "full" may have none."""
    limits = {name: AccountLimit(name=name, limit=1) for name in ("default", "other")}
    shares = Shares(by_tenant={"full": TenantShare(ceiling=0)})
    world.pool.permits = permits = Permits(PermitsConfig(), accounts=lambda: limits, shares=lambda: shares)
    for _ in limits:
        await permits.acquire()
    callers = [asyncio.create_task(permits.acquire(wish)) for wish in wishes]
    await until(lambda: permits.waiting == len(wishes))
    try:
        yield
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        await permits.close()


@contextlib.asynccontextmanager
async def warm_world(wrap: Callable[[Any], Any] = lambda registry: registry) -> AsyncIterator[WarmWorld]:
    world = WarmWorld(wrap)
    async with world.registry:
        billing = asyncio.create_task(world.billing.run())
        try:
            yield world
        finally:
            billing.cancel()
            await asyncio.wait([billing])
