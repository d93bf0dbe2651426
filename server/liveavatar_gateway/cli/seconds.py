"""Type of options that are a number of seconds."""

import math
from typing import Any

import click


class Seconds(click.FloatRange):
    """Number in a range; "nan", which every range of click includes, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return number
