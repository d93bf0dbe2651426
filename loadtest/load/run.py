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
from load.behaviours import expected_s
from load.fault_player import FaultPlayer
from load.floor_talk import FloorTalk
from load.gateway import AVATAR_ID
from load.locust_process import LocustProcess
from load.machine import description, steal_s
from load.noisy import Flooding
from load.noisy_process import NoisyProcess
from load.result import GeneratorHealth, RunResult
from load.run_config import Began, Report, RunConfig, discard_previous
from load.sampler import Sampler, Seen
from load.scenarios import SCENARIOS, scenario_of
from load.timeline import Timeline
from stage import services
from stage.cores import choose_cores, on_cores
from stage.daemon import Daemon, tail
from stage.errors import StageError
from stage.pool_file import pool_file
from stage.tenants import NOISY, QUOTAS, tenants

_SESSIONS: Final = 5000
"""Capacity of the emulator's account and of the gateway: never the limit of a run, unless a fault lowers it."""
_KEEP_AUDIO_MB: Final = 256
"""Audio that the emulator keeps, so that an integrity failure can name the first byte that differs."""
_SECRET: Final = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL")
"""Names of settings whose values reports leave out."""
_POLL_S: Final = 0.2
_LEAK_GRACE_S: Final = 10.0
"""Longest time from the end of the load to the end of the last session upstream: a stop with its retries."""
_ANSWER_WITHIN_S: Final = 10.0
_WARM_GAUGE: Final = "gateway_warm_sessions{"
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
    warm: bool = False
    """Keep sessions warm, as the scenario says."""
    floor: bool = False
    """Talk with a floor beside the gateway, where processes can be pinned."""
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
    noisy: NoisyProcess | None = None
    """Process of the tenant that floods the gateway; None in most scenarios."""
    floor: FloorTalk | None = None
    """Talk with a floor; None without one."""

    def begin(self, zero_mono_s: float) -> None:
        """Begin what follows the schedule besides the generator; a second call changes nothing."""
        if self.noisy is not None:
            self.noisy.begin(zero_mono_s)

    def check(self) -> None:
        """Make sure that all that was started still runs.

        Raises:
            StageError: something does not.
        """
        for daemon in filter(None, (self.gateway, self.emulator, self.floor)):
            daemon.check()
        if self.noisy is not None:
            self.noisy.check()


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
    discard_previous(plan.config)
    timeline = Timeline.read(plan.config.faults)
    on_progress(Progress("starting"))
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(_stage(plan))
        control = None
        if stage.config.emulator:
            token = stage.config.control_token()
            control = stack.enter_context(EmulatorControl(stage.config.emulator, token=token))
        fault_player = stack.enter_context(FaultPlayer(timeline, control))
        active_before = control.active() if control else 0
        sampler = None
        if stage.gateway and control:
            looks = Sampler(stage.gateway.pid, control, stage.gateway.info.get("metrics"))
            sampler = stack.enter_context(looks)
        steal_before = steal_s()
        interrupted = _load(plan, stage, fault_player, sampler, on_progress)
        floor = None if stage.floor is None else stage.floor.cost
        report = _report(stage.config)
        if stage.noisy is not None:
            report.measured.merge(stage.noisy.finish(within_s=0.0 if interrupted else _STOP_WITHIN_S))
        on_progress(Progress("checking for leaks", report.duration_s, report.duration_s))
        left = None if control is None or interrupted else _left_upstream(control, active_before, _warm_of(stage))
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
            floor=floor,
            faults=fault_player.played,
            noisy=scenario_of(stage.config, expected_s).windows(),
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
    scenario = SCENARIOS[plan.config.scenario]
    sessions = scenario.slots or _SESSIONS
    knobs["ready_delay_ms"] = scenario.ready_ms
    with (
        _callers(plan.config) as (settings, key_files),
        _warm(plan, sessions) as warm,
        on_cores(others),
        services.emulator(sessions=sessions, cores=others, workdir=plan.folder, knobs=knobs) as emulator,
        services.gateway(
            str(emulator.info["url"]),
            sessions=sessions,
            cores=cores[:1],
            workdir=plan.folder,
            command=plan.gateway_command,
            settings=settings | warm,
        ) as gateway,
    ):
        config = replace(
            plan.config,
            target=str(gateway.info["address"]),
            emulator=str(emulator.info["url"]),
            api_key=services.API_KEY,
            key_files=key_files,
            one_clock=True,
        )
        with _neighbour(config, plan.folder, others) as noisy, _floor(plan, cores) as floor:
            yield _Stage(config, others, emulator, gateway, noisy, floor)


@contextlib.contextmanager
def _floor(plan: Plan, cores: tuple[int, ...]) -> Iterator[FloorTalk | None]:
    """Talk with a floor, if the run wants one."""
    if not (plan.floor and cores):
        yield None
        return
    with FloorTalk(measured=cores[:1], cores=cores[1:], workdir=plan.folder) as floor:
        yield floor


@contextlib.contextmanager
def _neighbour(config: RunConfig, folder: Path, cores: tuple[int, ...]) -> Iterator[NoisyProcess | None]:
    """Start the process of the tenant that floods the gateway, if the scenario has one."""
    scenario = scenario_of(config, expected_s)
    if not scenario.neighbour:
        yield None
        return
    flooding = Flooding(
        target=config.target,
        emulator=config.emulator,
        key_file=config.key_files.split(os.pathsep)[list(QUOTAS).index(NOISY)],
        one_clock=config.one_clock,
        seed=config.seed,
        windows=tuple(scenario.windows()),
    )
    with NoisyProcess(flooding, cores=cores, folder=folder) as noisy:
        yield noisy


@contextlib.contextmanager
def _warm(plan: Plan, sessions: int) -> Iterator[dict[str, str]]:
    """Yield the settings of a gateway that keeps sessions warm, or none."""
    if not plan.warm:
        yield {}
        return
    most = SCENARIOS[plan.config.scenario].warm
    with pool_file(sessions=sessions, warm=most, avatar_id=AVATAR_ID) as file:
        yield {"GATEWAY_POOL_FILE": str(file)}


@contextlib.contextmanager
def _callers(config: RunConfig) -> Iterator[tuple[dict[str, str], str]]:
    """Yield the settings of the gateway for the scenario's callers, and the files of their keys."""
    if not SCENARIOS[config.scenario].neighbour:
        yield {}, config.key_files
        return
    with tenants() as files:
        yield {"GATEWAY_AUTH_FILE": str(files.file)}, os.pathsep.join(map(str, files.key_files))


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
        stage.begin(began.started_mono_s)
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


def _warm_of(stage: _Stage) -> Callable[[], int]:
    """Return a function that counts the gateway's warm sessions, those that start included."""
    metrics = stage.gateway.info.get("metrics") if stage.gateway else None

    def count() -> int:
        if not metrics:
            return 0
        lines = httpx.get(str(metrics), timeout=_ANSWER_WITHIN_S).text.splitlines()
        return sum(round(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith(_WARM_GAUGE))

    return count


def _left_upstream(control: EmulatorControl, before: int, warm: Callable[[], int]) -> int:
    """Return the number of sessions still active upstream after a grace that nobody accounts for.

    Args:
        control: Emulator.
        before: Number of sessions that were active before the run.
        warm: Counts the sessions that the gateway keeps warm: they are there on purpose.
    """
    give_up_s = time.monotonic() + _LEAK_GRACE_S
    while (left := max(0, control.active() - before - warm())) and time.monotonic() < give_up_s:
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
        **({"warm sessions": f"learnt, up to {SCENARIOS[config.scenario].warm}"} if plan.warm else {}),
        **({"gateway command": plan.gateway_command} if plan.gateway_command else {}),
        **{name: value for name, value in gateway.items() if not _SECRET.search(name)},
    }
    for name in ("users", "seconds", "rate", "chunk_ms"):
        if value := getattr(config, name):
            shown[name] = f"{value:g}"
    return {**shown, "interrupted": "yes"} if interrupted else shown
