"""`liveavatar-gateway sessions watch`: what happens in the sessions of a running gateway, as it happens."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from liveavatar_gateway.cli.connection import connection_options, credentials, refusals
from liveavatar_gateway.cli.output import stoppable
from liveavatar_gateway.cli.show import json_fields

if TYPE_CHECKING:
    # Only said here; imported when a command runs.
    from google.protobuf.message import Message

    from liveavatar.gateway import WatchChange


def label(text: str) -> tuple[str, str]:
    """A label of the command line."""
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise click.BadParameter(f"{text!r} is no KEY=VALUE", param_hint="--label")
    return key, value


@click.command()
@click.argument("session_ids", metavar="[ID]...", nargs=-1)
@connection_options
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Sessions with all of these; may be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="Print each message as one line of JSON.")
def watch(
    session_ids: Sequence[str], address: str, ca: Path | None, labels: Sequence[str], *, tls: bool, as_json: bool
) -> None:
    """Print what happens in sessions, one line each, until Ctrl-C.

    Without an ID: in all that live and all that come, or in those with the labels. With IDs alone: in these, until
    the last of them has ended. Watching neither holds a session nor slows it down. A gateway that is lost is tried
    for a minute; what was missed meanwhile is told, or how much of it is gone.
    """
    from liveavatar.gateway import Client  # noqa: PLC0415 - `--help` should not wait for it

    wanted = dict(label(text) for text in labels)
    with (
        stoppable(),
        refusals(address),
        Client(address, credentials=credentials(tls=tls, ca=ca)) as client,
        client.watch(session_ids, labels=wanted or None) as changes,
    ):
        for change in changes:
            for line in _json_lines(change) if as_json else _lines(change):
                click.echo(line)


def _json_lines(change: "WatchChange") -> Iterator[str]:
    """Messages as the gateway sent them; what the client makes of them in the same manner."""
    from liveavatar.gateway import (  # noqa: PLC0415 - see above
        WatchedEvent,
        WatchGap,
        WatchRemoved,
        WatchResumed,
        WatchSnapshot,
    )

    match change:
        case WatchSnapshot() | WatchedEvent():
            told = _plain(change.message)
        case WatchGap():
            told = {"gap": asdict(change)}
        case WatchRemoved(session_id=session_id, error=error) if error is not None:
            told = {"removed": {"session_id": session_id, "reason": error.reason, "message": error.message}}
        case WatchRemoved(session_id=session_id):
            told = {"removed": {"session_id": session_id}}
        case WatchResumed():
            told = {"resumed": json_fields(asdict(change))}
        case _:
            return
    yield json.dumps(told, ensure_ascii=False)


def _lines(change: "WatchChange") -> Iterator[str]:
    from liveavatar.gateway import (  # noqa: PLC0415 - see above
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
            said = _flat(_plain(message.event.event).get(kind, {}))
            yield _line(event.time, change.session_id, event.sequence, kind, said)
        case WatchGap(session_id=session_id, first_sequence=first, last_sequence=last):
            yield _line(_now(), session_id, last, "gap", {"missing": f"{first} to {last}"})
        case WatchRemoved(session_id=session_id, error=error) if error is not None:
            yield _line(_now(), session_id, 0, "removed", {"error": error.message})
        case WatchResumed(gap=gap, target=target):
            yield f"{_now():%H:%M:%S}  the gateway was lost for {gap.total_seconds():.1f} s, now at {target}"


def _line(at: datetime, session_id: str, sequence: int, kind: str, fields: Mapping[str, Any]) -> str:
    said = " ".join(f"{name}={_short(value)}" for name, value in fields.items())
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03}  {session_id}  {sequence:>5}  {kind:<17}  {said}".rstrip()


def _flat(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """What fits on a line: of the final record why it ended, and of an error its message."""
    session, error = fields.get("session", {}), fields.get("error", {})
    plain = {name: value for name, value in fields.items() if not isinstance(value, dict) and name != "session_id"}
    if reason := session.get("end_reason"):
        plain["end_reason"] = reason
    if message := error.get("message") if isinstance(error, dict) else None:
        plain["error"] = message
    return plain


def _short(value: Any) -> str:
    """Without the prefix that enums have: SESSION_STATE_READY is READY."""
    text = str(value)
    prefixes = ("SESSION_STATE_", "POSE_", "END_REASON_", "UTTERANCE_OUTCOME_")
    return next((text.removeprefix(prefix) for prefix in prefixes if text.startswith(prefix)), text)


def _plain(message: "Message") -> dict[str, Any]:
    from google.protobuf import json_format  # noqa: PLC0415 - see above

    fields: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return fields


def _now() -> datetime:
    return datetime.now(UTC)
