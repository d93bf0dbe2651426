"""Output of values: JSON for programs, lines and tables for people."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from liveavatar_gateway.cli.output import print_line
from liveavatar_gateway.escaping import escaped

_WIDTH: Final = 200
"""Number of columns without a terminal, so that no id is cut."""


def json_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields as JSON values: ISO 8601 times, seconds in fields `..._s`, None for absent values."""
    plain: dict[str, Any] = {}
    for name, value in fields.items():
        match value:
            case datetime():
                plain[name] = value.isoformat(timespec="milliseconds")
            case timedelta():
                plain[f"{name}_s"] = round(value.total_seconds(), 3)
            case dict():
                plain[name] = json_fields(value)
            case _:
                plain[name] = value
    return plain


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print one line for each field."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        print_line(f"{name:<{width}}  {_shown(value)}")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; its first column is never cut."""
    from rich.console import Console  # noqa: PLC0415 - keeps `--help` fast
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=heading == headings[0])
    for row in rows:
        # As `Text`, since rich reads styles and links from square brackets in a string.
        table.add_row(*(Text(escaped(cell)) for cell in row))
    console.print(table)


def known(value: str) -> str:
    """Return an enum value; a dash if unspecified."""
    return "-" if value == "unspecified" else value


def span(duration: timedelta) -> str:
    """Format a duration in at most two units."""
    seconds = max(round(duration.total_seconds()), 0)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"


def _shown(value: Any) -> str:
    match value:
        case True | False:
            return "yes" if value else "no"
        case None | "":
            return "-"
        case _:
            return known(str(value))
