"""Plot of a simulation."""

import math
import xml.etree.ElementTree as ET

import pytest

from liveavatar_gateway.cli.pool_plot import plot
from liveavatar_gateway.pool.simulation_result import Point, SimulationResult, TenantResult


def result(*points, openings_s=(), slots=4):
    tenant = TenantResult(arrivals=len(openings_s), waits_s=list(openings_s), openings_s=list(openings_s))
    return SimulationResult(
        tenants={"acme": tenant}, warm={}, timeline=points, seconds=10.0 * len(points), slots=slots
    )


def point(number, callers, *, warm=0.0, waiting=0):
    return Point(at_s=10.0 * number, callers=callers, warm=warm, settling=0.0, waiting=waiting)


def parsed(svg):
    return ET.fromstring(svg)


def texts(svg):
    return [element.text for element in parsed(svg).iter() if element.tag.endswith("text")]


def test_is_one_document_that_describes_itself_in_words():
    svg = plot(result(point(0, 1.0), point(1, 2.0, waiting=3), openings_s=[1.0, 2.0]), title="<day> & night")
    assert texts(svg)[0] == "<day> & night"
    assert "2 of 2 callers were served; median wait 1.0 s" in "".join(parsed(svg).itertext())


@pytest.mark.parametrize("slots", [1, 3, 15, 40, 10_000])
def test_marks_are_round_and_cover_the_limit(slots):
    labels = texts(plot(result(point(0, 1.0), slots=slots), title="day"))
    marks = [float(text) for text in labels[2:7]]
    assert marks[0] == 0
    assert marks[-1] >= slots * 0.999


def test_draws_an_empty_simulation():
    svg = plot(result(), title="nothing", before=result())
    assert "nan" not in svg
    assert math.isfinite(float(parsed(svg).get("viewBox").split()[3]))


def test_shows_the_time_of_day():
    labels = texts(plot(result(*(point(number, 1.0) for number in range(360))), title="day", begins_at_s=25200.0))
    assert "7:30" in labels
