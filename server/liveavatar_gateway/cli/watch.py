"""`liveavatar-gateway sessions watch`: what happens in the sessions of a running gateway, as it happens."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from liveavatar_gateway.cli.connection import channel, connection_options
from liveavatar_gateway.cli.output import stoppable

if TYPE_CHECKING:
    # Only said here; imported when a command runs.
    from google.protobuf.message import Message

    from liveavatar.gateway.v1 import session_service_pb2 as p


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
    the last of them has ended. Watching neither holds a session nor slows it down.
    """
    from liveavatar.gateway.v1 import session_service_pb2_grpc  # noqa: PLC0415 - `--help` should not wait for it

    wanted = dict(label(text) for text in labels)
    left = set(session_ids)
    done = threading.Event()
    forever = not session_ids or bool(labels)
    with stoppable(), channel(address, tls=tls, ca=ca) as connected:
        stub = session_service_pb2_grpc.SessionServiceStub(connected)
        call = stub.WatchSessions(_requests(session_ids, wanted if forever else None, done))
        try:
            for response in call:
                for line in _json_lines(response) if as_json else _lines(response):
                    click.echo(line)
                if response.HasField("removed"):
                    left.discard(response.removed.session_id)
                if not forever and not left:
                    break
        finally:
            done.set()
            call.cancel()


def _requests(
    session_ids: Sequence[str], labels: Mapping[str, str] | None, done: threading.Event
) -> Iterator["p.WatchSessionsRequest"]:
    from liveavatar.gateway.v1 import session_service_pb2 as p  # noqa: PLC0415 - see above

    for session_id in session_ids:
        yield p.WatchSessionsRequest(add=p.AddWatch(session_id=session_id))
    if labels is not None:
        yield p.WatchSessionsRequest(filter=p.WatchFilter(labels=labels))
    # The end of the requests would end the watch.
    done.wait()


def _json_lines(response: "p.WatchSessionsResponse") -> Iterator[str]:
    if not response.HasField("progress"):
        yield json.dumps(_plain(response), ensure_ascii=False)


def _lines(response: "p.WatchSessionsResponse") -> Iterator[str]:
    match response.WhichOneof("message"):
        case "snapshot":
            snapshot = response.snapshot
            fields = _plain(snapshot.session)
            state: dict[str, Any] = {
                key: fields[key] for key in ("state", "pose", "attached", "end_reason") if key in fields
            }
            yield _line(_now(), snapshot.session.id, snapshot.sequence, "snapshot", state)
        case "event":
            event = response.event.event
            kind = event.WhichOneof("event") or "unknown"
            at = event.time.ToDatetime(UTC)
            yield _line(at, response.event.session_id, event.sequence, kind, _flat(_plain(event).get(kind, {})))
        case "lagged":
            lagged = response.lagged
            yield _line(_now(), lagged.session_id, lagged.told_sequence, "lagged", _flat(_plain(lagged)))
        case "removed" if response.removed.status.code:
            removed = response.removed
            yield _line(_now(), removed.session_id, 0, "removed", {"error": removed.status.message})


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
