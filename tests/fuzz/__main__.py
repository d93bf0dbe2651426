"""`make fuzz`: everything that a caller and LiveAvatar could say, to a gateway that must stand it.

make fuzz                                   # a minute with a fresh seed
make fuzz ARGS="--inputs 1000000"           # the long run
make fuzz ARGS="--kind events --seed 7"     # one kind, a certain seed
make fuzz ARGS="--case 7/events/12"         # one case again
"""

import random
import sys
from pathlib import Path

import click

from fuzz import shrinking, trial
from fuzz.cases import KINDS, Case, make
from fuzz.player import Finding

CORPUS = Path(__file__).parent / "corpus"


@click.command()
@click.option("--seconds", type=float, help="Duration; a minute unless --inputs is given.")
@click.option("--inputs", type=int, help="Number of inputs.")
@click.option("--seed", type=int, help="Seed of the inputs; without it, the seed is fresh and printed.")
@click.option(
    "--kind", "kinds", type=click.Choice(tuple(KINDS)), multiple=True, help="Kind of inputs; all by default."
)
@click.option("--case", "name", help="Play one case again, named SEED/KIND/NUMBER or by its file.")
@click.option("--keep/--no-keep", default=True, help="Write what finds something to the corpus.")
def main(
    *,
    seconds: float | None,
    inputs: int | None,
    seed: int | None,
    kinds: tuple[str, ...],
    name: str | None,
    keep: bool,
) -> None:
    """Fuzz a gateway; exit 1 if anything is found."""
    if name is not None:
        sys.exit(_play_again(name))
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    if seconds is None and inputs is None:
        seconds = 60.0
    click.echo(f"fuzz: seed {seed}, {f'{inputs} inputs' if inputs is not None else f'{seconds:g} s'}")
    result = trial.run(
        seconds=seconds,
        inputs=inputs,
        seed=seed,
        kinds=kinds or tuple(KINDS),
        progress=lambda line: click.echo(f"      {line}", err=True),
    )
    click.echo(str(result))
    for status, count in sorted(result.tally.statuses.items()):
        click.echo(f"      {count:8} {status}")
    problems = result.problems()
    for problem in problems:
        click.echo(f"FOUND {problem}")
    if result.is_interrupted:
        click.echo("fuzz: interrupted")
        sys.exit(130 if not problems else 1)
    for finding in result.tally.findings if keep else ():
        _keep(finding)
    sys.exit(1 if problems else 0)


def _keep(finding: Finding) -> None:
    click.echo(f"      looking for the inputs of {finding.problem} ...", err=True)
    kept = shrinking.shrink(finding)
    if kept is None:
        names = " ".join(case.name for case in finding.cases[:3])
        click.echo(f"FOUND by no case alone; played at that time were {names} ...")
    else:
        click.echo(f"KEPT  {_write(kept)}: {kept.size} inputs")


def _play_again(name: str) -> int:
    path = Path(name)
    if path.is_file():
        case = Case.load(path)
    else:
        seed, kind, number = name.split("/")
        case = make(int(seed), kind, int(number))
    findings = trial.replay([case])
    for finding in findings:
        click.echo(f"FOUND {finding.problem}\n{finding.detail}")
    click.echo(f"{name}: {case.size} inputs, {len(findings)} findings")
    return 1 if findings else 0


def _write(case: Case) -> Path:
    folder = CORPUS / case.kind
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case.name.replace('/', '-')}.json"
    path.write_text(case.dumps(), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
