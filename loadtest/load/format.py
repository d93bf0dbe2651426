"""Values formatted for people."""

from datetime import UTC, datetime


def format_ms(value_ms: float) -> str:
    """Format a time with the three digits of a histogram, such as "3.42 ms", "13.7 ms", "137 ms" or "2.50 s"."""
    value, unit = (value_ms / 1000, "s") if value_ms >= 1000 else (value_ms, "ms")
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def format_bytes(size_bytes: float) -> str:
    """Format a size in powers of ten, such as "812 B", "48.0 kB" or "3.20 MB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def format_moment(moment: str) -> str:
    """Format an ISO 8601 time to the minute, such as "2026-11-25 02:51 UTC"; return other text unchanged."""
    try:
        return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return moment
