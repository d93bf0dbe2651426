"""Fuzzing of a gateway from both sides."""

import asyncio

from fuzz import trial

from acceptance.line import Line, Outcome, Setting


async def _run(setting: Setting) -> Outcome:
    extent = {"inputs": 1_000_000} if setting.long else {"seconds": 60.0}
    result = await asyncio.to_thread(trial.run, seed=setting.seed, **extent)
    problems = result.problems()
    return Outcome(figure="; ".join([str(result), *problems]), passed=not problems)


FUZZING = Line(
    name="fuzzing",
    goal="a million inputs (in short, a minute of them): 0 crashes, 0 sessions left, 0 tracebacks",
    run=_run,
    measures_time=True,
)
