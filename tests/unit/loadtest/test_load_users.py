"""Who runs where: every worker has users of every class, the cap follows the curve, an order is understood."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.arrivals import Curve
from load.behaviours import USER_KINDS, expected_s
from load.run_config import InvalidRunConfig, RunConfig
from load.scenarios import SCENARIOS, ordered
from load.slots import cap_at, even

# The machine may be busy.
in_no_hurry = settings(deadline=None)

_weights = st.dictionaries(st.sampled_from(["A", "B", "C", "D", "E"]), st.floats(0.1, 50.0), min_size=1)


@in_no_hurry
@given(_weights, st.integers(1, 7), st.integers(1, 500))
def test_every_worker_has_every_class_and_the_sum_is_right(weights: dict[str, float], workers: int, users: int):
    ids = [f"w{number}" for number in range(workers)]
    dealt = even(ids, weights, users)
    assert all(count >= 1 for counts in dealt.values() for count in counts.values())
    assert all(set(counts) == set(weights) for counts in dealt.values())
    total = sum(sum(counts.values()) for counts in dealt.values())
    assert total == max(users, workers * len(weights))
    for name in weights:
        sizes = [counts[name] for counts in dealt.values()]
        assert max(sizes) - min(sizes) <= 1


@in_no_hurry
@given(_weights, st.integers(1, 4), st.integers(1, 300))
def test_more_users_take_nobody_away(weights: dict[str, float], workers: int, users: int):
    ids = [f"w{number}" for number in range(workers)]
    before, after = even(ids, weights, users), even(ids, weights, users + 1)
    assert all(after[worker][name] >= count for worker in ids for name, count in before[worker].items())


def test_users_are_about_in_the_proportion_of_the_weights():
    (dealt,) = even(["w"], {"A": 50.0, "B": 30.0, "C": 20.0}, 103).values()
    assert dealt == {"A": 51, "B": 31, "C": 21}


def test_every_scenario_has_users_that_exist_and_a_cap_above_what_is_under_way():
    for name, scenario in SCENARIOS.items():
        assert set(scenario.mix) <= set(USER_KINDS), name
        busy_s = expected_s(scenario.style)
        mean_s = sum(scenario.mix[user] * busy_s[user] for user in scenario.mix) / sum(scenario.mix.values())
        assert scenario.users >= 1.25 * scenario.rate * mean_s, f"{name} would defer arrivals of its own accord"


def test_an_order_turns_its_scenario():
    order = RunConfig(emulator="http://e", users=30, seconds=9.0, rate=2.5, chunk_ms=100)
    scenario = ordered(order, expected_s)
    assert (scenario.users, scenario.seconds, scenario.rate) == (30, 9.0, 2.5)
    assert scenario.style.chunk_ms == (100,)
    assert scenario.style.burst_share == 0.0


def test_users_without_a_rate_are_kept_busy():
    few = ordered(RunConfig(emulator="http://e", users=10), expected_s)
    many = ordered(RunConfig(emulator="http://e", users=40), expected_s)
    assert many.rate == pytest.approx(4 * few.rate)


def test_without_an_emulator_nobody_speaks_directly():
    assert "Direct" not in ordered(RunConfig(emulator=""), expected_s).mix


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (RunConfig(scenario="nonsense"), "LOAD_SCENARIO is 'nonsense'; it must be one of "),
        (RunConfig(rate=-1.0), "LOAD_RATE is -1.0; it must not be negative"),
    ],
)
def test_an_order_that_makes_no_sense_names_its_variable(order: RunConfig, says: str):
    with pytest.raises(InvalidRunConfig, match=says):
        ordered(order, expected_s)


def test_the_cap_follows_the_curve_ahead_of_time_and_never_falls():
    curve = Curve(((0.0, 0.0), (100.0, 4.0), (100.0, 1.0), (200.0, 1.0)))
    caps = [cap_at(curve, at_s, 40) for at_s in range(0, 200, 5)]
    assert caps == sorted(caps)
    assert caps[0] == 8
    assert caps[-1] == 40
