"""`liveavatar-gateway keys`: make, list and revoke API keys in the file of tenants."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from liveavatar_gateway.cli.output import EX_FAILED, fail, print_json, print_line
from liveavatar_gateway.cli.settings import EX_CONFIG
from liveavatar_gateway.cli.show import json_fields, print_table

if TYPE_CHECKING:
    # For type checking only; imported when a command runs.
    from liveavatar_gateway.auth.auth_file import AuthConfig, KeyEntry

ROLES: Final = ("open", "speak", "listen", "control", "watch", "admin")
"""Roles of keys: the values of `Role`."""

_SPAN: Final = re.compile(r"(\d{1,4})([hdw])", re.ASCII)
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

_file_option = click.option(
    "--file",
    "path",
    required=True,
    envvar="GATEWAY_AUTH_FILE",
    show_envvar=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of tenants.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _expiry(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:  # noqa: ARG001 - click's
    """Return the time that a text names: a span from now, as in 90d, or a date or time in ISO 8601."""
    if value is None:
        return None
    now = datetime.now(UTC).replace(microsecond=0)
    if (span := _SPAN.fullmatch(value)) is not None:
        return now + int(span[1]) * _UNITS[span[2]]
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither a span, as in 90d, nor a time, as in 2027-01-31T12:00Z"
        ) from None
    # A time without a zone is taken as UTC: a command must not mean another time on another machine.
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    if found <= now:
        raise click.BadParameter(f"{value!r} is in the past")
    return found


@click.group()
def keys() -> None:
    """Make, list and revoke the API keys of tenants.

    A tenant is a team or customer that shares the gateway with others. Its keys are in the file of tenants,
    GATEWAY_AUTH_FILE, as digests: a key itself is printed once, and nobody can find it out later. A running
    gateway reads changes of the file by itself, within seconds.

    \b
    A key for an agent of a new tenant:    liveavatar-gateway keys make acme --new-tenant \\
                                             --role open --role speak --role control
    Callers send it as a header:           authorization: Bearer lag_...
    Replace a key without an interruption: liveavatar-gateway keys make acme --role ...
                                           (give callers the new key, then)
                                           liveavatar-gateway keys revoke ID

    \b
    Roles:  open     create sessions, which spends money
            speak    send audio for the avatar to speak
            listen   hear the users of a session
            control  attach to sessions, interrupt and end them
            watch    list sessions and follow their events
            admin    operate the gateway, across all tenants
    """  # noqa: D301 - \b keeps click from wrapping


@keys.command()
@click.argument("tenant")
@_file_option
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice(ROLES),
    help="What the key allows; repeat for several.",
)
@click.option(
    "--expires",
    callback=_expiry,
    metavar="TIME",
    help="End of the key: a span such as 90d, 12w or 24h, or a time in ISO 8601.  [default: none]",
)
@click.option("--note", default="", help="Purpose of the key, for people.")
@click.option("--new-tenant", is_flag=True, help="Create the tenant, with the default quotas.")
@_json_option
def make(
    tenant: str,
    path: Path,
    roles: Sequence[str],
    expires: datetime | None,
    note: str,
    *,
    new_tenant: bool,
    as_json: bool,
) -> None:
    """Make a key, and print it: it cannot be shown again.

    A tenant has at most two active keys: the current one, and the next one while its callers change over. Standard
    output has the key alone, so that it can be piped into a store of secrets.
    """
    from liveavatar_gateway.auth import editing  # noqa: PLC0415 - keeps `--help` fast
    from liveavatar_gateway.auth import keys as api_keys  # noqa: PLC0415
    from liveavatar_gateway.auth.auth_file import TENANT_PATTERN, parse  # noqa: PLC0415
    from liveavatar_gateway.auth.principal import Role  # noqa: PLC0415

    if re.fullmatch(TENANT_PATTERN, tenant) is None:
        raise click.BadParameter(
            f"{tenant!r} is not a name of up to 63 lower-case letters, digits and hyphens", param_hint="TENANT"
        )
    key = api_keys.generate()
    now = datetime.now(UTC).replace(microsecond=0)

    def change(text: str) -> str:
        known = tenant in parse(text.encode(), now=now).tenants
        if not known and not new_tenant:
            raise editing.EditRefused(f"no tenant {tenant} in {path}; add --new-tenant to create it")
        if known and new_tenant:
            raise editing.EditRefused(f"the tenant {tenant} exists already; leave out --new-tenant")
        return editing.add_key(
            text,
            tenant,
            key,
            roles=[Role(role) for role in dict.fromkeys(roles)],
            created=now,
            expires=expires,
            note=note,
        )

    _edit(path, change)
    if as_json:
        print_json({"tenant": tenant, "id": key.key_id, "key": key.text}, indent=None)
        return
    print_line(f"key {key.key_id} of {tenant}; store it now, it cannot be shown again:", err=True)
    print_line(key.text)


@keys.command("list")
@click.argument("tenant", required=False)
@_file_option
@_json_option
def list_keys(tenant: str | None, path: Path, *, as_json: bool) -> None:
    """List the keys of all tenants, or of one."""
    config = _read(path)
    if tenant is not None and tenant not in config.tenants:
        fail(f"no tenant {tenant} in {path}")
    now = datetime.now(UTC)
    found = [
        (name, key)
        for name, entry in config.tenants.items()
        for key in entry.keys
        if tenant is None or name == tenant
    ]
    if as_json:
        print_json([json_fields(_fields(name, key, now)) for name, key in found])
    elif found:
        headings = ("id", "tenant", "state", "roles", "created", "expires", "note")
        print_table(headings, [_row(name, key, now) for name, key in found])
    else:
        print_line("no keys")


@keys.command()
@click.argument("key_id", metavar="ID")
@_file_option
def revoke(key_id: str, path: Path) -> None:
    """Revoke a key: calls with it are refused, and its streams end.

    ID is the part of the key after `lag_`, which `keys list` shows. The entry stays in the file, for the record.
    """
    from liveavatar_gateway.auth import editing  # noqa: PLC0415 - keeps `--help` fast

    if key_id.startswith("lag_"):
        # A whole key on a command line is in the shell's history.
        raise click.BadParameter(
            "give the id alone, not the key: the part between `lag_` and `_`", param_hint="ID"
        )
    now = datetime.now(UTC).replace(microsecond=0)
    _edit(path, lambda text: editing.revoke_key(text, key_id, now), must_exist=True)
    print_line(f"revoked {key_id}; running gateways refuse it within seconds")


def _edit(path: Path, change: Any, *, must_exist: bool = False) -> None:
    from liveavatar_gateway.auth.auth_file import UnusableAuthFile  # noqa: PLC0415 - keeps `--help` fast
    from liveavatar_gateway.auth.editing import EditRefused, edit  # noqa: PLC0415

    if must_exist and not path.exists():
        fail(f"{path} does not exist", EX_CONFIG)
    try:
        edit(path, change)
    except EditRefused as error:
        fail(str(error), EX_FAILED)
    except UnusableAuthFile as error:
        _unusable(f"{path}: {error}")


def _read(path: Path) -> "AuthConfig":
    from liveavatar_gateway.auth.auth_file import UnusableAuthFile, read  # noqa: PLC0415 - keeps `--help` fast

    try:
        return read(path)
    except UnusableAuthFile as error:
        _unusable(str(error))


def _unusable(message: str) -> NoReturn:
    fail(message, EX_CONFIG)


def _state(key: "KeyEntry", now: datetime) -> str:
    if key.revoked is not None:
        return "revoked"
    return "expired" if key.expires is not None and key.expires <= now else "active"


def _fields(tenant: str, key: "KeyEntry", now: datetime) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": tenant,
        "state": _state(key, now),
        "roles": sorted(key.roles),
        "created": key.created,
        "expires": key.expires,
        "revoked": key.revoked,
        "note": key.note,
    }


def _row(tenant: str, key: "KeyEntry", now: datetime) -> tuple[str, ...]:
    expires = "never" if key.expires is None else f"{key.expires:%Y-%m-%d %H:%M}"
    return (
        key.id,
        tenant,
        _state(key, now),
        " ".join(role for role in ROLES if role in key.roles),
        f"{key.created:%Y-%m-%d}",
        expires,
        key.note,
    )
