"""Commands that are callers: where the gateway is, and what to do about each refusal."""

import contextlib
import ipaddress
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from liveavatar_gateway.cli.output import EX_FAILED

if TYPE_CHECKING:
    # Only said, not needed: gRPC takes a while to import, and `--help` should not wait for it.
    import grpc

    from liveavatar.gateway import GatewayError

_Function = TypeVar("_Function", bound=Callable[..., Any])

START: Final = "start one (`liveavatar-gateway serve`)"
"""What to do where no gateway answers."""

_NEXT_STEPS: Final = {
    "CAPACITY_EXHAUSTED": "wait, or end a session: `liveavatar-gateway sessions list --state ready`",
    "SESSION_NOT_FOUND": "`liveavatar-gateway sessions list` shows the sessions there are",
    "OWNER_MOVED": "ask the process that drives it; `liveavatar-gateway admin sessions` shows the owners",
    "UPSTREAM_UNAUTHENTICATED": "the operator must set a valid LIVEAVATAR_API_KEY and restart the gateway",
    "UPSTREAM_CREDITS_EXHAUSTED": "top up the LiveAvatar account, or use --sandbox",
    "UPSTREAM_PLAN_REQUIRED": "ask for less, or change the LiveAvatar plan",
    "UPSTREAM_REJECTED": "correct what LiveAvatar names; an avatar must belong to the gateway's account",
    "AUDIO_CONTAINER_DETECTED": "make a WAV of it: ffmpeg -i FILE -f wav - | liveavatar-gateway say -",
    "AUDIO_FORMAT_UNSUPPORTED": "convert it: ffmpeg -i FILE -ar 24000 -ac 1 -c:a pcm_s16le out.wav",
    "AUDIO_MISALIGNED": "check --encoding and --channels: the audio is no whole number of their samples",
    "INTERNAL": "report it with the incident number; the gateway's log has the details under it",
}


_SAYS_WHEN: Final = ("DRAINING",)
"""Reasons whose message says itself when to come back."""


def connection_options(function: _Function) -> _Function:
    """Where the gateway is."""
    return _options("127.0.0.1:50051", "The gateway, HOST:PORT.")(function)


def admin_options(function: _Function) -> _Function:
    """Where the gateway's AdminService is."""
    return _options("127.0.0.1:50052", "Its AdminService (GATEWAY_ADMIN_PORT), HOST:PORT.")(function)


def _options(address: str, what: str) -> Callable[[_Function], _Function]:
    def add(function: _Function) -> _Function:
        option = click.option(
            "--address", default=address, show_default=True, callback=_no_empty_address, help=what
        )
        function = option(function)
        for option in reversed(_TLS_OPTIONS):
            function = option(function)
        return function

    return add


def _no_empty_address(ctx: click.Context, param: click.Parameter, value: str) -> str:  # noqa: ARG001 - click's
    for one in value.split(","):
        host, _, port = one.strip().rpartition(":")
        if not one.strip():
            raise click.BadParameter(f"{value!r} is no HOST:PORT")
        if _is_ipv6(host):
            raise click.BadParameter(f"an IPv6 address needs brackets: [{host}]:{port}")
        if _is_ipv6(one.strip()):
            raise click.BadParameter(f"an IPv6 address needs brackets and a port: [{one.strip()}]:PORT")
    return value


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


_TLS_OPTIONS: Final = (
    click.option(
        "--tls", is_flag=True, help="Speak TLS; the gateway's certificate must be one the system trusts."
    ),
    click.option(
        "--ca",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="PEM file with the certificates to trust instead; implies --tls.",
    ),
)


def credentials(*, tls: bool, ca: Path | None) -> "grpc.ChannelCredentials | None":
    """What identifies the gateway; None for plaintext."""
    import grpc  # noqa: PLC0415 - see above

    if not tls and ca is None:
        return None
    return grpc.ssl_channel_credentials(ca.read_bytes() if ca is not None else None)


@contextlib.contextmanager
def channel(address: str, *, tls: bool, ca: Path | None, start: str = START) -> Iterator["grpc.Channel"]:
    """A connection for calls that the client library does not have; their refusals are explained as any other."""
    import grpc  # noqa: PLC0415 - see above

    from liveavatar.gateway.refusals import from_rpc_error  # noqa: PLC0415 - see above

    identity = credentials(tls=tls, ca=ca)
    opened = grpc.secure_channel(address, identity) if identity else grpc.insecure_channel(address)
    with refusals(address, start), opened as connected:
        try:
            yield connected
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None


@contextlib.contextmanager
def refusals(address: str, start: str = START) -> Iterator[None]:
    """Turn what the gateway refuses into an error with a next step, and exit code 1."""
    from liveavatar.gateway import GatewayError  # noqa: PLC0415 - see above

    try:
        yield
    except GatewayError as error:
        complain(explanation(error, address, start))
        sys.exit(EX_FAILED)


def complain(lines: list[str]) -> None:
    """Print what went wrong, and below it what to do."""
    click.echo("liveavatar-gateway: " + "\n  ".join(lines), err=True)


def explanation(error: "GatewayError", address: str, start: str = START) -> list[str]:
    """What happened, and the next step where there is one to tell."""
    from liveavatar.gateway import ConnectionLost, DeadlineExceeded  # noqa: PLC0415 - see above

    if isinstance(error, ConnectionLost):
        return [
            f"no gateway answers on {address}: {error.message}",
            f"{start}, or name it: --address HOST:PORT, and --tls if it has TLS",
        ]
    if isinstance(error, DeadlineExceeded):
        return [f"{address} did not answer in time: {error.message}", "try again; the gateway's log may say more"]
    lines = [f"{error.reason}: {error.message}" if error.reason else error.message]
    if error.reason in _NEXT_STEPS:
        lines.append(_NEXT_STEPS[error.reason])
    if error.retry_after is not None and error.reason not in _SAYS_WHEN:
        lines.append(f"the same call may succeed in {error.retry_after:g} s")
    return lines
