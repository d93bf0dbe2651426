"""Durations of a simulation: a constant, a range, or measured values."""

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_S: Final = 3600.0
_NUMBER: Final = r"(\d{1,4}(?:\.\d{1,6})?)"
_TEXT: Final = re.compile(rf"{_NUMBER}(?:\.\.{_NUMBER})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Durations:
    """Values that are equally likely, or a range of them if there are two bounds and no values."""

    low_s: float
    high_s: float
    values_s: tuple[float, ...] = ()

    @classmethod
    def measured(cls, values_s: Sequence[float]) -> "Durations":
        """Return a distribution that repeats measured values.

        Raises:
            ValueError: there is no value, or one is out of bounds.
        """
        if not values_s or not all(math.isfinite(value_s) and 0 <= value_s <= MAX_S for value_s in values_s):
            raise ValueError(f"expected values between 0 and {MAX_S:g} seconds, at least one")
        return cls(min(values_s), max(values_s), tuple(values_s))

    @classmethod
    def parse(cls, text: str) -> "Durations":
        """Return the distribution that a text names: `3` for a constant, `2.5..4.7` for a range.

        Raises:
            ValueError: the text is neither, or out of bounds.
        """
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text[:40]!r} is neither seconds, as in 3, nor a range, as in 2.5..4.7")
        low_s, high_s = float(match[1]), float(match[2] or match[1])
        if not low_s <= high_s <= MAX_S:
            raise ValueError(f"{text[:40]!r} must rise, and end at {MAX_S:g} seconds at most")
        return cls(low_s, high_s)

    def sample_s(self, rng: random.Random) -> float:
        """Return one duration."""
        return rng.choice(self.values_s) if self.values_s else rng.uniform(self.low_s, self.high_s)

    @property
    def mean_s(self) -> float:
        """Mean of the durations."""
        return sum(self.values_s) / len(self.values_s) if self.values_s else (self.low_s + self.high_s) / 2
