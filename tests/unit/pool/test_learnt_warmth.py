"""Learnt warmth on three traffic shapes: the figures of docs/operations.md, and what they show."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from liveavatar_gateway.pool.account_limits import AccountLimit
from liveavatar_gateway.pool.simulation_result import percentile
from liveavatar_gateway.pool.simulator import SimulatedProfile, SimulationConfig, Simulator
from liveavatar_gateway.pool.traffic_shapes import SHAPES, arrivals
from liveavatar_gateway.pool.warm_policy import HOUR_S, WarmMode, WarmProfile

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
PROFILES = {
    "none": None,
    "`min=1,max=3`": WarmProfile(name="desk", minimum=1, maximum=3),
    "`min=2,max=4`": WarmProfile(name="desk", minimum=2, maximum=4),
    "`min=4,max=6`": WarmProfile(name="desk", minimum=4, maximum=6),
    "`mode=learnt,min=0,max=8`": WarmProfile(name="desk", mode=WarmMode.LEARNT, minimum=0, maximum=8),
    "`mode=learnt,min=1,max=8`": WarmProfile(name="desk", mode=WarmMode.LEARNT, minimum=1, maximum=8),
}


@dataclass(frozen=True)
class Outcome:
    """Figures of one row."""

    warm_share: float
    mean_s: float
    p95_s: float
    credits_per_hour: float

    def row(self, shape: str, profile: str) -> str:
        return (
            f"| {shape} | {profile} | {self.warm_share:.0%} | {self.mean_s:.1f} s | {self.p95_s:.1f} s "
            f"| {self.credits_per_hour:.0f} |"
        )


@cache
def outcome(shape: str, profile: str) -> Outcome:
    warm = PROFILES[profile]
    config = SimulationConfig(
        accounts=(AccountLimit(name="main", limit=40),),
        profiles=(SimulatedProfile(profile=warm),) if warm else (),
    )
    result = Simulator(config, list(arrivals(SHAPES[shape], 1))).run()
    opened_s = result.total.openings_s
    return Outcome(
        warm_share=result.total.served_warm / result.total.served,
        mean_s=sum(opened_s) / len(opened_s),
        p95_s=percentile(opened_s, 95),
        credits_per_hour=sum(one.credits for one in result.warm.values()) * HOUR_S / result.seconds,
    )


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_guide_shows_what_the_simulator_finds(shape, profile):
    assert outcome(shape, profile).row(shape, profile) in DOCUMENT.read_text().splitlines()


def test_steady_traffic_is_served_as_with_a_fixed_number_at_the_same_cost():
    learnt, fixed = outcome("steady", "`mode=learnt,min=0,max=8`"), outcome("steady", "`min=2,max=4`")
    assert learnt.warm_share >= 0.95
    assert learnt.credits_per_hour <= fixed.credits_per_hour


def test_a_morning_costs_less_than_a_fixed_number_that_serves_it_as_well():
    learnt, fixed = outcome("morning", "`mode=learnt,min=0,max=8`"), outcome("morning", "`min=2,max=4`")
    assert learnt.warm_share >= 0.95
    assert learnt.credits_per_hour <= 0.9 * fixed.credits_per_hour


def test_rushes_cost_less_with_one_session_as_the_minimum_and_the_first_callers_are_not_foreseen():
    learnt, fixed = outcome("lessons", "`mode=learnt,min=1,max=8`"), outcome("lessons", "`min=2,max=4`")
    assert learnt.warm_share >= fixed.warm_share - 0.02
    assert learnt.credits_per_hour <= 0.8 * fixed.credits_per_hour
    assert outcome("lessons", "`mode=learnt,min=0,max=8`").warm_share < fixed.warm_share
