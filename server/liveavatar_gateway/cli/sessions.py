"""`liveavatar-gateway sessions`: see and end the sessions of a running gateway."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from liveavatar_gateway.cli.connection import connection_options, credentials, refusals
from liveavatar_gateway.cli.output import stoppable

if TYPE_CHECKING:
    # Only said here; imported when a command runs.
    from liveavatar.gateway import Client, SessionRecord

STATES: Final = ("creating", "connecting", "ready", "ending", "ended")
"""What a session's state may be; the values of the client's `SessionState`."""

_WIDTH: Final = 200
"""Columns where there is no terminal, so that no id is cut."""
_END_TIMEOUT_S: Final = 30.0
_TIMEOUT_S: Final = 10.0

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def sessions() -> None:
    """See and end the sessions of a running gateway.

    Ended sessions stay readable for a while, ten minutes unless the gateway is set otherwise.
    """


@sessions.command("list")
@connection_options
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only these; may be repeated.")
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only with all of these; may be repeated."
)
@click.option("--limit", type=click.IntRange(1), help="Only the newest so many.")
@_json_option
def list_sessions(
    address: str,
    ca: Path | None,
    states: Sequence[str],
    labels: Sequence[str],
    limit: int | None,
    *,
    tls: bool,
    as_json: bool,
) -> None:
    """List sessions, newest first."""
    wanted = dict(_label(text) for text in labels)
    with _client(address, tls=tls, ca=ca) as client:
        found = list(itertools.islice(client.list_sessions(states=states, labels=wanted), limit))
    if as_json:
        _print_json([record_json(record) for record in found])
    elif found:
        _print_table(found)
    else:
        click.echo("no sessions")


@sessions.command()
@click.argument("session_id", metavar="ID")
@connection_options
@_json_option
def show(session_id: str, address: str, ca: Path | None, *, tls: bool, as_json: bool) -> None:
    """Show all there is to know of one session."""
    with _client(address, tls=tls, ca=ca) as client:
        record = client.get_session(session_id)
    _print_record(record, as_json=as_json)


@sessions.command()
@click.argument("session_id", metavar="ID")
@connection_options
@_json_option
def end(session_id: str, address: str, ca: Path | None, *, tls: bool, as_json: bool) -> None:
    """End a session, wait until LiveAvatar has stopped it, and show its final record."""
    with _client(address, tls=tls, ca=ca, timeout_s=_END_TIMEOUT_S) as client:
        record = client.end_session(session_id)
    _print_record(record, as_json=as_json)


def record_json(record: "SessionRecord") -> dict[str, Any]:
    """A record for programs: ISO 8601 times, seconds in fields `..._s`, None for what is not there."""
    return _json_fields(asdict(record))


@contextmanager
def _client(address: str, *, tls: bool, ca: Path | None, timeout_s: float = _TIMEOUT_S) -> Iterator["Client"]:
    from liveavatar.gateway import Client  # noqa: PLC0415 - `--help` should not wait for it

    with (
        stoppable(),
        refusals(address),
        Client(address, credentials=credentials(tls=tls, ca=ca), timeout=timeout_s) as client,
    ):
        yield client


def _label(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise click.BadParameter(f"{text!r} is no KEY=VALUE", param_hint="--label")
    return key, value


def _print_table(found: "Sequence[SessionRecord]") -> None:
    from rich.console import Console  # noqa: PLC0415 - not for `--help`
    from rich.table import Table  # noqa: PLC0415

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("id", "state", "pose", "attached", "age", "expires in", "reason"):
        table.add_column(heading, no_wrap=heading == "id")
    now = datetime.now(UTC)
    for record in found:
        over = record.ended_at is not None
        table.add_row(
            record.id,
            record.state.value,
            _known(record.pose.value),
            "yes" if record.attached and not over else "no",
            _span(now - record.created_at) if record.created_at else "-",
            _span(record.expires_at - now) if record.expires_at and not over else "-",
            _known(record.end_reason.value),
        )
    console.print(table)


def _print_record(record: "SessionRecord", *, as_json: bool) -> None:
    fields = record_json(record)
    if as_json:
        _print_json(fields)
        return
    usage = fields.pop("usage")
    fields["labels"] = " ".join(f"{key}={value}" for key, value in sorted(fields["labels"].items()))
    rows = fields | {f"usage.{name}": value for name, value in usage.items()}
    width = max(len(name) for name in rows)
    for name, value in rows.items():
        click.echo(f"{name:<{width}}  {_shown(value)}")


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _json_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in fields.items():
        match value:
            case datetime():
                plain[name] = value.isoformat(timespec="milliseconds")
            case timedelta():
                plain[f"{name}_s"] = round(value.total_seconds(), 3)
            case dict():
                plain[name] = _json_fields(value)
            case _:
                plain[name] = value
    return plain


def _shown(value: Any) -> str:
    match value:
        case True | False:
            return "yes" if value else "no"
        case None | "":
            return "-"
        case _:
            return _known(str(value))


def _known(value: str) -> str:
    return "-" if value == "unspecified" else value


def _span(duration: timedelta) -> str:
    """A duration in at most two units."""
    seconds = max(round(duration.total_seconds()), 0)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"
