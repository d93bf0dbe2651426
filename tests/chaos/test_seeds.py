"""Five seeds of `make chaos`: every kind of fault at least once, under ten conversations at a time."""

import collections
from pathlib import Path

import pytest
from chaos.run import run_seed
from chaos.schedule import KINDS

SEEDS = 5


@pytest.mark.alone
@pytest.mark.timeout(600)
async def test_nothing_is_lost_and_nothing_leaks_whatever_breaks(tmp_path: Path, record_property):
    injected: collections.Counter[str] = collections.Counter()
    violations = []
    for seed in range(SEEDS):
        result = await run_seed(seed, seconds=10.0, callers=10, folder=tmp_path / f"seed-{seed}")
        violations += [f"seed {seed}: {problem}" for problem in result.violations]
        injected += result.injected
    record_property("figure", ", ".join(f"{kind} {count}" for kind, count in sorted(injected.items())))
    assert violations == [], "play one again with `make chaos SEED=n ARGS='--seconds 10'`"
    assert injected.keys() == set(KINDS)
