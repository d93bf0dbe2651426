"""`liveavatar-gateway sessions`: list, show, watch and end the sessions of a running gateway."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from liveavatar_gateway.cli.connection import Target, connection_options, explained_errors
from liveavatar_gateway.cli.output import print_json, print_line, stoppable
from liveavatar_gateway.cli.show import json_fields, known, print_fields, print_table, span
from liveavatar_gateway.cli.watch import label, watch

if TYPE_CHECKING:
    # For type checking only; imported when a command runs.
    from liveavatar.gateway import Client, SessionRecord
    from liveavatar.gateway.v1 import session_pb2

STATES: Final = ("creating", "connecting", "ready", "reconnecting", "ending", "ended")
"""Session states: the values of the client's `SessionState`."""

_END_TIMEOUT_S: Final = 30.0
_TIMEOUT_S: Final = 10.0

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def sessions() -> None:
    """List, show, watch and end the sessions of a running gateway.

    Ended sessions stay readable for GATEWAY_RETENTION_S, by default ten minutes.
    """


sessions.add_command(watch)


@sessions.command("list")
@connection_options
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES),
    help="Only sessions in this state; may be repeated.",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only sessions with this label; repeat to require several.",
)
@click.option("--limit", type=click.IntRange(1), help="Print at most this many, newest first.")
@_json_option
def list_sessions(
    target: Target,
    states: Sequence[str],
    labels: Sequence[str],
    limit: int | None,
    *,
    as_json: bool,
) -> None:
    """List sessions, newest first."""
    wanted = dict(label(text) for text in labels)
    with _client(target) as client:
        found = list(itertools.islice(client.list_sessions(states=states, labels=wanted), limit))
    if as_json:
        print_json([record_json(record) for record in found])
    elif found:
        now = datetime.now(UTC)
        headings = ("id", "state", "pose", "attached", "age", "expires in", "reason")
        print_table(headings, [_row(record, now) for record in found])
    else:
        print_line("no sessions")


@sessions.command()
@click.argument("session_id", metavar="ID")
@connection_options
@_json_option
def show(session_id: str, target: Target, *, as_json: bool) -> None:
    """Print all fields of a session."""
    with _client(target) as client:
        record = client.get_session(session_id)
    print_record(record, as_json=as_json)


@sessions.command()
@click.argument("session_id", metavar="ID")
@connection_options
@_json_option
def end(session_id: str, target: Target, *, as_json: bool) -> None:
    """End a session, wait until LiveAvatar has stopped it, and print its final record."""
    with _client(target, _END_TIMEOUT_S) as client:
        record = client.end_session(session_id)
    print_record(record, as_json=as_json)


def record_json(record: "SessionRecord") -> dict[str, Any]:
    """Return a record as JSON values, see `json_fields`."""
    return json_fields(asdict(record))


@contextmanager
def _client(target: Target, timeout_s: float = _TIMEOUT_S) -> Iterator["Client"]:
    from liveavatar.gateway import Client  # noqa: PLC0415 - keeps `--help` fast

    with (
        stoppable(),
        explained_errors(target.address),
        Client(target.address, timeout=timeout_s, **target.arguments()) as client,
    ):
        yield client


def _row(record: "SessionRecord", now: datetime) -> tuple[str, ...]:
    over = record.ended_at is not None
    return (
        record.id,
        record.state.value,
        known(record.pose.value),
        "yes" if record.attached and not over else "no",
        span(now - record.created_at) if record.created_at else "-",
        span(record.expires_at - now) if record.expires_at and not over else "-",
        known(record.end_reason.value),
    )


def record_of(message: "session_pb2.Session") -> "SessionRecord":
    """Return a session message as the client library's record."""
    from liveavatar.gateway import SessionRecord  # noqa: PLC0415 - keeps `--help` fast

    return SessionRecord.from_proto(message)


def print_record(record: "SessionRecord", *, as_json: bool) -> None:
    """Print all fields of a record."""
    fields = record_json(record)
    if as_json:
        print_json(fields)
        return
    usage = fields.pop("usage")
    fields["labels"] = " ".join(f"{key}={value}" for key, value in sorted(fields["labels"].items()))
    print_fields(fields | {f"usage.{name}": value for name, value in usage.items()})
