"""`liveavatar-gateway pool`: see and steer the pool of a running gateway, and plan its capacity."""

import click

from liveavatar_gateway.cli.pool_show import show
from liveavatar_gateway.cli.pool_simulate import simulate, trace
from liveavatar_gateway.cli.pool_verbs import drain, limit, pause, reload, resume


@click.group()
def pool() -> None:
    """See and steer accounts, shares of tenants and warm sessions, and plan their capacity.

    show, pause, resume, drain, limit and reload call a running gateway on GATEWAY_ADMIN_PORT; with authentication
    they need a credential with the role admin. What pause, resume, drain and limit decide holds for all processes
    on the registry, and over restarts if the registry is a file. simulate and trace need no gateway.

    \b
    See what is going on:                 liveavatar-gateway pool show --watch
    Stop new sessions on an account:      liveavatar-gateway pool pause main
    Empty it within ten minutes:          liveavatar-gateway pool drain main --grace 600
    Use it again:                         liveavatar-gateway pool resume main
    \b
    Try it without a trace of your own:   liveavatar-gateway pool trace morning > morning.csv
                                          liveavatar-gateway pool simulate morning.csv --account 25
    """  # noqa: D301 - \b keeps click from wrapping


for command in (show, pause, resume, drain, limit, reload, simulate, trace):
    pool.add_command(command)
