"""Durations of a simulation."""

import random

import pytest

from liveavatar_gateway.pool.durations import Durations


def test_a_constant():
    constant = Durations.parse("3")
    assert constant.sample_s(random.Random(1)) == constant.mean_s == 3.0


def test_a_range():
    found = Durations.parse(" 2.5..4.7 ")
    rng = random.Random(1)
    samples = [found.sample_s(rng) for _ in range(200)]
    assert 2.5 <= min(samples) < 2.7
    assert 4.5 < max(samples) <= 4.7
    assert found.mean_s == pytest.approx(3.6)


def test_measured_values_are_repeated():
    found = Durations.measured([1.0, 4.0])
    rng = random.Random(1)
    assert {found.sample_s(rng) for _ in range(50)} == {1.0, 4.0}
    assert found.mean_s == 2.5


@pytest.mark.parametrize("text", ["", "soon", "-1", "2..1", "1..2..3", "9999", "nan", "1e3", "1..inf"])
def test_refuses_other_texts(text):
    with pytest.raises(ValueError, match=r"neither|rise"):
        Durations.parse(text)


@pytest.mark.parametrize("values_s", [[], [-1.0], [float("nan")], [4000.0]])
def test_refuses_other_values(values_s):
    with pytest.raises(ValueError, match="expected values"):
        Durations.measured(values_s)
