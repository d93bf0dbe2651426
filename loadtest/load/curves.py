"""Shapes of load: the rate of arrivals over a run. Pure."""

from collections.abc import Callable
from typing import Final

from load.arrivals import Curve


def constant(rate: float, seconds: float) -> Curve:
    """Return a constant rate."""
    return Curve(((0.0, rate), (seconds, rate)))


def ramp(rate: float, seconds: float) -> Curve:
    """Return a rate that rises from zero to the full rate."""
    return Curve(((0.0, 0.0), (seconds, rate)))


def step(rate: float, seconds: float) -> Curve:
    """Return a rate in four steps of a quarter each, all of the same length."""
    quarters = [(seconds * k / 4, rate * level / 4) for k in range(4) for level in (k, k + 1)]
    return Curve((*quarters[1:], (seconds, rate)))


def spike(rate: float, seconds: float) -> Curve:
    """Return a third of the rate, with the full rate from two fifths to three fifths of the time."""
    calm = rate / 3
    begin_s, end_s = seconds * 0.4, seconds * 0.6
    return Curve(((0.0, calm), (begin_s, calm), (begin_s, rate), (end_s, rate), (end_s, calm), (seconds, calm)))


def soak(rate: float, seconds: float) -> Curve:
    """Return the full rate, reached after a tenth of the time."""
    return Curve(((0.0, 0.0), (seconds * 0.1, rate), (seconds, rate)))


def morning(rate: float, seconds: float) -> Curve:
    """Return a rate that rises from zero, is full after three fifths of the time, and falls to zero."""
    half = rate / 2
    return Curve(
        ((0.0, 0.0), (seconds * 0.35, half), (seconds * 0.6, rate), (seconds * 0.75, half), (seconds, 0.0))
    )


CURVES: Final[dict[str, Callable[[float, float], Curve]]] = {
    "constant": constant,
    "poisson": constant,
    "ramp": ramp,
    "step": step,
    "spike": spike,
    "soak": soak,
    "morning": morning,
}
"""By the name of the shape. Arrivals are as even as the curve lets them be with `constant`, `ramp` and `step`, and
random with the others."""

RANDOM: Final = frozenset({"poisson", "spike", "soak", "morning"})
"""Shapes whose callers do not know of each other."""
