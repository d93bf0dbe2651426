"""Values as people read them: three digits, and a unit that fits."""

import pytest

from load.format import format_bytes, format_moment, format_ms


@pytest.mark.parametrize(
    ("value_ms", "text"),
    [
        (0.0, "0.00 ms"),
        (3.419, "3.42 ms"),
        (13.71, "13.7 ms"),
        (137.4, "137 ms"),
        (2500.0, "2.50 s"),
        (5e5, "500 s"),
    ],
)
def test_times_have_three_digits(value_ms, text):
    assert format_ms(value_ms) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(812, "812 B"), (48_000, "48 kB"), (3.2e6, "3.2 MB"), (5.02e9, "5.02 GB")]
)
def test_sizes_have_the_unit_that_fits(size_bytes, text):
    assert format_bytes(size_bytes) == text


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2026-11-25T02:51:43.224158+00:00", "2026-11-25 02:51 UTC"),
        ("2026-11-25T03:51:43+01:00", "2026-11-25 02:51 UTC"),
        ("some day", "some day"),
    ],
)
def test_moments_are_told_to_the_minute(moment, text):
    assert format_moment(moment) == text
