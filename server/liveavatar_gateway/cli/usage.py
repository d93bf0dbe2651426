"""`liveavatar-gateway usage`: billed minutes, sessions and played time of tenants."""

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from liveavatar_gateway.cli.connection import Target, admin_options
from liveavatar_gateway.cli.output import print_json, print_line
from liveavatar_gateway.cli.show import print_table
from liveavatar_gateway.escaping import csv_cell

if TYPE_CHECKING:
    # For type checking only; imported when the command runs.
    from liveavatar.gateway.v1 import admin_service_pb2 as p
    from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceStub

_TIMEOUT_S: Final = 10.0
_PAGE: Final = 500
COLUMNS: Final = ("day", "tenant", "label", "session_count", "billed_minutes", "played_s")
"""Names of the columns of `--csv` and of the keys of `--json`; new ones follow the present ones."""

_DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@admin_options
@click.option("--tenant", help="Only this tenant.  [default: all]")
@click.option("--from", "first", type=_DAY, help="First day, in UTC.  [default: the oldest that is kept]")
@click.option("--to", "last", type=_DAY, help="Last day, in UTC, included.  [default: today]")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header line.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def usage(
    target: Target,
    tenant: str | None,
    first: datetime | None,
    last: datetime | None,
    *,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show the usage of tenants by day and label, from the registry of a running gateway.

    A minute is billed from its begin, for each avatar of a session. The label is the value of the session label
    that GATEWAY_USAGE_LABEL names. Usage is kept for 400 days.
    """
    from liveavatar.gateway.v1 import admin_service_pb2 as p  # noqa: PLC0415 - keeps `--help` fast
    from liveavatar_gateway.cli.admin import admin_stub  # noqa: PLC0415

    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    request = p.GetUsageRequest(
        tenant=tenant, first_day=_day(first), last_day=_day(last or datetime.now(UTC)), page_size=_PAGE
    )
    with admin_stub(target) as stub:
        rows = [_fields(row) for row in _all_rows(stub, request)]
    if as_csv:
        print_csv(rows)
    elif as_json:
        print_json(rows)
    elif rows:
        headings = ("day", "tenant", "label", "sessions", "billed min", "played s")
        print_table(headings, [[str(row[name]) or "-" for name in COLUMNS] for row in rows])
        print_line(f"{sum(row['billed_minutes'] for row in rows)} billed minutes")
    else:
        print_line("no usage")


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as CSV. Callers choose labels, so no text is left that a spreadsheet would run as a formula."""
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {name: csv_cell(value) if isinstance(value, str) else value for name, value in row.items()}
        )


def _day(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%d")


def _all_rows(stub: "AdminServiceStub", request: "p.GetUsageRequest") -> Iterator["p.UsageRow"]:
    while True:
        page = stub.GetUsage(request, timeout=_TIMEOUT_S)
        yield from page.rows
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _fields(row: "p.UsageRow") -> dict[str, Any]:
    return {
        "day": row.day,
        "tenant": row.tenant,
        "label": row.label,
        "session_count": row.session_count,
        "billed_minutes": row.billed_minutes,
        "played_s": round(row.played.ToTimedelta().total_seconds(), 3),
    }
