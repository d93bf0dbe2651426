"""Connection to a running gateway, and the next step for each of its errors."""

import asyncio
import contextlib
import functools
import ipaddress
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar, cast

import click
from click.core import ParameterSource

from liveavatar_gateway.cli.output import EX_FAILED, fail, print_line
from liveavatar_gateway.cli.show import span

if TYPE_CHECKING:
    # For type checking only: gRPC imports slowly, and `--help` should be fast.
    import grpc

    from liveavatar.gateway import TLS, GatewayError

_Function = TypeVar("_Function", bound=Callable[..., Any])

KEY_VARIABLE: Final = "LIVEAVATAR_GATEWAY_KEY"
KEY_FILE_VARIABLE: Final = "LIVEAVATAR_GATEWAY_KEY_FILE"
TOKEN_FILE_VARIABLE: Final = "LIVEAVATAR_GATEWAY_TOKEN_FILE"  # noqa: S105 - a name, no secret

_ANOTHER: Final = "or name a running one: --address HOST:PORT"
_TRUST: Final = (
    "with --tls the system must trust the gateway's certificate; --ca FILE names the authority that has signed "
    "it, and --address HOST:PORT a host that it names"
)
_BY_TEXT: Final = (
    ("CERTIFICATE_VERIFY_FAILED", _TRUST),
    ("Hostname Verification", _TRUST),
    (
        "Socket closed",
        (
            "the port may use TLS (--ca FILE, or --tls), or ask for another certificate (--client-cert and "
            f"--client-key); {_ANOTHER}"
        ),
    ),
)
"""Next steps if gRPC's text names the cause for which no connection was made."""

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
    "CREDENTIAL_MISSING": f"name one: --api-key-file FILE or --token-file FILE, or set {KEY_VARIABLE}",
    "CREDENTIAL_INVALID": "check the file; the operator compares keys with `liveavatar-gateway keys list`, tokens "
    "with [[issuers]] in the file of tenants, and certificates with its [[tenants.NAME.certificates]]",
    "CREDENTIAL_EXPIRED": "ask the operator of the gateway for a new credential",
    "ROLE_MISSING": "use a credential with this role; the operator makes one with `liveavatar-gateway keys make`",
    "TENANT_SUSPENDED": "ask the operator of the gateway, who has suspended this tenant",
    "INTERNAL": "report it with the incident number, under which the gateway's log has the details",
}


_HAS_RETRY_TIME: Final = ("DRAINING",)
"""Reasons whose message already names the time of a retry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Gateway of a command, and the credentials for it."""

    address: str
    credential: str | Path | None = field(default=None, repr=False)
    """API key, or the file of a key or token. None: none."""
    tls: bool = False
    ca: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    allow_plaintext: bool = False

    def arguments(self) -> "ClientArguments":
        """Return the arguments of a client, or print what is wrong with the files and exit."""
        from liveavatar.gateway import TLS  # noqa: PLC0415 - keeps `--help` fast
        from liveavatar.gateway.tls import ChannelSecurity  # noqa: PLC0415

        tls: TLS | bool = self.tls
        if self.ca is not None or self.client_cert is not None or self.client_key is not None:
            tls = TLS(ca_file=self.ca, certificate_file=self.client_cert, key_file=self.client_key)
            try:
                ChannelSecurity(tls)
            except (OSError, ValueError) as error:
                fail(str(error))
        return {"credentials": self.credential, "tls": tls, "allow_plaintext": self.allow_plaintext}


class ClientArguments(TypedDict):
    """Keywords of `Client` and `AsyncClient`."""

    credentials: str | Path | None
    tls: "TLS | bool"
    allow_plaintext: bool


def connection_options(function: _Function) -> _Function:
    """Add the options that name the gateway, and pass them on as `target`."""
    return _options("127.0.0.1:50051", "Address of the gateway, HOST:PORT.")(function)


def admin_options(function: _Function) -> _Function:
    """Add the options that name the gateway's AdminService, and pass them on as `target`."""
    return _options("127.0.0.1:50052", "Address of AdminService (GATEWAY_ADMIN_PORT), HOST:PORT.")(function)


def _options(address: str, what: str) -> Callable[[_Function], _Function]:
    def add(function: _Function) -> _Function:
        @functools.wraps(function)
        def command(*args: Any, api_key_file: Path | None, token_file: Path | None, **options: Any) -> Any:
            mine = {name: options.pop(name) for name in _TARGET_NAMES}
            credential = _credential(api_key_file, token_file)
            return function(*args, target=Target(credential=credential, **mine), **options)

        decorated: Any = command
        for option in reversed(_CREDENTIAL_OPTIONS):
            decorated = option(decorated)
        named = click.option("--address", default=address, show_default=True, callback=_checked_address, help=what)
        return cast("_Function", named(decorated))

    return add


def _credential(api_key_file: Path | None, token_file: Path | None) -> str | Path | None:
    """Return the credential of a command; an option takes precedence over the environment.

    Raises:
        UsageError: several options, or several variables, name a credential.
    """
    ctx = click.get_current_context()
    files = {"api_key_file": api_key_file, "token_file": token_file}
    by_option = [name for name in files if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    found: list[str | Path | None] = [files[name] for name in by_option]
    names = "--api-key-file, --token-file"
    if not found:
        found = [os.environ.get(KEY_VARIABLE) or None, *files.values()]
        names = f"{KEY_VARIABLE}, {KEY_FILE_VARIABLE}, {TOKEN_FILE_VARIABLE}"
    given = [one for one in found if one is not None]
    if len(given) > 1:
        raise click.UsageError(f"a call has one credential, so use only one of {names}")
    return given[0] if given else None


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


_FILE: Final = click.Path(path_type=Path, dir_okay=False, exists=True)

_CREDENTIAL_OPTIONS: Final = (
    click.option(
        "--api-key-file",
        type=_FILE,
        envvar=KEY_FILE_VARIABLE,
        show_envvar=True,
        help=f"File with the API key. {KEY_VARIABLE} may hold the key itself; no option does, since command lines "
        "are visible to other users.",
    ),
    click.option(
        "--token-file",
        type=_FILE,
        envvar=TOKEN_FILE_VARIABLE,
        show_envvar=True,
        help="File with a JSON web token, read again when the gateway refuses it.",
    ),
    click.option("--tls", is_flag=True, help="Use TLS; the system must trust the gateway's certificate."),
    click.option(
        "--ca",
        type=_FILE,
        help="PEM file with the certificates to trust instead of the system's; implies --tls.",
    ),
    click.option(
        "--client-cert",
        type=_FILE,
        help="PEM file with this client's certificate, for a port that asks for one; implies --tls.",
    ),
    click.option("--client-key", type=_FILE, help="PEM file with the private key of --client-cert."),
    click.option(
        "--allow-plaintext",
        is_flag=True,
        help="Send the credential without TLS to another machine, where the network itself encrypts.",
    ),
)

_TARGET_NAMES: Final = ("address", "tls", "ca", "client_cert", "client_key", "allow_plaintext")


@contextlib.contextmanager
def channel(target: Target, start: str = START) -> Iterator["grpc.Channel"]:
    """Open a channel for calls that the client library lacks, with errors explained as for other calls."""
    import grpc  # noqa: PLC0415 - keeps `--help` fast

    from liveavatar.gateway.credentials import Credentials  # noqa: PLC0415 - keeps `--help` fast
    from liveavatar.gateway.refusals import from_rpc_error  # noqa: PLC0415
    from liveavatar.gateway.tls import ChannelSecurity, require_encryption  # noqa: PLC0415
    from liveavatar_gateway.cli.bearer import BearerInterceptor  # noqa: PLC0415

    arguments = target.arguments()
    with explained_errors(target.address, start):
        security = ChannelSecurity(arguments["tls"])
        if target.credential is not None and not target.allow_plaintext:
            require_encryption(target.address, security)
        bearer = asyncio.run(Credentials(target.credential).current())
        channel_credentials = security.credentials()
        opened = (
            grpc.secure_channel(target.address, channel_credentials)
            if channel_credentials
            else grpc.insecure_channel(target.address)
        )
        with opened as connected:
            try:
                yield grpc.intercept_channel(connected, BearerInterceptor(bearer.metadata))
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
    first, *others = lines
    print_line(f"liveavatar-gateway: {first}", err=True)
    for line in others:
        print_line(f"  {line}", err=True)


def explanation(error: "GatewayError", address: str, start: str = START) -> list[str]:
    """Return the error's message, and the next step if known."""
    before = _explanation_of_no_answer(error, address, start)
    if before:
        return before
    if error.code.name == "UNIMPLEMENTED":
        return [
            f"{address} does not serve this call: {error.message}",
            "call another port: `admin` and `usage` are served on GATEWAY_ADMIN_PORT, all else on GATEWAY_PORT",
        ]
    lines = [f"{error.reason}: {error.message}" if error.reason else error.message]
    if error.reason in _NEXT_STEPS:
        lines.append(_NEXT_STEPS[error.reason])
    if error.retry_after is not None and error.reason not in _HAS_RETRY_TIME:
        # Rounded up, so that less than a second is not shown as none.
        lines.append(f"retry in {span(timedelta(seconds=math.ceil(error.retry_after)))}")
    return lines


def _explanation_of_no_answer(error: "GatewayError", address: str, start: str) -> list[str]:
    """Return the explanation of an error that the gateway itself did not send; empty for its own."""
    from liveavatar.gateway import (  # noqa: PLC0415 - keeps `--help` fast
        ConnectionLost,
        DeadlineExceeded,
        PermissionDenied,
        PlaintextRefused,
        TokenUnavailable,
        Unauthenticated,
    )

    if isinstance(error, PlaintextRefused):
        return [
            f"the credential would travel to {address} in plaintext",
            "add --tls or --ca FILE; or --allow-plaintext if the network itself encrypts",
        ]
    if isinstance(error, TokenUnavailable):
        return [f"the file of the credential cannot be used: {error.__cause__ or error.message}"]
    if isinstance(error, Unauthenticated | PermissionDenied):
        return [f"refused before it reached the gateway: {error.message}", "a proxy asks for another credential"]
    if isinstance(error, ConnectionLost):
        return [
            f"no gateway answers on {address}: {error.message}",
            next(
                (step for text, step in _BY_TEXT if text in error.message),
                f"{start}, {_ANOTHER}, and --ca FILE or --tls if it uses TLS",
            ),
        ]
    if isinstance(error, DeadlineExceeded):
        return [
            f"{address} did not answer in time: {error.message}",
            "try again; the gateway's log may have details",
        ]
    return []
