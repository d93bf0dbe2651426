"""`liveavatar-gateway sessions watch`: print the events of sessions as they happen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from liveavatar_gateway.cli.connection import Target, connection_options, explained_errors
from liveavatar_gateway.cli.output import print_line, stoppable
from liveavatar_gateway.cli.show import json_fields
from liveavatar_gateway.escaping import json_text

if TYPE_CHECKING:
    # For type checking only; imported when a command runs.
    from google.protobuf.message import Message

    from liveavatar.gateway import WatchChange


def label(text: str) -> tuple[str, str]:
    """Parse a label from the command line."""
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--label")
    return key, value


@click.command()
@click.argument("session_ids", metavar="[ID]...", nargs=-1)
@connection_options
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only sessions with this label; repeat to require several.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each message as a line of JSON.")
def watch(session_ids: Sequence[str], target: Target, labels: Sequence[str], *, as_json: bool) -> None:
    """Print the events of sessions, one per line, until Ctrl-C.

    Without an ID: events of all current and future sessions, or of those with the labels. With IDs: events of
    these sessions, until all have ended. Watching neither keeps a session alive nor slows it down. If the gateway
    is lost, the command reconnects for a minute, then prints the missed events or the extent of the gap.
    """
    from liveavatar.gateway import Client  # noqa: PLC0415 - keeps `--help` fast

    wanted = dict(label(text) for text in labels)
    with (
        stoppable(),
        explained_errors(target.address),
        Client(target.address, **target.arguments()) as client,
        client.watch(session_ids, labels=wanted or None) as changes,
    ):
        for change in changes:
            for line in _json_lines(change) if as_json else _lines(change):
                print_line(line)


def _json_lines(change: "WatchChange") -> Iterator[str]:
    """Return the gateway's messages, and events of the client library, as JSON lines."""
    from liveavatar.gateway import (  # noqa: PLC0415 - keeps `--help` fast
        WatchedEvent,
        WatchGap,
        WatchRemoved,
        WatchResumed,
        WatchSnapshot,
    )

    match change:
        case WatchSnapshot() | WatchedEvent():
            shown = _plain(change.message)
        case WatchGap():
            shown = {"gap": asdict(change)}
        case WatchRemoved(session_id=session_id, error=error) if error is not None:
            shown = {"removed": {"session_id": session_id, "reason": error.reason, "message": error.message}}
        case WatchRemoved(session_id=session_id):
            shown = {"removed": {"session_id": session_id}}
        case WatchResumed():
            shown = {"resumed": json_fields(asdict(change))}
        case _:
            return
    yield json_text(shown)


def _lines(change: "WatchChange") -> Iterator[str]:
    from liveavatar.gateway import (  # noqa: PLC0415 - keeps `--help` fast
        WatchedEvent,
        WatchGap,
        WatchRemoved,
        WatchResumed,
        WatchSnapshot,
    )

    match change:
        case WatchSnapshot(message=message):
            fields = _plain(message.snapshot.session)
            state: dict[str, Any] = {
                key: fields[key] for key in ("state", "pose", "attached", "end_reason") if key in fields
            }
            yield _line(_now(), change.session_id, change.sequence, "snapshot", state)
        case WatchedEvent(message=message, event=event):
            kind = message.event.event.WhichOneof("event") or "unknown"
            text = _flat(_plain(message.event.event).get(kind, {}))
            yield _line(event.time, change.session_id, event.sequence, kind, text)
        case WatchGap(session_id=session_id, first_sequence=first, last_sequence=last):
            yield _line(_now(), session_id, last, "gap", {"missing": f"{first} to {last}"})
        case WatchRemoved(session_id=session_id, error=error) if error is not None:
            yield _line(_now(), session_id, 0, "removed", {"error": error.message})
        case WatchResumed(gap=gap, target=target):
            yield f"{_now():%H:%M:%S}  reconnected to {target} after {gap.total_seconds():.1f} s"


def _line(at: datetime, session_id: str, sequence: int, kind: str, fields: Mapping[str, Any]) -> str:
    text = " ".join(f"{name}={_short(value)}" for name, value in fields.items())
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03}  {session_id}  {sequence:>5}  {kind:<17}  {text}".rstrip()


def _flat(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return fields that fit on a line: the end reason of a record, the message of an error, a participant."""
    session, error = fields.get("session", {}), fields.get("error", {})
    plain = {name: value for name, value in fields.items() if not isinstance(value, dict) and name != "session_id"}
    if reason := session.get("end_reason"):
        plain["end_reason"] = reason
    if isinstance(participant := fields.get("participant"), dict):
        plain["identity"] = participant.get("identity", "")
    if message := error.get("message") if isinstance(error, dict) else None:
        plain["error"] = message
    return plain


def _short(value: Any) -> str:
    """Remove the prefix of enum values: SESSION_STATE_READY becomes READY."""
    text = str(value)
    prefixes = ("SESSION_STATE_", "POSE_", "END_REASON_", "UTTERANCE_OUTCOME_")
    return next((text.removeprefix(prefix) for prefix in prefixes if text.startswith(prefix)), text)


def _plain(message: "Message") -> dict[str, Any]:
    from google.protobuf import json_format  # noqa: PLC0415 - keeps `--help` fast

    fields: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return fields


def _now() -> datetime:
    return datetime.now(UTC)
