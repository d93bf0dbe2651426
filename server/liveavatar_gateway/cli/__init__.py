"""The command line: arguments, environment and signals; everything else is elsewhere."""

import click

from liveavatar_gateway import __version__
from liveavatar_gateway.cli.check_config import check_config
from liveavatar_gateway.cli.serve import serve

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=_CONTEXT)
@click.version_option(__version__, package_name="liveavatar-gateway")
def main() -> None:
    """LiveAvatar Gateway: one typed gRPC contract for HeyGen LiveAvatar sessions.

    \b
    Try it without an account:   liveavatar-gateway demo
    Serve with your account:     LIVEAVATAR_API_KEY=... liveavatar-gateway serve
    Speak through it:            liveavatar-gateway say hello.wav --avatar AVATAR_ID

    Settings come from GATEWAY_* variables, a TOML file and flags; `check-config --help` lists them all.
    """


main.add_command(serve)
main.add_command(check_config)
