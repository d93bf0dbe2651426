"""Lines of each proof that measure no times, in short; CI runs the others alone."""

import importlib
import random

import pytest

from acceptance.__main__ import AREAS
from acceptance.line import Setting

LINES = [
    pytest.param(line, id=f"{area}: {line.name}")
    for area in AREAS
    for line in importlib.import_module(f"acceptance.{area}").LINES
    if line.in_short and not line.measures_time
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("line", LINES)
async def test_a_line_holds_in_short(line, record_property):
    setting = Setting(seed=random.SystemRandom().randrange(1_000_000), long=False)
    outcome = await line.run(setting)
    record_property("figure", f"{outcome.figure} (seed {setting.seed})")
    assert outcome.passed, f"{outcome.figure} (seed {setting.seed})"
