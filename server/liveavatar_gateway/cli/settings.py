"""Settings on the command line: shared options, and errors as people want to read them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from liveavatar_gateway.cli import output
from liveavatar_gateway.config import ConfigError, Settings, load

EX_CONFIG = 78
"""Exit code for a configuration that cannot be used (sysexits.h)."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with settings; the environment and flags go before it. [env: GATEWAY_CONFIG]",
)


def load_or_exit(config_file: Path | None, flags: dict[str, Any]) -> Settings:
    """Load the settings, or say what is wrong with them and exit with 78."""
    try:
        return load(file=config_file, flags=flags)
    except ConfigError as error:
        fail(str(error))


def fail(message: str, code: int = EX_CONFIG) -> NoReturn:
    """Print an error and exit, with 78 unless told otherwise."""
    output.fail(message, code)


def settings_options(function: _Function) -> _Function:
    """The flags that people change most; every other setting has its variable."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_OPTIONS = (
    click.option("--host", help="Address to listen on.  [default: 127.0.0.1]"),
    click.option("--port", type=int, help="Port for gRPC; 0 takes a free one.  [default: 50051]"),
    click.option("--api-url", help="LiveAvatar's API.  [default: https://api.liveavatar.com]"),
    click.option("--max-sessions", type=int, help="Your account's concurrency limit.  [default: 1]"),
    click.option("--tls-cert", "tls_cert_file", type=click.Path(path_type=Path), help="PEM certificate chain."),
    click.option("--tls-key", "tls_key_file", type=click.Path(path_type=Path), help="PEM private key."),
    click.option("--reflection/--no-reflection", default=None, help="Serve gRPC reflection.  [default: no]"),
    click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]"),
    click.option("--log-format", type=click.Choice(["console", "json"]), help="[default: console]"),
)
