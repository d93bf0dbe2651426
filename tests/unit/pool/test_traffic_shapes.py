"""Example traces."""

import pytest

from liveavatar_gateway.pool.trace import read_trace, write_trace
from liveavatar_gateway.pool.traffic_shapes import SHAPES, arrivals


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_a_trace_and_the_same_for_the_same_seed(name):
    shape = SHAPES[name]
    found = list(arrivals(shape, 1))
    assert len(read_trace(write_trace(found))) == len(found) > 100
    assert found == list(arrivals(shape, 1))
    assert found != list(arrivals(shape, 2))
    assert all(0 <= arrival.at_s < shape.seconds and arrival.tenant in shape.tenants for arrival in found)


@pytest.mark.parametrize("name", SHAPES)
def test_no_rate_is_above_the_peak(name):
    shape = SHAPES[name]
    rates = [shape.rate_hz(float(at_s)) for at_s in range(int(shape.seconds))]
    assert max(rates) <= shape.peak_hz
    assert len(list(arrivals(shape, 1))) == pytest.approx(sum(rates), rel=0.2)
