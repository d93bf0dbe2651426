"""`liveavatar-gateway avatars`: list the avatars that the caller may use."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from liveavatar_gateway.cli.connection import Target, connection_options, explained_errors
from liveavatar_gateway.cli.output import print_json, print_line, stoppable
from liveavatar_gateway.cli.show import print_table

if TYPE_CHECKING:
    # For type checking only; imported when a command runs.
    from liveavatar.gateway import Avatar

_TIMEOUT_S: Final = 40.0
"""Longest wait for a page; the gateway may first fetch LiveAvatar's lists, for up to 30 s."""


@click.command()
@connection_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def avatars(target: Target, *, as_json: bool) -> None:
    """List the avatars that the caller may use, sorted by name.

    They are LiveAvatar's public avatars, those of the gateway's account, and the avatar of the sandbox, less those
    that the operator does not allow to the caller's tenant.
    """
    from liveavatar.gateway import Client  # noqa: PLC0415 - keeps `--help` fast

    with (
        stoppable(),
        explained_errors(target.address),
        Client(target.address, timeout=_TIMEOUT_S, **target.arguments()) as client,
    ):
        found = list(client.list_avatars(page_size=500))
    if as_json:
        print_json([asdict(avatar) for avatar in found])
    elif found:
        print_table(("id", "name", "1080p", "sandbox", "preview"), [_row(avatar) for avatar in found])
    else:
        print_line("no avatars")


def _row(avatar: "Avatar") -> tuple[str, ...]:
    return (
        avatar.id,
        avatar.name,
        "yes" if avatar.is_1080p else "no",
        "yes" if avatar.sandbox else "no",
        avatar.preview_url or "-",
    )
