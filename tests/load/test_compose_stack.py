"""The stack of docker-compose.yml as processes: its commands, environment and health checks do their work."""

import json
from pathlib import Path

import pytest
import runs

from testkit.compose import compose

pytestmark = [pytest.mark.alone, pytest.mark.timeout(600)]


def test_master_and_workers_of_the_stack_load_its_gateway_and_judge(tmp_path: Path):
    variables = {"ROOMS": "", "LOAD_SCENARIO": "smoke", "LOAD_SECONDS": "8"}
    with compose(tmp_path, **variables) as stack:
        for name in ("emulator", "gateway", "load-master"):
            stack.wait_healthy(stack.start(name))
        master = stack.running("load-master")
        workers = stack.services["load-worker"]["deploy"]["replicas"]
        for number in range(workers):
            stack.start("load-worker", number)
        status = master.wait(300)
    assert status in (runs.PASS, runs.VOID), master.log
    result = json.loads((tmp_path / "results/result.json").read_text())
    assert result["environment"]["processes of the generator"] == str(workers)
    counters = {tuple(row[:2]): row[2] for row in result["measured"]["counters"]}
    assert counters["gateway", "utterances checked"] > 10
    assert counters["direct", "utterances checked"] > 0
    assert counters.get(("gateway", "integrity failures"), 0) == 0
    assert result["left_upstream"] == 0
    assert result["measured"]["errors"] == []
