"""The schedule of arrivals: as many as the curve says, the same for a seed, and cut up without loss."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.arrivals import Arrival, Curve, even, poisson, schedule, share_of
from load.curves import CURVES

# The machine may be busy.
in_no_hurry = settings(deadline=None)

_rates = st.floats(0.05, 20.0)
_lengths = st.floats(5.0, 120.0)
_shapes = st.sampled_from(sorted(CURVES))


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    steps = draw(st.lists(st.tuples(st.floats(0.0, 30.0), st.floats(0.0, 10.0)), min_size=1, max_size=6))
    moments = itertools.accumulate(length for length, _ in steps)
    return Curve(((0.0, draw(st.floats(0.0, 10.0))), *zip(moments, (rate for _, rate in steps), strict=True)))


@in_no_hurry
@given(curves())
def test_even_arrivals_are_as_many_as_the_curve_holds(curve: Curve):
    moments = list(even(curve))
    assert abs(len(moments) - curve.total()) <= 0.5 + 1e-6
    assert moments == sorted(moments)
    assert all(0.0 <= moment <= curve.seconds + 1e-9 for moment in moments)


@in_no_hurry
@given(curves())
def test_at_any_moment_even_arrivals_are_within_one_of_what_should_have_come(curve: Curve):
    for count, moment in enumerate(even(curve)):
        assert _came_by(curve, moment) == pytest.approx(count + 0.5, abs=1e-5)


@in_no_hurry
@given(curves(), st.integers(0, 2**32))
def test_random_arrivals_are_the_same_for_a_seed_and_never_before_the_curve_lets_them(curve: Curve, seed: int):
    moments = list(poisson(curve, random.Random(seed)))
    assert moments == list(poisson(curve, random.Random(seed)))
    assert moments == sorted(moments)
    assert all(0.0 <= moment <= curve.seconds + 1e-9 for moment in moments)


def test_random_arrivals_are_poisson():
    """Mean and variance of the number in a second are the rate."""
    seconds, rate = 4000, 3.0
    counts = [0] * seconds
    for moment in poisson(Curve(((0.0, rate), (float(seconds), rate))), random.Random(7)):
        counts[min(int(moment), seconds - 1)] += 1
    mean = sum(counts) / seconds
    variance = sum((count - mean) ** 2 for count in counts) / seconds
    assert mean == pytest.approx(rate, rel=0.05)
    assert variance == pytest.approx(rate, rel=0.1)


@in_no_hurry
@given(_shapes, _rates, _lengths)
def test_every_shape_fills_its_time_and_peaks_at_its_rate(shape: str, rate: float, seconds: float):
    curve = CURVES[shape](rate, seconds)
    assert curve.seconds == pytest.approx(seconds)
    assert curve.peak == pytest.approx(rate)


@pytest.mark.parametrize(("shape", "share"), [("constant", 1.0), ("ramp", 0.5), ("step", 0.625), ("soak", 0.95)])
def test_shapes_hold_their_share_of_the_full_rate(shape: str, share: float):
    assert CURVES[shape](2.0, 100.0).total() == pytest.approx(200.0 * share)


@in_no_hurry
@given(
    st.dictionaries(st.sampled_from(["A", "B", "C", "D"]), st.floats(0.1, 10.0), min_size=1),
    st.integers(0, 300),
)
def test_every_stretch_has_the_mix(mix: dict[str, float], count: int):
    arrivals = schedule((float(n) for n in range(count)), mix)
    total = sum(mix.values())
    for upto in range(count + 1):
        for user, share in mix.items():
            came = sum(arrival.user == user for arrival in arrivals[:upto])
            assert abs(came - upto * share / total) < len(mix)


@in_no_hurry
@given(
    st.lists(st.sampled_from(["Conversation", "Churn", "Direct"]), max_size=200),
    st.integers(1, 9),
)
def test_workers_share_arrivals_without_loss_and_evenly(users: list[str], workers: int):
    arrivals = [Arrival(number, user, float(number)) for number, user in enumerate(users)]
    shares = [share_of(arrivals, rank=rank, workers=workers) for rank in range(workers)]
    together = sorted(itertools.chain(*shares), key=lambda arrival: arrival.number)
    assert together == arrivals
    for user in set(users):
        sizes = [sum(arrival.user == user for arrival in share) for share in shares]
        assert max(sizes) - min(sizes) <= 1


def test_what_comes_does_not_depend_on_how_many_workers_there_are():
    from load.scenarios import SCENARIOS

    arrivals = SCENARIOS["ci"].arrivals(seed=3)
    assert arrivals == SCENARIOS["ci"].arrivals(seed=3)
    assert arrivals != SCENARIOS["ci"].arrivals(seed=4)


def _came_by(curve: Curve, moment: float) -> float:
    total = 0.0
    for (from_s, low), (to_s, high) in itertools.pairwise(curve.points):
        if to_s <= from_s or moment <= from_s:
            continue
        upto = min(moment, to_s)
        at = low + (high - low) * (upto - from_s) / (to_s - from_s)
        total += (upto - from_s) * (low + at) / 2
    return total
