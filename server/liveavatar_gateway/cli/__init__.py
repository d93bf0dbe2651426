"""Command line: arguments, environment and signals."""

import gc
import importlib
from typing import Any, Final

import click

from liveavatar_gateway import __version__
from liveavatar_gateway.escaping import escaped

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

COMMANDS: Final = {
    "demo": ("demo", "Run a complete call against an emulator, without account or key."),
    "serve": ("serve", "Serve until SIGTERM or Ctrl-C, then drain."),
    "check-config": ("check_config", "Check the configuration and print the settings in effect."),
    "say": ("say", "Speak a WAV file through a running gateway."),
    "sessions": ("sessions", "List, show, watch and end the sessions of a running gateway."),
    "avatars": ("avatars", "List the avatars that the caller may use."),
    "keys": ("keys", "Make, list and revoke the API keys of tenants."),
    "usage": ("usage", "Show billed minutes, sessions and played time of tenants."),
    "pool": ("pool", "See and steer accounts, queue and warm sessions; simulate a day's callers."),
    "admin": ("admin", "Operate a running gateway: drain, undrain, status, eject."),
}
"""Module and summary of each command, in the order of the help; the command object is named like its module."""


class _Lazy(click.Group):
    """Group that imports a command when it runs, so that `--help` and `say` load no server libraries."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Errors of usage may repeat what a shell has expanded, such as the name of a file."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            # Declared final, but `show` of each class formats it in a way of its own.
            vars(error)["message"] = escaped(error.message)
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        name, _ = COMMANDS[cmd_name]
        # Modules are never garbage: collections during their import, and later ones among them, find nothing.
        gc.disable()
        try:
            module = importlib.import_module(f"{__name__}.{name}")
        finally:
            gc.freeze()
            gc.enable()
        command: click.Command = getattr(module, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings=_CONTEXT)
@click.version_option(__version__, package_name="liveavatar-gateway")
def main() -> None:
    """LiveAvatar Gateway: one typed gRPC contract for HeyGen LiveAvatar sessions.

    \b
    Try it without an account:   liveavatar-gateway demo
    Serve with your account:     LIVEAVATAR_API_KEY=... liveavatar-gateway serve
    Speak through it:            liveavatar-gateway say hello.wav --avatar AVATAR_ID

    Settings come from GATEWAY_* variables, a TOML file and flags; `check-config --help` lists them all.
    """  # noqa: D301 - \b keeps click from wrapping
