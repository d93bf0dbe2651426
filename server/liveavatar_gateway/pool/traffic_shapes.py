"""Example traces of typical days, for trying out profiles and sizes before there is a trace of one's own."""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from liveavatar_gateway.pool.trace import Arrival

HOUR_S: Final = 3600.0
_MEDIAN_S: Final = 150.0
_SPREAD: Final = 0.6
_LEAST_S: Final = 20.0
_MOST_S: Final = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficShape:
    """Rate of callers over a stretch of a day."""

    meaning: str
    begins_at_s: float
    """Time of day, seconds since midnight."""
    seconds: float
    peak_hz: float
    """Highest rate."""
    rate_hz: Callable[[float], float]
    """Rate at a time since the beginning; at most `peak_hz`."""
    tenants: Mapping[str, float]
    """Share of each tenant."""


def _morning_hz(at_s: float) -> float:
    """Return a rate that rises from 7 o'clock to half past nine, and falls until noon."""
    return (1 / 12) * math.exp(-(((at_s - 2.5 * HOUR_S) / (1.1 * HOUR_S)) ** 2))


def _lessons_hz(at_s: float) -> float:
    """Return a rate with one rush of 100 seconds each half hour, and hardly anybody between them."""
    return 1 / 5 if at_s % (HOUR_S / 2) < 100 else 1 / 600


SHAPES: Final[Mapping[str, TrafficShape]] = {
    "steady": TrafficShape(
        meaning="four hours, a caller every 30 seconds on average: a help desk",
        begins_at_s=9 * HOUR_S,
        seconds=4 * HOUR_S,
        peak_hz=1 / 30,
        rate_hz=lambda _: 1 / 30,
        tenants={"acme": 3, "zoo": 1},
    ),
    "morning": TrafficShape(
        meaning="seven to noon, from nobody to a caller every 12 seconds and back: a front desk",
        begins_at_s=7 * HOUR_S,
        seconds=5 * HOUR_S,
        peak_hz=1 / 12,
        rate_hz=_morning_hz,
        tenants={"acme": 3, "zoo": 1},
    ),
    "lessons": TrafficShape(
        meaning="four hours, 20 callers within 100 seconds each half hour and few between: a school",
        begins_at_s=8 * HOUR_S,
        seconds=4 * HOUR_S,
        peak_hz=1 / 5,
        rate_hz=_lessons_hz,
        tenants={"acme": 3, "zoo": 1},
    ),
}
"""By name."""


def arrivals(shape: TrafficShape, seed: int) -> Iterator[Arrival]:
    """Yield callers that do not know of each other, the same for the same seed."""
    rng = random.Random(f"{shape.meaning}/{seed}")  # noqa: S311 - repeatable, not secret
    names, shares = list(shape.tenants), list(shape.tenants.values())
    at_s = 0.0
    while (at_s := at_s + rng.expovariate(shape.peak_hz)) < shape.seconds:
        if rng.random() * shape.peak_hz <= shape.rate_hz(at_s):
            duration_s = min(max(rng.lognormvariate(math.log(_MEDIAN_S), _SPREAD), _LEAST_S), _MOST_S)
            yield Arrival(at_s=at_s, tenant=rng.choices(names, shares)[0], duration_s=duration_s)
