"""Several gateways on one registry, in front of accounts of LiveAvatar, for the lines of this area."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from liveavatar.gateway.v1 import session_service_pb2 as p
from testkit import processes
from testkit.accounts import AccountsFile
from testkit.caller import Caller
from testkit.tenants import TenantsFile

MAX_WAIT_S: Final = 600.0
"""Longest wait for a permit that a gateway allows."""
MANY_WAITING: Final = 1000
"""Size of a queue that no line reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything that a line needs."""

    emulator: processes.Emulator
    gateways: tuple[processes.Gateway, ...]
    """Gateways on one registry."""
    keys: Mapping[str, str]
    """API key of each tenant."""

    def peaks(self) -> dict[str, int]:
        """Return the most sessions that each account had at once, those included that are being freed."""
        return {row["name"]: row["peak_slots"] for row in self.emulator.state()["accounts"]}

    def full_count(self) -> int:
        """Return how often LiveAvatar refused a session because an account was full."""
        return int(self.emulator.state()["refusals"].get("403/4032", 0))


@contextlib.contextmanager
def stage(
    accounts: Mapping[str, int],
    tenants: Mapping[str, float],
    *,
    gateways: int = 2,
    knobs: Mapping[str, object] | None = None,
    **settings: object,
) -> Iterator[Stage]:
    """Run gateways that share accounts.

    Args:
        accounts: Names of the accounts, with their limits.
        tenants: Names of the tenants, with their weights.
        gateways: Number of gateways.
        knobs: Knobs of the emulator.
        settings: Settings of the gateways.
    """
    keys = " ".join(f"{name}={name}-key" for name in accounts)
    limits = " ".join(f"{name}:concurrency={limit}" for name, limit in accounts.items())
    knobs = {"api_keys": keys, "account_limits": limits, "credits": 1_000_000, "keep_audio_mb": 0, **(knobs or {})}
    with (
        tempfile.TemporaryDirectory() as name,
        processes.emulator(keep_sessions=100_000, **knobs) as emulator,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        file = TenantsFile(folder / "tenants.toml")
        for tenant, weight in tenants.items():
            file.tenant(tenant, pool={"weight": weight}, quotas={"max_wait_s": MAX_WAIT_S})
        pool = AccountsFile(folder).write({name: {"max_sessions": limit} for name, limit in accounts.items()})
        settings = {
            "pool_file": pool,
            "api_key": "",
            "auth_file": file.path,
            "registry_file": folder / "registry.db",
            "max_waiting": MANY_WAITING,
            "wait_s": MAX_WAIT_S,
            **settings,
        }
        credentials = {tenant: file.key(tenant) for tenant in tenants}
        started = tuple(stack.enter_context(processes.gateway(emulator.url, **settings)) for _ in range(gateways))
        yield Stage(emulator=emulator, gateways=started, keys=credentials)


async def info(caller: Caller) -> p.GetServerInfoResponse:
    """Return what a gateway says of its permits."""
    return await caller.sessions.GetServerInfo(p.GetServerInfoRequest(), timeout=10)


async def all_free(caller: Caller, emulator: processes.Emulator, *, within_s: float) -> bool:
    """Return whether, after a while, no permit is in use, nobody waits, and no session runs."""
    give_up_s = time.monotonic() + within_s
    while True:
        seen = await info(caller)
        active = await asyncio.to_thread(emulator.active)
        if not (seen.used_permit_count or seen.waiting_count or active):
            return True
        if time.monotonic() > give_up_s:
            return False
        await asyncio.sleep(0.1)
