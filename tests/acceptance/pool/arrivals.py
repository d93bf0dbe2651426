"""Arrivals of a morning under the load suite, without warm sessions and with them."""

import tempfile
from pathlib import Path
from typing import Final

from acceptance.line import Line, Outcome, Setting
from acceptance.load import run_load

_SECONDS: Final = 150
"""Length of each of the two runs."""


async def _run(setting: Setting) -> Outcome:
    figures, verdicts = [], []
    for name, arguments in (("cold", ()), ("warm", ("--warm",))):
        with tempfile.TemporaryDirectory() as folder:
            verdict, _ = await run_load(
                "arrivals", *arguments, folder=Path(folder), seconds=_SECONDS, seed=setting.seed
            )
        reason = [] if verdict["verdict"] == "pass" else [verdict["headline"]]
        opened = [one["message"] for one in verdict["objectives"] if one["kind"] == "latency"]
        figures.append(f"{name}: {'; '.join([*reason, *opened])}")
        verdicts.append(verdict["verdict"])
    return Outcome(
        figure=" | ".join(figures),
        passed=set(verdicts) == {"pass"},
        void="fail" not in verdicts and "void" in verdicts,
    )


ARRIVALS: Final = Line(
    name="arrivals",
    goal="`make load SCENARIO=arrivals` passes without warm sessions and with them",
    run=_run,
    in_short=False,
    measures_time=True,
)
