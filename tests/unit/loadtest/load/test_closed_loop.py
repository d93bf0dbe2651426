"""Plain Locust: what it takes from the environment, and what it refuses by name."""

import os
import re
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from load.run_config import InvalidRunConfig, RunConfig

# Locust would patch sockets and threads of the whole test process when it is imported.
with patch.dict(os.environ, LOCUST_SKIP_MONKEY_PATCH="1"):
    from load.closed_loop import ClosedLoop
    from load.conductor import Conductor


@pytest.mark.parametrize("field", ["USERS", "SECONDS", "RATE", "FAULTS", "REPORT"])
def test_a_variable_that_only_a_schedule_can_follow_is_refused_by_name(field):
    with pytest.raises(InvalidRunConfig, match=f"LOAD_{field} does nothing without LOAD_SCENARIO"):
        ClosedLoop(RunConfig(), {f"LOAD_{field}": "1"})


@pytest.mark.parametrize(("emulator", "direct"), [("", False), ("http://127.0.0.1:1", True)])
def test_direct_users_are_there_when_the_emulator_is_known(emulator, direct):
    run = ClosedLoop(RunConfig(emulator=emulator), {})
    assert ("Direct" in run.weights) is direct
    assert {"Conversation", "BargeIn", "Churn", "Broadcast", "Firehose"} <= set(run.weights)
    assert all(weight > 0 for weight in run.weights.values())
    assert run.host == "127.0.0.1:50051"


def test_nobody_begins_anything_before_a_test_runs():
    assert ClosedLoop(RunConfig(), {}).next_arrival("Conversation") is None


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"num_users": 5}, "--users does nothing in a scenario, whose schedule says it; set LOAD_USERS"),
        ({"spawn_rate": 2.0}, "--spawn-rate does nothing in a scenario, whose schedule says it; set LOAD_RATE"),
        ({"run_time": 10}, "--run-time does nothing in a scenario, whose schedule says it; set LOAD_SECONDS"),
    ],
)
def test_a_scenario_refuses_locusts_options_that_it_cannot_follow(options, refused):
    conductor = Conductor(RunConfig())
    given = SimpleNamespace(**{"num_users": None, "spawn_rate": None, "run_time": None, **options})
    with pytest.raises(SystemExit, match=re.escape(refused)):
        conductor._on_init(SimpleNamespace(parsed_options=given, runner=None, host=None))


def test_a_scenario_refuses_a_host_other_than_its_target():
    conductor = Conductor(RunConfig())
    given = SimpleNamespace(num_users=None, spawn_rate=None, run_time=None, processes=None)
    with pytest.raises(SystemExit, match=re.escape("--host is gw.example:1, but LOAD_TARGET is 127.0.0.1:50051")):
        conductor._on_init(SimpleNamespace(parsed_options=given, runner=None, host="gw.example:1"))
