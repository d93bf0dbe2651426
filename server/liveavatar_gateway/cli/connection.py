"""Connection to a running gateway, and the next step for each of its errors."""

import contextlib
import ipaddress
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from liveavatar_gateway.cli.output import EX_FAILED

if TYPE_CHECKING:
    # For type checking only: gRPC imports slowly, and `--help` should be fast.
    import grpc

    from liveavatar.gateway import GatewayError

_Function = TypeVar("_Function", bound=Callable[..., Any])

START: Final = "start one (`liveavatar-gateway serve`)"
"""Next step if no gateway answers."""

_NEXT_STEPS: Final = {
    "CAPACITY_EXHAUSTED": "wait, or end a session: `liveavatar-gateway sessions list --state ready`",
    "SESSION_NOT_FOUND": "`liveavatar-gateway sessions list` lists the current sessions",
    "OWNER_MOVED": "call the process that owns the session; `liveavatar-gateway admin sessions` lists the owners",
    "UPSTREAM_UNAUTHENTICATED": "the operator must set a valid LIVEAVATAR_API_KEY and restart the gateway",
    "UPSTREAM_CREDITS_EXHAUSTED": "add credits to the LiveAvatar account, or use --sandbox",
    "UPSTREAM_PLAN_REQUIRED": "request less, or change the LiveAvatar plan",
    "UPSTREAM_REJECTED": "correct the value that LiveAvatar names; an avatar must belong to the gateway's account",
    "AUDIO_CONTAINER_DETECTED": "convert it to WAV: ffmpeg -i FILE -f wav - | liveavatar-gateway say -",
    "AUDIO_FORMAT_UNSUPPORTED": "convert it: ffmpeg -i FILE -ar 24000 -ac 1 -c:a pcm_s16le out.wav",
    "AUDIO_MISALIGNED": "check --encoding and --channels: the audio ends inside a sample",
    "CREDENTIAL_EXPIRED": "ask the operator of the gateway for a new credential",
    "INTERNAL": "report it with the incident number, under which the gateway's log has the details",
}


_HAS_RETRY_TIME: Final = ("DRAINING",)
"""Reasons whose message already names the time of a retry."""


def connection_options(function: _Function) -> _Function:
    """Add the options that name the gateway."""
    return _options("127.0.0.1:50051", "Address of the gateway, HOST:PORT.")(function)


def admin_options(function: _Function) -> _Function:
    """Add the options that name the gateway's AdminService."""
    return _options("127.0.0.1:50052", "Address of AdminService (GATEWAY_ADMIN_PORT), HOST:PORT.")(function)


def _options(address: str, what: str) -> Callable[[_Function], _Function]:
    def add(function: _Function) -> _Function:
        option = click.option(
            "--address", default=address, show_default=True, callback=_checked_address, help=what
        )
        function = option(function)
        for option in reversed(_TLS_OPTIONS):
            function = option(function)
        return function

    return add


def _checked_address(ctx: click.Context, param: click.Parameter, value: str) -> str:  # noqa: ARG001 - click's signature
    for address in (part.strip() for part in value.split(",")):
        host, _, port = address.rpartition(":")
        if not address:
            raise click.BadParameter(f"{value!r} is not HOST:PORT")
        if _is_ipv6(host):
            raise click.BadParameter(f"an IPv6 address needs brackets: [{host}]:{port}")
        if _is_ipv6(address):
            raise click.BadParameter(f"an IPv6 address needs brackets and a port: [{address}]:PORT")
    return value


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


_TLS_OPTIONS: Final = (
    click.option("--tls", is_flag=True, help="Use TLS; the system must trust the gateway's certificate."),
    click.option(
        "--ca",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="PEM file with the certificates to trust instead of the system's; implies --tls.",
    ),
)


def credentials(*, tls: bool, ca: Path | None) -> "grpc.ChannelCredentials | None":
    """Return the credentials of the connection; None for plaintext."""
    import grpc  # noqa: PLC0415 - keeps `--help` fast

    if not tls and ca is None:
        return None
    return grpc.ssl_channel_credentials(ca.read_bytes() if ca is not None else None)


@contextlib.contextmanager
def channel(address: str, *, tls: bool, ca: Path | None, start: str = START) -> Iterator["grpc.Channel"]:
    """Open a channel for calls that the client library lacks, with errors explained as for other calls."""
    import grpc  # noqa: PLC0415 - keeps `--help` fast

    from liveavatar.gateway.refusals import from_rpc_error  # noqa: PLC0415 - keeps `--help` fast

    channel_credentials = credentials(tls=tls, ca=ca)
    opened = (
        grpc.secure_channel(address, channel_credentials)
        if channel_credentials
        else grpc.insecure_channel(address)
    )
    with explained_errors(address, start), opened as connected:
        try:
            yield connected
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None


@contextlib.contextmanager
def explained_errors(address: str, start: str = START) -> Iterator[None]:
    """Print errors of the gateway with a next step, and exit with code 1."""
    from liveavatar.gateway import GatewayError  # noqa: PLC0415 - keeps `--help` fast

    try:
        yield
    except GatewayError as error:
        print_error(explanation(error, address, start))
        sys.exit(EX_FAILED)


def print_error(lines: list[str]) -> None:
    """Print an error, and below it the next step."""
    click.echo("liveavatar-gateway: " + "\n  ".join(lines), err=True)


def explanation(error: "GatewayError", address: str, start: str = START) -> list[str]:
    """Return the error's message, and the next step if known."""
    from liveavatar.gateway import ConnectionLost, DeadlineExceeded  # noqa: PLC0415 - keeps `--help` fast

    if isinstance(error, ConnectionLost):
        return [
            f"no gateway answers on {address}: {error.message}",
            f"{start}, or name a running one: --address HOST:PORT, and --tls if it uses TLS",
        ]
    if isinstance(error, DeadlineExceeded):
        return [
            f"{address} did not answer in time: {error.message}",
            "try again; the gateway's log may have details",
        ]
    lines = [f"{error.reason}: {error.message}" if error.reason else error.message]
    if error.reason in _NEXT_STEPS:
        lines.append(_NEXT_STEPS[error.reason])
    if error.retry_after is not None and error.reason not in _HAS_RETRY_TIME:
        lines.append(f"retry in {error.retry_after:g} s")
    return lines
