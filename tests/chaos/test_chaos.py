"""Five seeds: every kind of fault at least once, and every invariant holds."""

import collections

import pytest
from chaos.run import run_seed
from chaos.schedule import KINDS, WINDOW


@pytest.mark.alone
@pytest.mark.timeout(600)
async def test_everything_breaks_and_nothing_is_lost_and_nothing_leaks(tmp_path):
    injected: collections.Counter[str] = collections.Counter()
    for seed in range(WINDOW):
        result = await run_seed(seed, seconds=12.0, callers=10, folder=tmp_path / str(seed))
        assert result.violations == [], f"again: make chaos SEED={seed} ARGS='--seconds 12'"
        assert result.outcomes["played"] > 0
        injected += result.injected
    assert set(injected) == set(KINDS)
