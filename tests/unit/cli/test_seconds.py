"""Options in seconds: numbers in their range alone."""

import click
import pytest

from liveavatar_gateway.cli.seconds import Seconds


@pytest.mark.parametrize("text", ["nan", "-nan", "NaN", "inf", "-1", "61", "soon", ""])
def test_what_is_no_number_in_the_range_is_refused(text):
    with pytest.raises(click.BadParameter):
        Seconds(0, 60).convert(text, None, None)


def test_a_number_in_the_range_is_returned():
    assert [Seconds(0, 60).convert(text, None, None) for text in ("0", "60", "1.5")] == [0.0, 60.0, 1.5]
