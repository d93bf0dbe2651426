"""Callers of two tenants that come and go on two accounts and two gateways, one of which is killed meanwhile."""

import asyncio
import contextlib
import itertools
import random
import statistics
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import grpc

from acceptance.cpu import cpu_s
from acceptance.line import Line, Outcome, Setting
from acceptance.pool.stage import Stage, all_free, info, stage
from testkit.caller import Attachment, Caller
from testkit.tenants import caller_with

_ACCOUNTS: Final = {"one": 25, "two": 25}
_WEIGHTS: Final = {"light": 1.0, "heavy": 3.0}
_CALLERS: Final = 150
"""Callers of each tenant."""
_SECONDS: Final = {True: 300.0, False: 18.0}
_HOLD_S: Final = {True: 5.0, False: 2.0}
"""Mean duration of a session of the tenant with the larger weight."""
_LONGER: Final = {True: 1.5, False: 1.0}
"""Duration of sessions of the other, relative to that. Opening and stopping would blur it in short sessions."""
_RAMP_S: Final = 2.0
"""Time in which the callers arrive."""
_BALANCE_S: Final = 10.0
"""Time after that in which the tenants reach their shares: the first permits went to whoever came first."""
_TOLERANCE: Final = 0.03
_FREED_MS: Final = 500
"""Time for which LiveAvatar counts a session that has ended; the gateways wait for a second."""
_GRACE_S: Final = 3.0
"""Time for which a session outlives its streams."""
_STOP_S: Final = 20.0
_ALL_FREE_S: Final = 30.0
_LEAST_USE: Final = 0.9
"""Least part of the use before the kill that the survivor reaches after it."""
_RECOVERY_S: Final = {True: 10.0, False: 5.0}
"""Time after the kill that is left out when the use before and after it are compared."""
_GONE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN})
"""Statuses of a call whose gateway was killed."""

_Interval = tuple[float, float]


@dataclass(slots=True)
class _Seen:
    """Observations of the callers."""

    waits_s: dict[str, list[float]] = field(default_factory=lambda: {tenant: [] for tenant in _WEIGHTS})
    steps: list[tuple[float, str, int]] = field(default_factory=list)
    """Time, tenant and change of its number of waiting callers."""
    tenants: dict[str, str] = field(default_factory=dict)
    """Tenant of each LiveAvatar session."""
    failures: Counter[str] = field(default_factory=Counter)
    continued: int = 0
    """Sessions of the gateway that was killed which their callers used, or ended, on the other."""
    waited_again: int = 0
    """Callers that waited on the gateway that was killed."""


class _Churn:
    """Callers that open a session, stay, end it, and come again."""

    def __init__(self, at: Stage, setting: Setting, callers: Sequence[Mapping[str, Caller]]) -> None:
        self._at = at
        self._rng = random.Random(setting.seed)
        hold_s = _HOLD_S[setting.long]
        self._hold_s = {"light": hold_s * _LONGER[setting.long], "heavy": hold_s}
        self._callers = callers
        self._killed: int | None = None
        self._is_over = False
        self.seen = _Seen()

    def kill(self, gateway: int) -> None:
        """End a gateway between two of its instructions."""
        self._at.gateways[gateway].process.kill()
        self._killed = gateway

    async def stop(self, tasks: Collection[asyncio.Task[None]]) -> None:
        """Let nobody come again, and end those who are there."""
        # A stream of grpc.aio that ends in the moment of a cancellation raises its status, and the cancellation is
        # lost.
        self._is_over = True
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_STOP_S)

    async def come_and_go(self, tenant: str, number: int) -> None:
        """Use the pool until cancelled, or until LiveAvatar or the gateway fails for no good reason."""
        await asyncio.sleep(self._rng.uniform(0, _RAMP_S))
        while not self._is_over:
            own = number % len(self._callers)
            try:
                attachment, own = await self._open(tenant, own)
                hold_s = self._hold_s[tenant] * self._rng.uniform(0.5, 1.5)
                await self._stay(tenant, attachment, own, hold_s)
            except Exception as error:  # noqa: BLE001 - a failure is a figure, and the others go on
                if not self._is_over:
                    self.seen.failures[_name(error)] += 1
                    await asyncio.sleep(1)

    async def _open(self, tenant: str, own: int) -> tuple[Attachment, int]:
        """Wait for a session; if the gateway dies meanwhile, ask the other."""
        began_s = time.monotonic()
        self.seen.steps.append((began_s, tenant, 1))
        try:
            while True:
                own = self._living(own)
                try:
                    attachment = await self._callers[own][tenant].attach()
                    break
                except grpc.aio.AioRpcError as error:
                    if not self._was_killed(own, error):
                        raise
                    self.seen.waited_again += 1
        finally:
            now_s = time.monotonic()
            self.seen.steps.append((now_s, tenant, -1))
        self.seen.waits_s[tenant].append(now_s - began_s)
        self.seen.tenants[attachment.upstream_id] = tenant
        return attachment, own

    async def _stay(self, tenant: str, attachment: Attachment, own: int, hold_s: float) -> None:
        first = own
        until_s = time.monotonic() + hold_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(until_s - time.monotonic()):
                    status = await attachment.closed()
                    if own != self._killed:
                        raise AssertionError(f"the session ended by itself: {status}")
                    own = self._living(own)
                    attachment = await self._callers[own][tenant].resume(
                        attachment.opened.handle, skip_compacted=True
                    )
                    continue
            break
        while True:
            own = self._living(own)
            try:
                await self._callers[own][tenant].end(attachment.session_id)
                break
            except grpc.aio.AioRpcError as error:
                if not self._was_killed(own, error):
                    raise
        attachment.call.cancel()
        self.seen.continued += own != first

    def _living(self, own: int) -> int:
        return own if own != self._killed else (own + 1) % len(self._callers)

    def _was_killed(self, own: int, error: grpc.aio.AioRpcError) -> bool:
        return own == self._killed and error.code() in _GONE


def _name(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name} {(error.details() or '')[:100]}"
    return f"{type(error).__name__} {error}"[:100]


def _contested(steps: Iterable[tuple[float, str, int]], begin_s: float, end_s: float) -> list[_Interval]:
    """Return the times at which both tenants had waiters."""
    waiting: Counter[str] = Counter()
    found: list[_Interval] = []
    since_s: float | None = None
    for at_s, tenant, change in sorted(steps):
        both_before = all(waiting[name] > 0 for name in _WEIGHTS)
        waiting[tenant] += change
        both_now = all(waiting[name] > 0 for name in _WEIGHTS)
        if both_now and not both_before:
            since_s = at_s
        elif both_before and not both_now and since_s is not None:
            found.append((since_s, at_s))
            since_s = None
    if since_s is not None:
        found.append((since_s, end_s))
    clipped = ((max(begin_s, since_s), min(end_s, until_s)) for since_s, until_s in found)
    return [(since_s, until_s) for since_s, until_s in clipped if until_s > since_s]


def _overlap_s(one: _Interval, others: Iterable[_Interval]) -> float:
    return sum(max(0.0, min(one[1], other[1]) - max(one[0], other[0])) for other in others)


def _sessions(at: Stage, now_s: float) -> list[tuple[str, float, float]]:
    """Return all LiveAvatar sessions with begin and end."""
    rows = at.emulator.sessions()
    return [
        (row["id"], row["started_mono_s"], min(now_s, row["started_mono_s"] + row["duration_s"])) for row in rows
    ]


def _judge(
    at: Stage, seen: _Seen, *, begin_s: float, killed_s: float, end_s: float, recovery_s: float
) -> tuple[list[str], bool]:
    """Return figures of shares and of use, and whether they meet the goal."""
    contested = _contested(seen.steps, begin_s, end_s)
    before, after = (begin_s, killed_s), (killed_s + recovery_s, end_s)
    slot_s: Counter[str] = Counter()
    used_before = used_after = 0.0
    for upstream_id, since_s, until_s in _sessions(at, end_s):
        slot_s[seen.tenants.get(upstream_id, "unknown")] += _overlap_s((since_s, until_s), contested)
        used_before += _overlap_s((since_s, until_s), [before]) / (before[1] - before[0])
        used_after += _overlap_s((since_s, until_s), [after]) / (after[1] - after[0])
    shares = {tenant: part_s / slot_s.total() for tenant, part_s in sorted(slot_s.items())}
    figures = [
        "shares " + ", ".join(f"{tenant} {share:.1%}" for tenant, share in shares.items()),
        *(
            f"{tenant} waited {statistics.median(waits_s):.1f} s, at most {max(waits_s):.1f} s "
            f"({max(waits_s) / statistics.median(waits_s):.1f} x)"
            for tenant, waits_s in seen.waits_s.items()
        ),
        f"{sum(map(len, seen.waits_s.values()))} served",
        f"{seen.continued} sessions went on and {seen.waited_again} callers asked again after the kill",
        f"{used_before:.1f} sessions at once before and {used_after:.1f} after it",
        *(f"{count} x {name}" for name, count in seen.failures.most_common(3)),
    ]
    total_weight = sum(_WEIGHTS.values())
    is_fair = all(
        abs(shares.get(tenant, 0.0) - weight / total_weight) <= _TOLERANCE for tenant, weight in _WEIGHTS.items()
    )
    is_whole = not seen.failures and seen.continued > 0 and seen.waited_again > 0
    return figures, is_fair and is_whole and used_after >= _LEAST_USE * used_before


async def _run(setting: Setting) -> Outcome:
    half_s = _SECONDS[setting.long] / 2
    settings = {"settle_s": 1.0, "detach_grace_s": _GRACE_S}
    with stage(_ACCOUNTS, _WEIGHTS, knobs={"slot_release_ms": _FREED_MS}, **settings) as at:
        async with contextlib.AsyncExitStack() as stack:
            callers = [
                {
                    tenant: await stack.enter_async_context(caller_with(gateway.address, key))
                    for tenant, key in at.keys.items()
                }
                for gateway in at.gateways
            ]
            survivor = callers[1]["heavy"]
            churn = _Churn(at, setting, callers)
            tasks = [
                asyncio.create_task(churn.come_and_go(tenant, number))
                for number, tenant in itertools.product(range(_CALLERS), _WEIGHTS)
            ]
            await asyncio.sleep(_RAMP_S + _BALANCE_S)
            begin_s, begin_cpu_s = time.monotonic(), [cpu_s(gateway.process.pid) for gateway in at.gateways]
            await asyncio.sleep(half_s)
            waiting = (await info(survivor)).waiting_count
            cpu = _cpu(at, begin_cpu_s, time.monotonic() - begin_s)
            killed_s = time.monotonic()
            churn.kill(0)
            await asyncio.sleep(half_s)
            end_s = time.monotonic()
            await churn.stop(tasks)
            recovery_s = _RECOVERY_S[setting.long]
            figures, passed = _judge(
                at, churn.seen, begin_s=begin_s, killed_s=killed_s, end_s=end_s, recovery_s=recovery_s
            )
            # Sessions of callers that were cancelled outlive their streams by the grace.
            is_free = await all_free(survivor, at.emulator, within_s=_ALL_FREE_S)
            left = await info(survivor)
        peaks, full_count = at.peaks(), at.full_count()
    figures = [
        f"at most {' and '.join(map(str, peaks.values()))} sessions, {full_count} refusals 4032",
        *figures,
        f"{left.used_permit_count} permits leaked, {left.waiting_count} waiters left",
        f"CPU {cpu} of a core with {waiting} waiting",
    ]
    keeps_limits = all(peaks[name] <= limit for name, limit in _ACCOUNTS.items()) and not full_count
    return Outcome(figure="; ".join(figures), passed=passed and keeps_limits and is_free)


def _cpu(at: Stage, begin_cpu_s: Sequence[float], seconds: float) -> str:
    used = [cpu_s(gateway.process.pid) - begin for gateway, begin in zip(at.gateways, begin_cpu_s, strict=True)]
    return " and ".join(f"{one_s / seconds:.0%}" for one_s in used)


CHURN: Final = Line(
    name="churn",
    goal="at most 25 sessions on each account, no 4032; shares 25 and 75 % +- 3 % while both wait; 0 permits "
    "leaked after a kill -9, full use again",
    run=_run,
    measures_time=True,
)
