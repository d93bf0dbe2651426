"""Two tenants on one gateway under the load suite: one at ten times its quotas, the other as if it were alone."""

import tempfile
from pathlib import Path
from typing import Final

from acceptance.line import Line, Outcome, Setting
from acceptance.load import run_load

_SECONDS: Final = {True: 240, False: 30}
"""Length of the load in the long and in the short profile."""


async def _run(setting: Setting) -> Outcome:
    seconds = _SECONDS[setting.long]
    with tempfile.TemporaryDirectory() as name:
        verdict, result = await run_load("two-tenants", folder=Path(name), seconds=seconds, seed=setting.seed)
    counters = {name: number for _, name, number in result["measured"]["tenants"]["noisy"]["counters"]}
    accepted, refused = counters.get("calls accepted", 0), counters.get("quota refusals", 0)
    figures = [one["message"] for one in verdict["objectives"] if one["kind"] == "sharing"]
    reason = [] if verdict["verdict"] == "pass" else [verdict["headline"]]
    return Outcome(
        figure="; ".join([*reason, *figures, f"A had {accepted} calls, and {refused} were refused"]),
        passed=verdict["verdict"] == "pass",
        void=verdict["verdict"] == "void",
    )


SHARING = Line(
    name="sharing",
    goal="B's p99 beside A at ten times its quota within 1.5 x of alone, under `make load`",
    run=_run,
    measures_time=True,
)
