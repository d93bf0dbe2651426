"""Settings on the command line: shared options and error messages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from liveavatar_gateway.cli import output
from liveavatar_gateway.config import ConfigError, Settings, load

EX_CONFIG = 78
"""Exit code of an unusable configuration (sysexits.h)."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with settings; environment and flags take precedence. [env: GATEWAY_CONFIG]",
)


def load_or_exit(config_file: Path | None, flags: dict[str, Any]) -> Settings:
    """Load the settings, or print the error and exit with 78."""
    try:
        return load(file=config_file, flags=flags)
    except ConfigError as error:
        fail(str(error))


def fail(message: str, code: int = EX_CONFIG) -> NoReturn:
    """Print an error and exit, by default with 78."""
    output.fail(message, code)


def settings_options(function: _Function) -> _Function:
    """Add flags for the most used settings; all settings have variables."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_OPTIONS = (
    click.option("--host", help="Listen address.  [default: 127.0.0.1]"),
    click.option("--port", type=int, help="gRPC port; 0 selects a free port.  [default: 50051]"),
    click.option("--api-url", help="URL of LiveAvatar's API.  [default: https://api.liveavatar.com]"),
    click.option("--max-sessions", type=int, help="Concurrency limit of the account.  [default: 1]"),
    click.option("--tls-cert", "tls_cert_file", type=click.Path(path_type=Path), help="PEM certificate chain."),
    click.option("--tls-key", "tls_key_file", type=click.Path(path_type=Path), help="PEM private key."),
    click.option("--reflection/--no-reflection", default=None, help="Serve gRPC reflection.  [default: no]"),
    click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]"),
    click.option("--log-format", type=click.Choice(["console", "json"]), help="[default: console]"),
)
