"""`liveavatar-gateway pool pause`, `resume`, `drain`, `limit` and `reload`: steer the accounts of a gateway."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from liveavatar_gateway.cli.admin import admin_stub
from liveavatar_gateway.cli.connection import Target, admin_options
from liveavatar_gateway.cli.output import EX_FAILED, print_json, print_line
from liveavatar_gateway.cli.pool_show import TIMEOUT_S, account_fields, limit_text, state_text, used_text
from liveavatar_gateway.cli.seconds import Seconds

if TYPE_CHECKING:
    # For type checking only; imported when a command runs.
    from liveavatar.gateway.v1 import admin_service_pb2 as p

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@click.argument("account", metavar="ACCOUNT")
@admin_options
@_json_option
def pause(account: str, target: Target, *, as_json: bool) -> None:
    """Start no more sessions on ACCOUNT, in any process on the registry; its sessions continue.

    Callers go to other accounts. Those that can use no other wait in the queue, as after PAUSE of pgbouncer, until
    `pool resume` or their deadline. The pause holds over restarts if the registry is a file. To refuse callers
    instead of letting them wait, use `pool drain`.
    """
    from liveavatar.gateway.v1 import admin_service_pb2 as p  # noqa: PLC0415 - keeps `--help` fast

    with admin_stub(target) as stub:
        answer = stub.PauseAccount(p.PauseAccountRequest(account=account), timeout=TIMEOUT_S)
    _print(answer.account, as_json=as_json)


@click.command()
@click.argument("account", metavar="ACCOUNT")
@admin_options
@_json_option
def resume(account: str, target: Target, *, as_json: bool) -> None:
    """Start sessions on ACCOUNT again, after `pool pause` or `pool drain`.

    An account that is paused or retired in the file of accounts (GATEWAY_POOL_FILE) stays so: change the file.
    """
    from liveavatar.gateway.v1 import admin_service_pb2 as p  # noqa: PLC0415 - keeps `--help` fast

    with admin_stub(target) as stub:
        answer = stub.ResumeAccount(p.ResumeAccountRequest(account=account), timeout=TIMEOUT_S)
    if not as_json and not answer.was_stopped:
        print_line(f"{account} was neither paused nor draining")
    _print(answer.account, as_json=as_json)


@click.command()
@click.argument("account", metavar="ACCOUNT")
@admin_options
@click.option(
    "--grace",
    "grace_s",
    type=Seconds(0, 86_400),
    help="Seconds until the remaining sessions are ended.  [default: they end by themselves]",
)
@_json_option
def drain(account: str, target: Target, grace_s: float | None, *, as_json: bool) -> None:
    """Empty ACCOUNT: start no more sessions on it, and let those on it end.

    Callers go to other accounts; those that can use no other are refused at once. With --grace, streams get a
    `go_away` with the deadline, and sessions that remain at the deadline end as DRAINED. Sessions with rotation
    move to another account when they rotate. Returns at once: `pool show` shows what remains, and `pool resume`
    ends the drain. A second call sets another deadline.
    """
    from liveavatar.gateway.v1 import admin_service_pb2 as p  # noqa: PLC0415 - keeps `--help` fast

    request = p.DrainAccountRequest(account=account)
    if grace_s is not None:
        request.grace.FromTimedelta(timedelta(seconds=grace_s))
    with admin_stub(target) as stub:
        answer = stub.DrainAccount(request, timeout=TIMEOUT_S)
    _print(answer.account, as_json=as_json)


@click.command()
@click.argument("account", metavar="ACCOUNT")
@click.argument("sessions", metavar="[N]", type=click.IntRange(1, 10_000), required=False)
@admin_options
@click.option("--reset", is_flag=True, help="Use the configured limit again.")
@_json_option
def limit(account: str, sessions: int | None, target: Target, *, reset: bool, as_json: bool) -> None:
    """Let N sessions run at once on ACCOUNT, in all processes on the registry together.

    N takes the place of max_sessions in the file of accounts, or of GATEWAY_MAX_SESSIONS, until another call; with
    a registry in a file over restarts too. Sessions above a lower limit continue. A limit that refusals of
    LiveAvatar have taught is forgotten: use this when the plan of the account was raised.
    """
    from liveavatar.gateway.v1 import admin_service_pb2 as p  # noqa: PLC0415 - keeps `--help` fast

    if reset == (sessions is not None):
        raise click.UsageError("name the number of sessions, or --reset")
    request = p.SetAccountLimitRequest(account=account, limit=sessions)
    with admin_stub(target) as stub:
        answer = stub.SetAccountLimit(request, timeout=TIMEOUT_S)
    _print(answer.account, as_json=as_json)


@click.command("reload")
@admin_options
@_json_option
@click.pass_context
def reload(ctx: click.Context, target: Target, *, as_json: bool) -> None:
    """Read the file of accounts and the files of keys again, and try refused keys again.

    For the process at --address alone. All processes find a changed file of accounts or of a key in it by
    themselves within a few seconds, so this is needed only to see the result at once, for the file of the single
    key (GATEWAY_API_KEY_FILE), and for a refused key that works again without having changed. Exits with 1 if a
    file cannot be used; its former content stays in use.
    """
    from liveavatar.gateway.v1 import admin_service_pb2 as p  # noqa: PLC0415 - keeps `--help` fast

    with admin_stub(target) as stub:
        answer = stub.ReloadPool(p.ReloadPoolRequest(), timeout=TIMEOUT_S)
    if as_json:
        results = {
            "changed": list(answer.changed),
            "failed": list(answer.failed),
            "retried_accounts": list(answer.retried_accounts),
        }
        print_json(results)
    else:
        for line in _reload_lines(answer):
            print_line(line)
    if answer.failed:
        ctx.exit(EX_FAILED)


def _reload_lines(answer: "p.ReloadPoolResponse") -> Sequence[str]:
    lines = [
        *(f"changed: {name}" for name in answer.changed),
        *(f"cannot be used: {cause}" for cause in answer.failed),
        *(f"tries the key again: {name}" for name in answer.retried_accounts),
    ]
    return lines or ["nothing changed"]


def _print(account: "p.PoolAccount", *, as_json: bool) -> None:
    fields = account_fields(account)
    if as_json:
        print_json(fields)
    else:
        print_line(
            f"{fields['name']}: {state_text(fields)}, {used_text(fields)} in use, limit {limit_text(fields)}"
        )
