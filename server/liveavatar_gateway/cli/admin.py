"""`liveavatar-gateway admin`: operate a running gateway over its AdminService."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from liveavatar_gateway.cli.connection import Target, admin_options, channel
from liveavatar_gateway.cli.output import print_json, print_line, stoppable
from liveavatar_gateway.cli.seconds import Seconds
from liveavatar_gateway.cli.show import json_fields, print_fields, print_table, span

if TYPE_CHECKING:
    # For type checking only; imported when a command runs.
    from liveavatar.gateway.v1 import admin_service_pb2 as p
    from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceStub

_TIMEOUT_S: Final = 10.0
_EJECT_TIMEOUT_S: Final = 30.0
_PAGE: Final = 500

_START: Final = "start one with a port for this (`GATEWAY_ADMIN_PORT=50052 liveavatar-gateway serve`)"

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def admin() -> None:
    """Operate a running gateway: drain, undrain, status, eject.

    The gateway serves these commands on GATEWAY_ADMIN_PORT, and only if that is set. With authentication they need
    a credential with the role admin.
    """


@admin.command()
@admin_options
@click.option(
    "--grace",
    "grace_s",
    type=Seconds(0, 3600),
    help="Seconds until the remaining sessions are ended.  [default: the gateway's GATEWAY_DRAIN_GRACE_S]",
)
@_json_option
def drain(target: Target, grace_s: float | None, *, as_json: bool) -> None:
    """Refuse new sessions, and end the remaining sessions at a deadline.

    Returns at once: sessions continue until the deadline, and `admin undrain` cancels the drain. `admin status`
    shows the number of remaining sessions. A second call sets another deadline.
    """
    from liveavatar.gateway.v1 import admin_service_pb2 as p  # noqa: PLC0415 - keeps `--help` fast

    request = p.DrainRequest()
    if grace_s is not None:
        request.grace.FromTimedelta(timedelta(seconds=grace_s))
    with admin_stub(target) as stub:
        answer = stub.Drain(request, timeout=_TIMEOUT_S)
    deadline = answer.deadline.ToDatetime(UTC)
    if as_json:
        print_json(json_fields({"deadline": deadline, "session_count": answer.session_count}))
    else:
        print_line(f"{answer.session_count} active session(s); the remaining ones are ended in {_left(deadline)}")


@admin.command()
@admin_options
@_json_option
def undrain(target: Target, *, as_json: bool) -> None:
    """Accept new sessions again, and keep the current ones."""
    from liveavatar.gateway.v1 import admin_service_pb2 as p  # noqa: PLC0415 - keeps `--help` fast

    with admin_stub(target) as stub:
        answer = stub.Undrain(p.UndrainRequest(), timeout=_TIMEOUT_S)
    if as_json:
        print_json({"was_draining": answer.was_draining})
    else:
        print_line("accepts new sessions again" if answer.was_draining else "the gateway was not draining")


@admin.command()
@admin_options
@_json_option
def status(target: Target, *, as_json: bool) -> None:
    """Show permits, waiting callers, sessions and taken-over sessions of the process."""
    from liveavatar.gateway.v1 import admin_service_pb2 as p  # noqa: PLC0415 - keeps `--help` fast

    with admin_stub(target) as stub:
        answer = stub.GetProcessStatus(p.GetProcessStatusRequest(), timeout=_TIMEOUT_S)
    draining = answer.HasField("drain_deadline")
    fields = {
        "owner": answer.owner,
        "version": answer.version,
        "started_at": answer.started_at.ToDatetime(UTC),
        "drain_deadline": answer.drain_deadline.ToDatetime(UTC) if draining else None,
        "permit_count": answer.permit_count,
        "used_permit_count": answer.used_permit_count,
        "waiting_count": answer.waiting_count,
        "session_count": answer.session_count,
        "adopted_count": answer.adopted_count,
        "swept_count": answer.swept_count,
    }
    shown = json_fields(fields)
    if as_json:
        print_json(shown)
    else:
        print_fields(shown)


@admin.command("sessions")
@admin_options
@click.option("--limit", type=click.IntRange(1), help="Print at most this many, newest first.")
@_json_option
def list_owned(target: Target, limit: int | None, *, as_json: bool) -> None:
    """List the sessions of all processes that share the registry, newest first, with their owners."""
    with admin_stub(target) as stub:
        found = [_owned(one) for one in itertools.islice(_all_owned(stub), limit)]
    if as_json:
        print_json(found)
    elif found:
        headings = ("id", "state", "owner", "epoch", "lease left")
        rows = [(one["id"], one["state"], one["owner"], str(one["epoch"]), _lease(one)) for one in found]
        print_table(headings, rows)
    else:
        print_line("no sessions")


@admin.command()
@click.argument("session_id", metavar="ID")
@admin_options
@_json_option
def eject(session_id: str, target: Target, *, as_json: bool) -> None:
    """End any session with reason OPERATOR, and print its final record."""
    from liveavatar.gateway.v1 import admin_service_pb2 as p  # noqa: PLC0415 - keeps `--help` fast
    from liveavatar_gateway.cli.sessions import print_record, record_of  # noqa: PLC0415

    with admin_stub(target) as stub:
        answer = stub.EjectSession(p.EjectSessionRequest(session_id=session_id), timeout=_EJECT_TIMEOUT_S)
    print_record(record_of(answer.session), as_json=as_json)


@contextmanager
def admin_stub(target: Target) -> Iterator["AdminServiceStub"]:
    """Connect to AdminService; errors are printed with the next step."""
    from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceStub  # noqa: PLC0415 - keeps `--help` fast

    with stoppable(), channel(target, start=_START) as connected:
        yield AdminServiceStub(connected)


def _all_owned(stub: "AdminServiceStub") -> Iterator["p.OwnedSession"]:
    from liveavatar.gateway.v1 import admin_service_pb2 as p  # noqa: PLC0415 - keeps `--help` fast

    request = p.ListOwnedSessionsRequest(page_size=_PAGE)
    while True:
        page = stub.ListOwnedSessions(request, timeout=_TIMEOUT_S)
        yield from page.sessions
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _owned(one: "p.OwnedSession") -> dict[str, Any]:
    from liveavatar_gateway.cli.sessions import record_json, record_of  # noqa: PLC0415 - keeps `--help` fast

    left_s = one.lease_left.ToTimedelta().total_seconds() if one.HasField("lease_left") else None
    ownership = {"owner": one.owner, "epoch": one.epoch, "lease_left_s": left_s}
    return record_json(record_of(one.session)) | ownership


def _lease(one: dict[str, Any]) -> str:
    return "-" if one["lease_left_s"] is None else f"{one['lease_left_s']:.1f} s"


def _left(deadline: datetime) -> str:
    return span(deadline - datetime.now(UTC))
