"""`python -m chaos.run`: break everything under conversations, and check that nothing was lost and nothing leaked.

make chaos SEEDS=20       # 20 fresh seeds, a table at the end
make chaos SEED=7         # one again, as the message of a failed one says
"""

import argparse
import asyncio
import collections
import concurrent.futures
import dataclasses
import json
import multiprocessing
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from chaos.conversation import Caller, look_up
from chaos.faults import inject
from chaos.history import Recorded, Talk
from chaos.invariants import overlaps, timeline, violations
from chaos.schedule import KINDS, Fault, Plan, plan
from chaos.stage import Stage

from liveavatar.gateway import AsyncClient

_FRESH = random.SystemRandom()
GRACE_S = 25.0
"""The gateways' detach grace and 10 s: what is active upstream after that has leaked."""
MORE_S = 60.0
"""A drain, or a network that is down, may take up all of a short run; speech must be heard soon after it."""


@dataclasses.dataclass(slots=True)
class Result:
    """Result of one seed."""

    plan: Plan
    violations: list[str] = dataclasses.field(default_factory=list)
    injected: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    hit_nobody: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    ends: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    sessions: int = 0
    resumed: int = 0
    repeated_bytes: int = 0
    timelines: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """Commands that LiveAvatar received, by session and in order; evidence for a violation."""
    seconds: float = 0.0


async def run_seed(seed: int, *, seconds: float, callers: int, folder: Path) -> Result:
    """Play one seed.

    Args:
        seed: What faults and callers follow from.
        seconds: How long conversations are begun; up to `MORE_S` longer where too little was played until then.
        callers: How many talk at once.
        folder: Where history and logs go.
    """
    result = Result(plan(seed, seconds))
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as registry:
        stage = await asyncio.to_thread(Stage, result.plan.profile, Path(registry))
        talks: list[Talk] = []
        try:
            async with AsyncClient(stage.targets) as client:
                until_s = time.monotonic() + seconds

                def is_over() -> bool:
                    over_s = time.monotonic() - until_s
                    return over_s >= MORE_S or (over_s >= 0 and _played_count(talks) >= callers)

                talking = [
                    asyncio.create_task(Caller(number, seed, client, talks).talk_until(is_over))
                    for number in range(callers)
                ]
                breaking = asyncio.create_task(_break(stage, result))
                for ended in await asyncio.gather(*talking, return_exceptions=True):
                    if isinstance(ended, BaseException):
                        result.violations.append(f"a caller got an error that is none of the client's: {ended!r}")
                await breaking
                await look_up(client, talks)
            await _check(stage, talks, result)
        finally:
            await asyncio.to_thread(stage.close)
        _check_logs(stage, result)
    if (played := result.outcomes["played"]) < callers:
        result.violations.append(f"only {played} utterances were played, also {MORE_S:g} s after the faults")
    result.seconds = time.monotonic() - began_s
    _keep(folder, stage, talks, result)
    return result


def _played_count(talks: list[Talk]) -> int:
    return sum(said.outcome == "played" for talk in talks for said in talk.said)


async def _break(stage: Stage, result: Result) -> None:
    began_s = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for fault in result.plan.faults:
            await asyncio.sleep(began_s + fault.at_s - time.monotonic())
            tasks.create_task(_inject(stage, fault, result))


async def _inject(stage: Stage, fault: Fault, result: Result) -> None:
    try:
        hit = await inject(stage, fault)
    except Exception as error:  # noqa: BLE001  the seed has failed, and says how to play it again; others go on
        result.violations.append(f"fault {fault.kind!r} could not be done: {error!r}")
    else:
        (result.injected if hit else result.hit_nobody)[fault.kind] += 1


async def _check(stage: Stage, talks: list[Talk], result: Result) -> None:
    try:
        await asyncio.to_thread(stage.emulator.wait_active, 0, GRACE_S)
    except AssertionError as error:
        result.violations.append(f"a paid session outlived its owner: {error}")
    recordings = {
        talk.upstream_id: await asyncio.to_thread(_recorded, stage, talk.upstream_id)
        for talk in talks
        if talk.upstream_id
    }
    result.timelines = {
        talk.session_id: timeline(talk, recordings[talk.upstream_id]) for talk in talks if talk.upstream_id
    }
    found, result.repeated_bytes = violations(
        talks,
        recordings,
        misses_allowed=result.plan.misses_allowed,
    )
    result.violations += found + overlaps(_sockets(stage))
    result.sessions = sum(bool(talk.session_id) for talk in talks)
    result.resumed = sum(talk.resumed for talk in talks)
    for talk in talks:
        result.ends.update(talk.ends)
        result.outcomes.update(one.outcome for one in talk.said)


def _recorded(stage: Stage, upstream_id: str) -> Recorded:
    audio, recording, at = stage.emulator.audio(upstream_id), stage.emulator.session(upstream_id), 0
    packets = []
    for packet in recording["packets"]:
        packets.append((packet["arrived_at_s"], audio[at : at + packet["size_bytes"]]))
        at += packet["size_bytes"]
    commands = recording["commands"]
    interrupts = [command["at_s"] for command in commands if command["type"] == "agent.interrupt"]
    sockets = recording["sockets"]
    return Recorded(
        tuple(packets),
        tuple(interrupts),
        tuple(socket["opened_at_s"] for socket in sockets),
        tuple((command["at_s"], command["type"]) for command in commands),
        tuple(f"{one['opened_at_s']:.3f} to {one['closed_at_s']} {one['close_reason']}" for one in sockets),
    )


def _sockets(stage: Stage) -> list[tuple[str, float, float | None]]:
    """Address, beginning and end of each socket that a gateway opened."""
    found = []
    for one in stage.upstream.passed:
        method, _, rest = one.request.decode("latin-1").partition(" ")
        if method == "GET" and rest.startswith("/ws/"):
            found.append((rest.partition(" ")[0], one.began_s, one.ended_s))
    return found


def _check_logs(stage: Stage, result: Result) -> None:
    for node in stage.nodes:
        if node.exit_code:
            result.violations.append(f"{node.name} exited with {node.exit_code}")
        for log in node.logs:
            for word in ("session.crashed", "Traceback (most recent call last)"):
                if word in log:
                    result.violations.append(f"a gateway's log says {word!r}")


def _keep(folder: Path, stage: Stage, talks: list[Talk], result: Result) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for node in stage.nodes:
        for number, log in enumerate(node.logs, 1):
            (folder / f"{node.name}-{number}.log").write_text(log)
    history = [dataclasses.asdict(talk) for talk in talks]
    for talk in history:
        for one in talk["said"]:
            one["pcm"] = len(one["pcm"])
    report = {
        "plan": dataclasses.asdict(result.plan),
        "violations": result.violations,
        "hit_nobody": result.hit_nobody,
        "outcomes": result.outcomes,
        "ends": result.ends,
        "talks": history,
        "timelines": {
            session_id: lines
            for session_id, lines in result.timelines.items()
            if any(session_id in problem for problem in result.violations)
        },
    }
    (folder / "history.json").write_text(json.dumps(report, indent=1))


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m chaos.run",
        description="Break everything under conversations; check that nothing was lost and nothing leaked.",
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many; 5 have every fault (default 5)")
    parser.add_argument("--first", type=int, help="the first seed; without it, one that nobody chose")
    parser.add_argument("--lanes", type=int, default=1, help="seeds that are played at once (default 1)")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long sessions are opened (default 15)")
    parser.add_argument("--callers", type=int, default=10, help="how many talk at once (default 10)")
    parser.add_argument("--out", type=Path, default=Path("out/chaos"), help="where histories and logs go")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Run seeds; 0 when every invariant held in all."""
    arguments = _arguments(sys.argv[1:] if words is None else words)
    first = _FRESH.randrange(10**6) if arguments.first is None else arguments.first
    seeds = range(first, first + arguments.seeds)
    click.echo(f"seeds {seeds[0]} to {seeds[-1]}, {arguments.lanes} at once")
    results: list[Result] = []
    status = 0
    try:
        for result in _all_played(seeds, arguments):
            results.append(result)
            click.echo(_line(result))
            if result.violations:
                status = 1
                click.echo(_complaint(result, arguments))
    except KeyboardInterrupt:
        status = 130
        click.echo("\ninterrupted; what was seen until then:")
    click.echo(_table(results))
    return status


def _all_played(seeds: Sequence[int], arguments: argparse.Namespace) -> Iterator[Result]:
    """Play seeds in their order, in as many processes as there are lanes."""
    if arguments.lanes == 1:
        for seed in seeds:
            yield _played(seed, arguments)
        return
    spawned = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(arguments.lanes, mp_context=spawned) as lanes:
        yield from lanes.map(_played, seeds, [arguments] * len(seeds))


def _played(seed: int, arguments: argparse.Namespace) -> Result:
    """Play a seed; whatever breaks it off is a violation too, with the command that plays it again."""
    folder = arguments.out / f"seed-{seed}"
    try:
        return asyncio.run(run_seed(seed, seconds=arguments.seconds, callers=arguments.callers, folder=folder))
    except Exception as error:  # noqa: BLE001  shown; the seeds after it are played
        traceback.print_exc()
        return Result(plan(seed, arguments.seconds), [f"it broke off: {error!r}"])


def _complaint(result: Result, arguments: argparse.Namespace) -> str:
    seed, size = result.plan.seed, f"--seconds {arguments.seconds:g} --callers {arguments.callers}"
    return "\n".join(
        [
            *(f"    {problem}" for problem in result.violations[:10]),
            f"  again: make chaos SEED={seed} ARGS='{size}'",
            f"  history and logs: {arguments.out / f'seed-{seed}'}",
        ]
    )


def _line(result: Result) -> str:
    outcomes = ", ".join(f"{count} {name or 'without end'}" for name, count in sorted(result.outcomes.items()))
    verdict = f"{len(result.violations)} VIOLATIONS" if result.violations else "held"
    return (
        f"seed {result.plan.seed:3}  {result.plan.profile:9}  {result.seconds:4.0f} s  "
        f"{result.sessions:3} sessions, {result.resumed} resumed  utterances: {outcomes}; "
        f"{result.repeated_bytes} bytes twice  {verdict}"
    )


def _table(results: list[Result]) -> str:
    total: collections.Counter[str] = collections.Counter()
    survived: collections.Counter[str] = collections.Counter()
    for result in results:
        total += result.injected
        if not result.violations:
            survived += result.injected
    lines = [f"{'fault':45} injected  in seeds that held"]
    lines += [f"{kind:45} {total[kind]:8}  {survived[kind]:8}" for kind in KINDS]
    if nobody := sum((result.hit_nobody for result in results), collections.Counter[str]()):
        lines.append("hit nobody: " + ", ".join(f"{kind} ({count})" for kind, count in nobody.items()))
    broken = sum(bool(result.violations) for result in results)
    twice = [result.repeated_bytes for result in results]
    if any(twice):
        lines.append(
            f"said twice behind lost sockets, within the bound or named above: {sum(twice)} bytes in "
            f"{sum(bool(one) for one in twice)} seeds, at most {max(twice)} in one"
        )
    lines.append(f"{len(results)} seeds, {broken} with violations")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
