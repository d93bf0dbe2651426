"""Run from start to end: services, load, faults, samples, sessions left upstream, and the result."""

import contextlib
import ipaddress
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import httpx

from liveavatar_demo.emulator_control import EmulatorControl
from load.fault_player import FaultPlayer
from load.locust_process import LocustProcess
from load.machine import description, steal_s
from load.result import GeneratorHealth, RunResult
from load.run_config import Began, Report, RunConfig
from load.sampler import Sampler, Seen
from load.timeline import Timeline
from stage import services
from stage.cores import choose_cores, on_cores
from stage.daemon import Daemon, tail
from stage.errors import StageError

_SESSIONS: Final = 5000
"""Capacity of the emulator's account and of the gateway: never the limit of a run, unless a fault lowers it."""
_KEEP_AUDIO_MB: Final = 256
"""Audio that the emulator keeps, so that an integrity failure can name the first byte that differs."""
_SECRET: Final = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL")
"""Names of settings whose values reports leave out."""
_POLL_S: Final = 0.2
_LEAK_GRACE_S: Final = 10.0
"""Longest time from the end of the load to the end of the last session upstream: a stop with its retries."""
_STOP_WITHIN_S: Final = 20.0
_BEGUN_WITHIN_S: Final = 120.0
_LOST_AFTER_S: Final = 120.0
"""A generator that has not ended this long after its arrivals hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Configuration of a run and of its processes."""

    config: RunConfig
    folder: Path
    """Folder for logs, Locust's own statistics and the result."""
    embedded: bool = True
    """Start gateway and emulator for the run, instead of loading those that `config` names."""
    gateway_command: str = ""
    """Command of the embedded gateway; this checkout's when empty."""
    processes: int = 1
    """Processes that generate load here."""
    expect_workers: int = 0
    """Workers that come over the network instead."""
    bind: str = "127.0.0.1:5557"
    """Address for those workers."""
    web: str = ""
    """Address of Locust's page during the run, `host:port`; empty for no page."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run."""

    phase: str
    at_s: float = 0.0
    """Seconds since the schedule's zero."""
    seconds: float = 0.0
    """Length of its arrivals."""
    last: Seen | None = None
    cpu_share: float | None = None
    """Share of a core that the gateway took since the last look."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """Services of a run."""

    config: RunConfig
    generator_cores: tuple[int, ...]
    emulator: Daemon | None = None
    gateway: Daemon | None = None

    def check(self) -> None:
        """Make sure that all that was started still runs.

        Raises:
            StageError: something does not.
        """
        for daemon in filter(None, (self.gateway, self.emulator)):
            daemon.check()


def perform(plan: Plan, on_progress: Callable[[Progress], None]) -> RunResult:
    """Carry out a plan.

    Ctrl-C ends it early: the load stops, the measurements until then are the result, and its environment says
    "interrupted".

    Args:
        plan: Configuration of the run.
        on_progress: Called with the progress, several times a second.

    Raises:
        StageError: it could not be carried out; logs are in the plan's folder.
        EmulatorError: the emulator does not answer, or refuses.
        TimelineError: the timeline of faults cannot be played.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    timeline = Timeline.read(plan.config.faults)
    on_progress(Progress("starting"))
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(_stage(plan))
        control = stack.enter_context(EmulatorControl(stage.config.emulator)) if stage.config.emulator else None
        fault_player = stack.enter_context(FaultPlayer(timeline, control))
        active_before = control.active() if control else 0
        sampler = None
        if stage.gateway and control:
            looks = Sampler(stage.gateway.pid, control, stage.gateway.info.get("metrics"))
            sampler = stack.enter_context(looks)
        steal_before = steal_s()
        interrupted = _load(plan, stage, fault_player, sampler, on_progress)
        report = _report(stage.config)
        on_progress(Progress("checking for leaks", report.duration_s, report.duration_s))
        left = None if control is None or interrupted else _left_upstream(control, active_before)
        steal_after = steal_s()
        for problem in filter(None, (fault_player.problem, sampler and not interrupted and sampler.problem)):
            raise StageError(str(problem))
        return RunResult(
            scenario=stage.config.scenario,
            target=stage.config.target,
            embedded=plan.embedded,
            started_at=report.started_at,
            duration_s=report.duration_s,
            measured=report.measured,
            generator=GeneratorHealth(
                lag_p99_ms=report.lag_p99_ms,
                lag_max_ms=report.lag_max_ms,
                cpu_share=report.cpu_share,
                core_steal=_share(steal_before, steal_after),
            ),
            samples=[seen.sample(report.started_mono_s) for seen in (sampler.seen if sampler else [])],
            left_upstream=left,
            faults=fault_player.played,
            environment=_environment(plan, stage, report, interrupted=interrupted),
        )


@contextlib.contextmanager
def _stage(plan: Plan) -> Iterator[_Stage]:
    cores = _cores()
    if not plan.embedded:
        one_clock = plan.config.one_clock or _on_this_machine(plan.config)
        yield _Stage(replace(plan.config, one_clock=one_clock), ())
        return
    others = cores[1:]
    knobs = {"keep_audio_mb": _KEEP_AUDIO_MB / 8, "keep_audio_total_mb": _KEEP_AUDIO_MB}
    with (
        on_cores(others),
        services.emulator(sessions=_SESSIONS, cores=others, workdir=plan.folder, knobs=knobs) as emulator,
        services.gateway(
            str(emulator.info["url"]),
            sessions=_SESSIONS,
            cores=cores[:1],
            workdir=plan.folder,
            command=plan.gateway_command,
        ) as gateway,
    ):
        config = replace(
            plan.config,
            target=str(gateway.info["address"]),
            emulator=str(emulator.info["url"]),
            api_key=services.API_KEY,
            one_clock=True,
        )
        yield _Stage(config, others, emulator, gateway)


def _cores() -> tuple[int, ...]:
    """Return the cores, the gateway's first; none where processes cannot be pinned or would share a core."""
    try:
        cores = choose_cores()
    except StageError:
        return ()
    return (cores.measured, *cores.others)


def _on_this_machine(config: RunConfig) -> bool:
    """Return whether the emulator's monotonic clock is this machine's."""
    host = httpx.URL(config.emulator).host if config.emulator else ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _load(
    plan: Plan,
    stage: _Stage,
    fault_player: FaultPlayer,
    sampler: Sampler | None,
    on_progress: Callable[[Progress], None],
) -> bool:
    """Let the generator do its work; True when it was interrupted."""
    generator = LocustProcess(
        stage.config,
        cores=stage.generator_cores,
        folder=plan.folder,
        processes=plan.processes,
        expect_workers=plan.expect_workers,
        bind=plan.bind,
        web=plan.web,
    )
    interrupted = False
    with generator:
        try:
            _watch(stage, generator, fault_player, sampler, on_progress)
        except KeyboardInterrupt:
            interrupted = True
            on_progress(Progress("interrupted: waiting for what was begun"))
            generator.stop(within_s=_STOP_WITHIN_S)
        if not interrupted:
            generator.check()
    return interrupted


def _watch(
    stage: _Stage,
    generator: LocustProcess,
    fault_player: FaultPlayer,
    sampler: Sampler | None,
    on_progress: Callable[[Progress], None],
) -> None:
    started_s = time.monotonic()
    began: Began | None = None
    while not generator.over:
        time.sleep(_POLL_S)
        stage.check()
        began = began or Began.load(stage.config)
        if began is None:
            if time.monotonic() > started_s + _BEGUN_WITHIN_S:
                raise StageError(f"no load began within {_BEGUN_WITHIN_S:g} s\n{tail(generator.log)}")
            continue
        fault_player.begin(began.started_mono_s)
        at_s = time.monotonic() - began.started_mono_s
        if at_s > began.seconds + _LOST_AFTER_S:
            raise StageError(
                f"the generator still runs {_LOST_AFTER_S:g} s after its last arrival\n{tail(generator.log)}"
            )
        on_progress(_progress(at_s, began.seconds, sampler))


def _progress(at_s: float, seconds: float, sampler: Sampler | None) -> Progress:
    seen = list(sampler.seen[-2:]) if sampler else []
    share = None
    if len(seen) == 2:
        share = (seen[1].cpu_s - seen[0].cpu_s) / (seen[1].at_mono_s - seen[0].at_mono_s)
    phase = "load" if at_s <= seconds else "drain"
    return Progress(phase, at_s, seconds, seen[-1] if seen else None, share)


def _report(config: RunConfig) -> Report:
    path = Path(config.report)
    if not path.exists():
        raise StageError(f"the generator left no report at {path}; nothing was measured")
    return Report.load(path)


def _left_upstream(control: EmulatorControl, before: int) -> int:
    """Return the number of sessions still active upstream after a grace, without those that were active before."""
    give_up_s = time.monotonic() + _LEAK_GRACE_S
    while (left := max(0, control.active() - before)) and time.monotonic() < give_up_s:
        time.sleep(_POLL_S)
    return left


def _share(before: tuple[float, float], after: tuple[float, float]) -> float:
    return (after[0] - before[0]) / max(1e-9, after[1] - before[1])


def _environment(plan: Plan, stage: _Stage, report: Report, *, interrupted: bool) -> dict[str, str]:
    config = stage.config
    gateway = {name: value for name, value in os.environ.items() if name.startswith("GATEWAY_")}
    shown = {
        **description(),
        "seed": str(config.seed),
        "processes of the generator": str(report.workers),
        "pinned": "gateway alone on its core" if stage.generator_cores else "no",
        **({"gateway command": plan.gateway_command} if plan.gateway_command else {}),
        **{name: value for name, value in gateway.items() if not _SECRET.search(name)},
    }
    for name in ("users", "seconds", "rate", "chunk_ms"):
        if value := getattr(config, name):
            shown[name] = f"{value:g}"
    return {**shown, "interrupted": "yes"} if interrupted else shown
