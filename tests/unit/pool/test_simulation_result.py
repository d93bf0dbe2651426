"""Result of a simulation."""

import json
import math

import pytest

from liveavatar_gateway.pool.simulation_result import (
    Refusal,
    SimulationResult,
    TenantResult,
    Timeline,
    WarmResult,
    percentile,
)


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 2), (75, 3), (95, 4), (100, 4)])
def test_percentile_is_a_value_that_occurred(percent, value):
    assert percentile([4, 1, 3, 2], percent) == value


def test_percentile_of_nothing():
    assert math.isnan(percentile([], 50))


def test_timeline_averages_over_stretches_and_keeps_the_most_that_waited():
    timeline = Timeline(100.0, 10.0)
    timeline.advance(105.0, {"callers": 2, "waiting": 1})
    timeline.advance(106.0, {"callers": 4, "waiting": 7})
    timeline.advance(125.0, {"warm": 1, "settling": 2})
    points = timeline.points()
    assert [point.at_s for point in points] == [100.0, 110.0, 120.0]
    assert [point.callers for point in points] == pytest.approx([1.4, 0, 0])
    assert [point.warm for point in points] == pytest.approx([0.4, 1, 1])
    assert [point.waiting for point in points] == [7, 0, 0]


def test_totals_and_fields():
    acme = TenantResult(arrivals=3, waits_s=[0.0, 2.0], openings_s=[3.0, 5.0], slot_s=30.0, credits=2.0)
    acme.refused[Refusal.DEADLINE] += 1
    zoo = TenantResult(arrivals=1, served_warm=1, waits_s=[0.0], openings_s=[0.0], slot_s=20.0, credits=1.0)
    result = SimulationResult(
        tenants={"zoo": zoo, "acme": acme},
        warm={"front-desk": WarmResult(started=2, taken=1, most=1, idle_s=60.0, credits=1.5)},
        timeline=[],
        seconds=100.0,
        slots=2,
    )
    assert (result.total.arrivals, result.total.served, result.total.served_warm) == (4, 3, 1)
    assert result.credits == 4.5
    assert result.slot_use == 0.25
    fields = json.loads(json.dumps(result.as_fields(), allow_nan=False))
    assert list(fields["tenants"]) == ["acme", "zoo"]
    assert fields["tenants"]["acme"]["wait_s"] == {"p50": 0.0, "p95": 2.0, "max": 2.0}
    assert fields["tenants"]["acme"]["refused"] == {"deadline": 1, "queue_full": 0}


def test_a_tenant_without_service_has_no_waits():
    result = SimulationResult(tenants={"acme": TenantResult(arrivals=1)}, warm={}, timeline=[], seconds=0, slots=0)
    assert result.as_fields()["tenants"]["acme"]["wait_s"] == {"p50": None, "p95": None, "max": None}
    assert result.slot_use == 0
