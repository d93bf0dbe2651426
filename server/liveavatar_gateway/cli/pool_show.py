"""`liveavatar-gateway pool show`: accounts, waiting callers, shares of tenants and warm sessions."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from liveavatar_gateway.cli.admin import admin_stub
from liveavatar_gateway.cli.connection import Target, admin_options
from liveavatar_gateway.cli.output import print_json, print_line
from liveavatar_gateway.cli.seconds import Seconds
from liveavatar_gateway.cli.show import print_table, span

if TYPE_CHECKING:
    # For type checking only; imported when a command runs.
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message

    from liveavatar.gateway.v1 import admin_service_pb2 as p

TIMEOUT_S: Final = 10.0
_ANONYMOUS: Final = "(anonymous)"
_ACCOUNT_HEADINGS: Final = ("account", "state", "used", "limit", "warm", "others", "breaker", "credits", "starts")
_TENANT_HEADINGS: Final = ("tenant", "weight", "reserved", "ceiling", "used", "waiting", "longest wait")


@click.command()
@admin_options
@click.option("--watch", "watched", is_flag=True, help="Show the pool again and again, until Ctrl-C.")
@click.option(
    "--interval",
    "interval_s",
    type=Seconds(0.2, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks with --watch.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch, a line for each look.")
def show(target: Target, interval_s: float, *, watched: bool, as_json: bool) -> None:
    """Show accounts, waiting callers, shares of tenants and warm sessions.

    used, limit, warm, waiting and shares are those of all processes on the registry. breaker, credits and starts
    are as the process at --address sees them.

    \b
    used     permits of sessions; +2~ settle: they have ended, and LiveAvatar frees them a little later;
             +1? are suspect: their process died, and their sessions may run
    limit    sessions that may run now, with the reason if that is not what is configured
    others   sessions of other programs on the account, which reduce the limit
    breaker  closed: works; open: failed repeatedly, nothing starts; half_open: one start is on trial
    starts   yes, or why this process starts no session on the account, and when it tries again
    """  # noqa: D301 - \b keeps click from wrapping
    from liveavatar.gateway.v1 import admin_service_pb2 as p  # noqa: PLC0415 - keeps `--help` fast

    with admin_stub(target) as stub:
        while True:
            fields = pool_fields(stub.GetPool(p.GetPoolRequest(), timeout=TIMEOUT_S))
            if as_json:
                print_json(fields, indent=None if watched else 2)
            else:
                if watched:
                    # Does nothing without a terminal, so that a file gets one look after the other.
                    click.clear()
                    print_line(f"{datetime.now(UTC):%H:%M:%S} UTC")
                _print(fields)
            if not watched:
                return
            time.sleep(interval_s)


def pool_fields(answer: "p.GetPoolResponse") -> dict[str, Any]:
    """Return the pool as JSON values."""
    return {
        "owner": answer.owner,
        "waiting_count": answer.waiting_count,
        "blocked_for_s": _seconds(answer, "blocked_for"),
        "accounts": [account_fields(account) for account in answer.accounts],
        "tenants": [
            {
                "name": tenant.name,
                "weight": tenant.weight,
                "reserved": tenant.reserved,
                "ceiling": _optional(tenant, "ceiling"),
                "used_permit_count": tenant.used_permit_count,
                "waiting_count": tenant.waiting_count,
                "longest_wait_s": _seconds(tenant, "longest_wait"),
            }
            for tenant in answer.tenants
        ],
        "other_tenant_count": answer.other_tenant_count,
        "warm": [
            {
                "profile": warm.profile,
                "account": warm.account,
                "warm_count": warm.warm_count,
                "reserved_count": warm.reserved_count,
            }
            for warm in answer.warm
        ],
    }


def account_fields(account: "p.PoolAccount") -> dict[str, Any]:
    """Return an account as JSON values."""
    from liveavatar.gateway.v1 import admin_service_pb2 as p  # noqa: PLC0415 - keeps `--help` fast

    return {
        "name": account.name,
        "state": p.AccountState.Name(account.state).removeprefix("ACCOUNT_STATE_").lower(),
        "drain_left_s": _seconds(account, "drain_left"),
        "configured_limit": account.configured_limit,
        "set_limit": _optional(account, "set_limit"),
        "learned_limit": _optional(account, "learned_limit"),
        "effective_limit": account.effective_limit,
        "held_count": account.held_count,
        "settling_count": account.settling_count,
        "suspect_count": account.suspect_count,
        "warm_count": account.warm_count,
        "foreign_session_count": account.foreign_session_count,
        "set_aside": account.set_aside,
        "retry_in_s": _seconds(account, "retry_in"),
        "breaker": p.BreakerState.Name(account.breaker).removeprefix("BREAKER_STATE_").lower(),
        "last_error": account.last_error,
        "credits": _optional(account, "credits"),
        "rate_limit": _optional(account, "rate_limit"),
        "rate_remaining": _optional(account, "rate_remaining"),
        "cost": account.cost,
    }


def limit_text(account: Mapping[str, Any]) -> str:
    """Return the effective limit, with what makes it differ from the configured one."""
    causes = []
    if account["set_limit"] is not None:
        causes.append(f"set to {account['set_limit']}")
    if account["learned_limit"] is not None:
        causes.append(f"learned {account['learned_limit']}")
    if account["effective_limit"] != account["configured_limit"] or causes:
        causes.append(f"configured {account['configured_limit']}")
    return f"{account['effective_limit']}" + (f" ({', '.join(causes)})" if causes else "")


def state_text(account: Mapping[str, Any]) -> str:
    """Return the state of an account, with the time that is left to a draining one."""
    left_s = account["drain_left_s"]
    state: str = account["state"]
    return state if left_s is None else f"{state}, {span(timedelta(seconds=left_s))} left"


def used_text(account: Mapping[str, Any]) -> str:
    """Return the permits in use; those that settle and those of dead processes apart."""
    settling, suspect = account["settling_count"], account["suspect_count"]
    more = (f" +{settling}~" if settling else "") + (f" +{suspect}?" if suspect else "")
    return f"{account['held_count']}{more}"


def _print(fields: Mapping[str, Any]) -> None:
    print_table(_ACCOUNT_HEADINGS, [_account_row(account) for account in fields["accounts"]])
    for account in fields["accounts"]:
        if account["last_error"]:
            print_line(f"{account['name']}: {account['last_error']}")
    print_line()
    if fields["tenants"]:
        print_table(_TENANT_HEADINGS, [_tenant_row(tenant) for tenant in fields["tenants"]])
        if fields["other_tenant_count"]:
            print_line(f"and {fields['other_tenant_count']} more tenants")
        print_line()
    if fields["warm"]:
        rows = [
            (warm["profile"] or "-", warm["account"], str(warm["warm_count"]), str(warm["reserved_count"]))
            for warm in fields["warm"]
        ]
        print_table(("profile", "account", "warm", "reserved"), rows)
        print_line()
    print_line(f"{fields['waiting_count']} caller(s) wait for a permit")
    if fields["blocked_for_s"]:
        print_line(f"no permit is granted for {fields['blocked_for_s']:.0f} s: the registry has lost its data")


def _account_row(account: Mapping[str, Any]) -> Sequence[str]:
    balance = account["credits"]
    return (
        account["name"],
        state_text(account),
        used_text(account),
        limit_text(account),
        str(account["warm_count"]),
        str(account["foreign_session_count"]),
        account["breaker"],
        "-" if balance is None else f"{balance:,.0f}",
        _starts(account),
    )


def _starts(account: Mapping[str, Any]) -> str:
    if not account["set_aside"]:
        return "yes"
    retry_s, cause = account["retry_in_s"], str(account["set_aside"])
    return cause + ("" if retry_s is None else f", again in {retry_s:.1f} s")


def _tenant_row(tenant: Mapping[str, Any]) -> Sequence[str]:
    wait_s, ceiling = tenant["longest_wait_s"], tenant["ceiling"]
    return (
        tenant["name"] or _ANONYMOUS,
        f"{tenant['weight']:g}",
        str(tenant["reserved"]),
        "-" if ceiling is None else str(ceiling),
        str(tenant["used_permit_count"]),
        str(tenant["waiting_count"]),
        "-" if wait_s is None else f"{wait_s:.1f} s",
    )


def _optional(message: "Message", field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def _seconds(message: "Message", field: str) -> float | None:
    if not message.HasField(field):
        return None
    duration: Duration = getattr(message, field)
    return round(duration.ToTimedelta().total_seconds(), 3)
