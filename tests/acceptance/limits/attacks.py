"""Attacks on a gateway, beside a caller that talks: all of them directly, and some through Envoy."""

import asyncio
import sys
from typing import Final

from security.catalog import ATTACKS
from security.trial import MAX_GROWTH_BYTES, MAX_RATIO, Attack, Extent, Trial, try_all

from acceptance.line import Line, Outcome, Setting

_LONG: Final = Extent()
_SHORT: Final = Extent(attack_s=1.0, quiet_s=1.0, judges_latency=False)
_MB: Final = 1024 * 1024


async def _try(attacks: list[Attack], setting: Setting) -> Outcome:
    attacks = [attack for attack in attacks if setting.long or attack.in_short]
    trials = await asyncio.to_thread(_try_all, attacks, _LONG if setting.long else _SHORT)
    problems = [f"{tried.attack.title}: {problem}" for tried in trials for problem in tried.problems()]
    return Outcome(figure="; ".join(problems) or _sum(trials), passed=not problems)


def _try_all(attacks: list[Attack], extent: Extent) -> list[Trial]:
    trials = []
    for tried in try_all(attacks, extent):
        trials.append(tried)
        sys.stderr.write(f"  [{len(trials)}/{len(attacks)}] {tried.attack.title}: {tried}\n")
    return trials


def _sum(trials: list[Trial]) -> str:
    judged = [tried for tried in trials if not tried.attack.leaves_to_proxy]
    worst = max(judged, key=lambda tried: tried.ratio)
    most = max(trials, key=lambda tried: tried.peak_bytes)
    return (
        f"{len(trials)} attacks: 0 underruns, p99 at most {worst.ratio:.2f} x "
        f"({worst.attack.title}), memory at most {most.peak_bytes // _MB} MB ({most.attack.title}), no growth, "
        "no descriptor left, 0 tracebacks"
    )


async def _directly(setting: Setting) -> Outcome:
    return await _try([attack for attack in ATTACKS if not attack.behind_envoy], setting)


async def _behind_envoy(setting: Setting) -> Outcome:
    return await _try([attack for attack in ATTACKS if attack.behind_envoy], setting)


_GOAL: Final = (
    f"0 underruns; p99 (not judged in short) within {MAX_RATIO:g} x; memory within each bound, at most "
    f"{MAX_GROWTH_BYTES // _MB} MB more from the first to the third time; no descriptor or traceback left"
)

DIRECTLY: Final = Line(name="attacks", goal=_GOAL, run=_directly, measures_time=True)
BEHIND_ENVOY: Final = Line(name="attacks behind Envoy", goal=_GOAL, run=_behind_envoy, measures_time=True)
