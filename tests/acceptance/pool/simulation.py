"""Prediction of the simulator against a real run: the same trace through a gateway and its callers."""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from acceptance.line import Line, Outcome, Setting
from liveavatar_gateway.pool.account_limits import AccountLimit
from liveavatar_gateway.pool.durations import Durations
from liveavatar_gateway.pool.simulation_result import percentile
from liveavatar_gateway.pool.simulator import SimulationConfig, Simulator
from liveavatar_gateway.pool.trace import Arrival
from testkit import processes
from testkit.caller import Caller
from testkit.caller import caller as connect

_SLOTS: Final = 8
_RUSHES: Final = {True: 5, False: 2}
"""Number of rushes in the long and in the short profile."""
_RUSH_S: Final = 4.0
_PERIOD_S: Final = 25.0
"""Time from one rush to the next: what the slots need for one, and some more."""
_PER_RUSH: Final = 40
_QUIET_S: Final = 20.0
"""Time after which a rush has been served."""
_BETWEEN: Final = 4
"""Callers that come between a rush that has been served and the next."""
_DURATIONS_S: Final = (1.5, 4.0)
_MAX_WAIT_S: Final = 60.0
_MAX_WAITING: Final = 10_000
_SURELY_QUEUED_S: Final = 1.0
"""Time to a session, above which a caller waited in the queue."""
_SURELY_FREED_S: Final = 2.0
"""Time after the end of a session at which its permit is free."""
_TOLERANCE: Final = 0.10
_LEAST_MEDIAN_S: Final = 2.0
_RELEASE_MS: Final = 300
_SETTLE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Call:
    """Caller of the trace. Times are monotonic."""

    due_s: float
    opened_s: float
    ended_s: float
    """Time at which it asked for the end of its session."""

    @property
    def wait_s(self) -> float:
        """Time to its session, from when it was due: a caller that comes late does not flatter the run."""
        return self.opened_s - self.due_s


def _trace(setting: Setting) -> list[Arrival]:
    """Return callers that come in rushes, so that the queue grows to dozens and shrinks again."""
    rng = random.Random(setting.seed)
    times_s = [
        number * _PERIOD_S + rng.uniform(*stretch)
        for number in range(_RUSHES[setting.long])
        for stretch, count in (((0.0, _RUSH_S), _PER_RUSH), ((_QUIET_S, _PERIOD_S), _BETWEEN))
        for _ in range(count)
    ]
    return [Arrival(at_s=at_s, tenant="all", duration_s=rng.uniform(*_DURATIONS_S)) for at_s in sorted(times_s)]


async def _follow(caller: Caller, trace: Sequence[Arrival]) -> list[_Call]:
    """Let each caller of the trace come at its time, stay, and leave; returns them in the order of the trace."""
    begins_s = time.monotonic() + 1.0

    async def come(arrival: Arrival) -> _Call:
        due_s = begins_s + arrival.at_s
        await asyncio.sleep(due_s - time.monotonic())
        session = (await caller.create(deadline_s=_MAX_WAIT_S)).session
        opened_s = time.monotonic()
        await asyncio.sleep(arrival.duration_s)
        ended_s = time.monotonic()
        await caller.end(session.id)
        return _Call(due_s, opened_s, ended_s)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(come(arrival)) for arrival in trace]
    return [task.result() for task in tasks]


def _openings_s(calls: Sequence[_Call]) -> list[float]:
    """Return the times to open of the callers that found a free slot for sure."""

    def present(call: _Call) -> int:
        return sum(other.due_s < call.due_s and other.ended_s > call.due_s - _SURELY_FREED_S for other in calls)

    return [call.wait_s for call in calls if present(call) < _SLOTS]


def _releases_s(calls: Sequence[_Call], opening_s: float) -> list[float]:
    """Return the times from the end of a session to the permit of the caller that waited for it.

    A caller that waited gets the permit that comes free next, so that the n-th session to open, counted from the
    number of slots, follows the n-th session to end.
    """
    ends_s = sorted(call.ended_s for call in calls)
    queued = sorted(calls, key=lambda call: call.opened_s)[_SLOTS:]
    return [
        max(0.0, call.opened_s - opening_s - ended_s)
        for call, ended_s in zip(queued, ends_s, strict=False)
        if call.wait_s > _SURELY_QUEUED_S
    ]


def _predict_s(trace: Sequence[Arrival], openings_s: Sequence[float], releases_s: Sequence[float]) -> list[float]:
    """Return the simulated times to a session."""
    config = SimulationConfig(
        accounts=(AccountLimit(name="main", limit=_SLOTS),),
        opening=Durations.measured(openings_s),
        release=Durations.measured(releases_s),
        wait_s=_MAX_WAIT_S,
        max_waiting=_MAX_WAITING,
    )
    return Simulator(config, trace).run().total.openings_s


async def _run(setting: Setting) -> Outcome:
    trace = _trace(setting)
    with (
        processes.emulator(concurrency=_SLOTS, slot_release_ms=_RELEASE_MS) as emulator,
        processes.gateway(
            emulator.url, max_sessions=_SLOTS, settle_s=_SETTLE_S, max_waiting=_MAX_WAITING
        ) as gateway,
    ):
        async with connect(gateway.address) as caller:
            # The first session of a process takes longer than all others.
            await caller.end((await caller.create()).session.id)
            await asyncio.sleep(_SURELY_FREED_S)
            calls = await _follow(caller, trace)
        refusals = emulator.state()["refusals"].get("403/4032", 0)
    waits_s = [call.wait_s for call in calls]
    openings_s = _openings_s(calls)
    opening_s = statistics.mean(openings_s)
    releases_s = _releases_s(calls, opening_s)
    median_s = percentile(waits_s, 50)
    if median_s < _LEAST_MEDIAN_S or not releases_s:
        return Outcome(figure=f"the median wait was {median_s:.1f} s only", passed=False, void=True)
    predicted_s = _predict_s(trace, openings_s, releases_s)
    figures, passed = [], len(predicted_s) == len(waits_s) and refusals == 0
    for percent in (50, 95):
        real_s, simulated_s = percentile(waits_s, percent), percentile(predicted_s, percent)
        passed = passed and abs(simulated_s / real_s - 1) <= _TOLERANCE
        figures.append(f"p{percent} {real_s:.2f} s, predicted {simulated_s:.2f} s")
    return Outcome(
        figure=f"{'; '.join(figures)}; {len(trace)} callers, opening {opening_s:.2f} s, "
        f"release {statistics.mean(releases_s):.2f} s, {refusals} refusals 4032",
        passed=passed,
    )


SIMULATION: Final = Line(
    name="simulation",
    goal="simulated median and p95 wait within 10 % of a real run, median 2 s or more",
    run=_run,
    in_short=False,
    measures_time=True,
)
