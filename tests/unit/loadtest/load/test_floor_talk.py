"""Talk with a floor, as a process."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from load.floor_talk import FloorTalk
from load.result import FloorCost, RunResult
from testkit.simulated_run import simulated


async def test_the_cost_of_a_bare_server_is_measured_while_it_runs(tmp_path: Path):
    process = FloorTalk(measured=(), cores=(), workdir=tmp_path)
    assert process.cost is None
    await asyncio.to_thread(process.start)
    try:
        began_s = time.monotonic()
        costs: list[FloorCost] = []
        while len(costs) < 3:
            process.check()
            assert time.monotonic() < began_s + 60, "it talks"
            await asyncio.sleep(0.05)
            if (cost := process.cost) is not None and cost.audio_s and cost not in costs:
                costs.append(cost)
    finally:
        await asyncio.to_thread(process.stop)
    assert [cost.audio_s for cost in costs] == sorted(cost.audio_s for cost in costs)
    assert [cost.cpu_s for cost in costs] == sorted(cost.cpu_s for cost in costs)
    assert costs[0].cpu_s > 0
    assert process.exit_code == 0, process.log


def test_nothing_is_known_before_any_audio():
    assert FloorCost(cpu_s=1.0, audio_s=0.0).ms_per_audio_s is None
    assert FloorCost(cpu_s=1.0, audio_s=250.0).ms_per_audio_s == 4.0


def test_the_cost_is_in_the_result_of_the_run(tmp_path: Path):
    result = replace(simulated(), floor=FloorCost(cpu_s=1.0, audio_s=250.0))
    result.save(tmp_path / "result.json")
    assert RunResult.load(tmp_path / "result.json").floor == result.floor
