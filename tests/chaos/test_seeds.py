"""One seed of `make chaos`; it found that what LiveAvatar never read was told as played."""

from pathlib import Path

import pytest
from chaos.run import run_seed


@pytest.mark.alone
@pytest.mark.timeout(180)
async def test_nothing_is_lost_and_nothing_leaks_whatever_breaks(tmp_path: Path, record_property):
    result = await run_seed(18, seconds=10.0, callers=10, folder=tmp_path)
    faults = ", ".join(f"{kind} {count}" for kind, count in sorted(result.injected.items()))
    record_property("figure", f"{faults}: {result.outcomes['played']} utterances played")
    assert result.violations == [], "play it again with `make chaos SEED=18 ARGS='--seconds 10'`"
    assert result.injected
