"""`make attack`: every attack on a gateway, beside a caller that talks.

make attack                          # all of them, three times each
make attack ARGS="--only frames"     # those whose names contain this text
"""

import sys

import click

from security.catalog import ATTACKS
from security.trial import Extent, try_all


@click.command()
@click.option("--only", default="", help="Run the attacks whose names contain this text.")
@click.option("--seconds", default=5.0, show_default=True, help="Duration of each of the three repetitions.")
@click.option("--quiet", default=3.0, show_default=True, help="Time without an attack before each one.")
def main(only: str, seconds: float, quiet: float) -> None:
    """Attack a gateway; exit 1 if an attack hurts its victim or the process."""
    chosen = [attack for attack in ATTACKS if only in attack.title]
    if not chosen:
        raise click.BadParameter(
            f"no attack is named like {only!r}; there are {', '.join(one.title for one in ATTACKS)}"
        )
    bad = 0
    for number, tried in enumerate(try_all(chosen, Extent(attack_s=seconds, quiet_s=quiet)), 1):
        problems = tried.problems()
        bad += bool(problems)
        verdict = "FAIL" if problems else "ok  "
        click.echo(f"[{number}/{len(chosen)}] {verdict} {tried.attack.title}: {tried}")
        for problem in problems:
            click.echo(f"          {problem}")
    click.echo(f"{len(chosen) - bad} of {len(chosen)} attacks did no harm")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
