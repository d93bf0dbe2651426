"""Shorter cases with the same finding."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from fuzz.cases import Case
from fuzz.player import Finding
from fuzz.trial import Bench, in_a_loop

_MAX_REPLAYS: Final = 80
"""Replays of one finding: the result is short, not the shortest."""
_MAX_SUSPECTS: Final = 40


def shrink(finding: Finding) -> Case | None:
    """Return a short case that has the finding; None if none of its cases alone has it."""
    return in_a_loop(_shrink(finding))


async def _shrink(finding: Finding) -> Case | None:
    async with Bench() as bench:
        for case in finding.cases[:_MAX_SUSPECTS]:
            if await _finds(bench, case, finding.problem):
                return replace(await _shortest(bench, case, finding.problem), note=finding.problem)
    return None


async def _shortest(bench: Bench, case: Case, problem: str) -> Case:
    """Drop steps while the finding stays: halves at first, single steps at last."""
    replays = 0
    size = max(1, len(case.steps) // 2)
    while replays < _MAX_REPLAYS:
        for steps in _without(case.steps, size):
            replays += 1
            if await _finds(bench, case.with_steps(steps), problem):
                case = case.with_steps(steps)
                break
            if replays >= _MAX_REPLAYS:
                break
        else:
            if size == 1:
                break
            size //= 2
    return case


def _without(steps: tuple[Mapping[str, Any], ...], size: int) -> list[tuple[Mapping[str, Any], ...]]:
    """Return the steps without each part of a size; the first step of a REST case names its way and stays."""
    first = 1 if steps and "through" in steps[0] else 0
    if len(steps) - first <= size:
        return []
    return [steps[:at] + steps[at + size :] for at in range(first, len(steps), size)]


async def _finds(bench: Bench, case: Case, problem: str) -> bool:
    return any(one.problem == problem for one in await bench.play(case))
