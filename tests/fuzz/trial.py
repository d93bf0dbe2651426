"""Run of many cases against one gateway, and its verdict."""

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import grpc
import psutil
import structlog
import uvloop

from fuzz.cases import KINDS, SHARES, Case, make
from fuzz.player import CALL_TIMEOUT_S, Finding, Player, Tally, reason_of
from fuzz.upstream import Upstream
from liveavatar.gateway.v1 import session_pb2, session_service_pb2
from liveavatar.gateway.v1.session_service_pb2_grpc import SessionServiceStub
from testkit import processes

_AT_ONCE: Final = 24
"""Cases that are played at once."""
_LOOK_S: Final = 0.25
_END_S: Final = 40.0
"""Time within which all sessions are over after the last input: graces, and the repeats of stops."""
_RECENT_S: Final = 2.0
_ENOUGH_FINDINGS: Final = 8
_SETTLED_SHARE: Final = 0.25
"""Part of a run after which its memory counts as the level from which it may grow."""
MAX_GROWTH_BYTES: Final = 96 * 2**20
_MB: Final = 2**20
_BAD_LINES: Final = (
    "Traceback (most recent call last)",
    "never retrieved",
    "rpc.fault",
    "was destroyed but it is",
)
_SETTINGS: Final = {
    "max_sessions": 2000,
    "admin_port": 0,
    "metrics_port": 0,
    "log_level": "debug",
    "log_format": "json",
    "detach_grace_s": 1,
    "wait_s": 2,
    "retention_s": 2,
    "ready_timeout_s": 2,
    "connect_timeout_s": 2,
    "rest_timeout_s": 2,
    "reconnect_budget_s": 1,
    "avatars_ttl_s": 1,
    "first_message_timeout_s": 5,
    "interrupt_timeout_s": 0.2,
    "flush_s": 0.02,
    "heartbeat_s": 1,
    "watch_progress_s": 1,
    "livekit_url": "wss://rooms.example.com",
    "livekit_key": "key",
    "livekit_secret": "s" * 32,
}

GONE: Final = "the gateway is gone, or no longer answers"
_LOGGED_S: Final = 0.1
_PLACE: Final = re.compile(r'File ".*?([^/"]+/[^/"]+)", line \d+, in (\w+)')

_Result = TypeVar("_Result")
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Figures of a run."""

    seed: int
    duration_s: float
    tally: Tally
    tracebacks: int
    """Bad lines in the log of the gateway."""
    left: tuple[str, ...] = ()
    """Sessions and permits that are left after the end of all streams."""
    settled_bytes: int = 0
    last_bytes: int = 0
    cpu_s: float = 0.0
    """CPU time of the gateway, and of the caller and the upstream."""
    is_alive: bool = True
    is_interrupted: bool = False

    @property
    def rate(self) -> float:
        """Inputs per second."""
        return self.tally.total / self.duration_s if self.duration_s else 0.0

    def problems(self) -> list[str]:
        """Return what must not be; empty for a gateway that stands everything."""
        found = [f"{one.problem}: {one.detail[-600:]}".rstrip(": ") for one in self.tally.findings]
        grown = self.last_bytes - self.settled_bytes
        others = [
            (not self.is_alive, GONE),
            (bool(self.left), f"left behind: {', '.join(self.left[:5])}"),
            (grown > MAX_GROWTH_BYTES, f"memory grew by {grown // _MB} MB"),
        ]
        return found + [problem for is_out, problem in others if is_out]

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.tally.inputs.most_common())
        return (
            f"{self.tally.total} inputs in {self.duration_s:.0f} s ({self.rate:.0f}/s: {kinds}), "
            f"{self.cpu_s * 1e3 / max(1, self.tally.total):.2f} ms of CPU each, seed {self.seed}: "
            f"{0 if self.is_alive else 1} crashes, {len(self.left)} sessions left, {self.tracebacks} tracebacks, "
            f"{len(self.tally.findings)} findings, {self.settled_bytes // _MB} -> {self.last_bytes // _MB} MB"
        )


def run(
    *,
    seconds: float | None = None,
    inputs: int | None = None,
    seed: int,
    kinds: Collection[str] = tuple(KINDS),
    progress: Progress = lambda _: None,
) -> Result:
    """Fuzz a gateway for some seconds, or with a number of inputs; Ctrl-C ends a run early.

    Args:
        seconds: Duration.
        inputs: Number of inputs.
        seed: Seed of all cases; the order in which they meet is not repeated.
        kinds: Kinds of inputs.
        progress: Called with a line every five seconds.
    """
    return in_a_loop(_run(seconds=seconds, inputs=inputs, seed=seed, kinds=tuple(kinds), progress=progress))


def replay(cases: Collection[Case]) -> list[Finding]:
    """Play cases one after the other on a gateway of their own; returns what they find."""
    return in_a_loop(_replay(cases))


def in_a_loop(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine in a fast loop; Ctrl-C cancels it, so that it can clean up."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@dataclass(slots=True)
class _Stage:
    """Gateway between a player and its upstream."""

    player: Player
    upstream: Upstream
    gateway: processes.Gateway
    tally: Tally
    log: "LogReader"
    stub: SessionServiceStub

    @property
    def memory_bytes(self) -> int:
        return int(psutil.Process(self.gateway.process.pid).memory_info().rss)

    @property
    def cpu_s(self) -> float:
        """CPU time of the gateway and of this process."""
        times = [psutil.Process(self.gateway.process.pid).cpu_times(), psutil.Process().cpu_times()]
        return float(sum(one.user + one.system for one in times))

    def look(self, suspects: Collection[Case] = ()) -> None:
        """Note what the log has new."""
        for problem, excerpt in self.log.read():
            self.tally.find(problem, excerpt, *suspects)

    async def answers(self) -> bool:
        """Return whether the process lives and answers a call."""
        if self.gateway.process.exit_code is not None:
            return False
        try:
            await self.stub.GetServerInfo(session_service_pb2.GetServerInfoRequest(), timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            # A refusal is an answer too.
            return bool(reason_of(error.trailing_metadata()))
        return True

    async def left(self, within_s: float) -> tuple[str, ...]:
        """Return what is left of sessions, at last after a while."""
        give_up_s = time.monotonic() + within_s
        while (found := await self._left()) and time.monotonic() < give_up_s:
            await asyncio.sleep(_LOOK_S)
        return found

    async def _left(self) -> tuple[str, ...]:
        try:
            request = session_service_pb2.ListSessionsRequest(page_size=500)
            listed = (await self.stub.ListSessions(request, timeout=CALL_TIMEOUT_S)).sessions
            info = await self.stub.GetServerInfo(
                session_service_pb2.GetServerInfoRequest(), timeout=CALL_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            return (f"no answer: {error.code().name}",)
        return (
            *(f"session {one.id}" for one in listed if one.state != session_pb2.SESSION_STATE_ENDED),
            *(f"upstream session {one}" for one in self.upstream.running),
            *([f"{info.used_permit_count} permits in use"] if info.used_permit_count else []),
        )


class LogReader:
    """Reader of a log that grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.bad_count = 0

    def read(self) -> list[tuple[str, str]]:
        """Return the problems in the lines since the last time, each with its text."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._offset += end
        found = []
        # Lines are split only where there is something to see: a run logs hundreds of megabytes.
        if any(mark.encode() in data for mark in _BAD_LINES):
            for line in data[:end].decode(errors="replace").splitlines():
                mark = next((one for one in _BAD_LINES if one in line), None)
                if mark is not None:
                    self.bad_count += 1
                    text = _text_of(line)
                    found.append((_summary(mark, text), text))
        return found


def _summary(mark: str, text: str) -> str:
    """Return the name of a problem, the same each time: the last line of a traceback, and its place."""
    words = [line for line in text.splitlines() if line and not line.startswith(" ")]
    last = next((line for line in reversed(words) if "Error" in line or "Exception" in line), mark)
    places = _PLACE.findall(text)
    return f"{last[:100]} in {' '.join(places[-1]) if places else mark}"


def _text_of(line: str) -> str:
    """Return the traceback in a line of the log, or the whole line."""
    try:
        values = json.loads(line)
    except json.JSONDecodeError:
        return line
    return str(values.get("exception", line)) if isinstance(values, dict) else line


@contextlib.asynccontextmanager
async def _stage() -> AsyncIterator[_Stage]:
    tally = Tally()
    async with (
        _quiet_library(),
        Upstream().serve() as upstream,
        _gateway(upstream.url) as gateway,
        Player(gateway.address, gateway.admin_address, upstream, tally) as player,
        grpc.aio.insecure_channel(gateway.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel,
    ):
        log = LogReader(gateway.process.log_path)
        yield _Stage(player, upstream, gateway, tally, log, SessionServiceStub(channel))


@contextlib.asynccontextmanager
async def _gateway(url: str) -> AsyncIterator[processes.Gateway]:
    """Run a gateway without standing still: the upstream has to answer while it starts and stops."""
    manager = processes.gateway(url, **_SETTINGS)
    starting = asyncio.ensure_future(asyncio.to_thread(manager.__enter__))
    try:
        yield await asyncio.shield(starting)
    finally:
        # A thread cannot be cancelled: a process that was still started would be left behind.
        await starting
        await asyncio.to_thread(manager.__exit__, None, None, None)


@contextlib.asynccontextmanager
async def _quiet_library() -> AsyncIterator[None]:
    """Log nothing here: the gateway's REST client is played in this process too, and reports what it refuses."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


async def _run(
    *, seconds: float | None, inputs: int | None, seed: int, kinds: tuple[str, ...], progress: Progress
) -> Result:
    async with _stage() as stage:
        began_s = time.monotonic()
        began_cpu_s = stage.cpu_s
        run = _Run(stage, seed, kinds, inputs=inputs, until_s=None if seconds is None else began_s + seconds)
        is_interrupted = False
        is_alive = True
        workers = [asyncio.create_task(run.work(), name=f"fuzz/{number}") for number in range(_AT_ONCE)]
        try:
            is_alive = await run.watch(workers, progress)
        except asyncio.CancelledError:
            # Ctrl-C: what has been found so far is still reported.
            is_interrupted = True
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        run.is_over = True
        if not is_alive or is_interrupted:
            for worker in workers:
                worker.cancel()
        for worker in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(worker, Exception):
                raise worker
        duration_s = time.monotonic() - began_s
        cpu_s = stage.cpu_s - began_cpu_s if is_alive else 0.0
        left = await stage.left(_END_S) if is_alive else ()
        is_alive = is_alive and await stage.answers()
        last_bytes = stage.memory_bytes if is_alive else 0
        stage.look(run.suspects())
        settled = [size for share, size in run.sizes if share >= _SETTLED_SHARE]
        return Result(
            seed=seed,
            duration_s=duration_s,
            tally=stage.tally,
            tracebacks=stage.log.bad_count,
            left=left,
            settled_bytes=settled[0] if settled else last_bytes,
            last_bytes=last_bytes,
            cpu_s=cpu_s,
            is_alive=is_alive,
            is_interrupted=is_interrupted,
        )


class _Run:
    """Workers of a run, which always play the kind that is furthest behind its share."""

    def __init__(
        self, stage: _Stage, seed: int, kinds: tuple[str, ...], *, inputs: int | None, until_s: float | None
    ) -> None:
        self._stage = stage
        self._seed = seed
        self._kinds = kinds
        self._inputs = inputs
        self._until_s = until_s
        self._began_s = time.monotonic()
        self._made: dict[str, int] = dict.fromkeys(kinds, 0)
        self._given: dict[str, int] = dict.fromkeys(kinds, 0)
        self._playing: dict[int, tuple[Case, float | None]] = {}
        self._played_count = 0
        self.is_over = False
        self.sizes: list[tuple[float, int]] = []
        """Memory of the gateway by the part of the run that is done."""

    @property
    def share(self) -> float:
        """Part of the run that is done."""
        if self._inputs is not None:
            return self._stage.tally.total / self._inputs
        if self._until_s is None:
            return 0.0
        return (time.monotonic() - self._began_s) / (self._until_s - self._began_s)

    def suspects(self) -> list[Case]:
        """Return the cases that were played a moment ago."""
        return [case for case, _ in self._playing.values()]

    async def work(self) -> None:
        """Play cases until the run is over."""
        while not self.is_over and self.share < 1:
            kind = min(self._kinds, key=lambda one: self._given[one] / SHARES[one])
            number, self._made[kind] = self._made[kind], self._made[kind] + 1
            case = make(self._seed, kind, number)
            # Counted before it is played, or all workers would choose the same kind.
            self._given[kind] += case.size
            key, self._played_count = self._played_count, self._played_count + 1
            self._playing[key] = case, None
            await self._stage.player.play(case)
            self._playing[key] = case, time.monotonic()

    async def watch(self, workers: Collection[asyncio.Task[None]], progress: Progress) -> bool:
        """Look after the gateway until all workers are done; returns whether it is alive."""
        told_s, told_count = time.monotonic(), 0
        while True:
            tally = self._stage.tally
            done, pending = await asyncio.wait(workers, timeout=_LOOK_S, return_when=asyncio.ALL_COMPLETED)
            now_s = time.monotonic()
            for key, (_, ended_s) in list(self._playing.items()):
                if ended_s is not None and ended_s < now_s - _RECENT_S:
                    del self._playing[key]
            self._stage.look(self.suspects())
            self._stage.upstream.forget_stopped()
            if any(one.exception() for one in done) or not await self._stage.answers():
                return self._stage.gateway.process.exit_code is None and await self._stage.answers()
            self.sizes.append((self.share, self._stage.memory_bytes))
            if not pending or len(tally.findings) >= _ENOUGH_FINDINGS:
                return True
            for finding in tally.findings[told_count:]:
                progress(f"FOUND {finding.problem}")
            told_count = len(tally.findings)
            if now_s - told_s >= 5:
                told_s = now_s
                rate = tally.total / (now_s - self._began_s)
                progress(
                    f"{min(self.share, 1):4.0%}  {tally.total} inputs, {rate:.0f}/s, "
                    f"{len(tally.findings)} findings, {self.sizes[-1][1] // _MB} MB"
                )


class Bench:
    """Gateway on which one case is played after the other; a new one once it is gone."""

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()
        self._stage: _Stage | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def play(self, case: Case) -> list[Finding]:
        """Play a case alone; returns what it finds."""
        stage = self._stage
        if stage is None:
            stage = self._stage = await self._stack.enter_async_context(_stage())
        stage.tally.findings.clear()
        await stage.player.play(case)
        # The gateway logs from a thread, and ends what a case has left open.
        await asyncio.sleep(_LOGGED_S)
        stage.look([case])
        if not await stage.answers():
            stage.tally.find(GONE, "", case)
            self._stage = None
            await self._stack.aclose()
        return list(stage.tally.findings)

    async def left(self) -> list[Finding]:
        """Return what the cases have left behind."""
        if self._stage is None:
            return []
        left = [Finding(problem=f"left behind: {one}") for one in await self._stage.left(_END_S)]
        self._stage.tally.findings.clear()
        self._stage.look()
        return [*left, *self._stage.tally.findings]


async def _replay(cases: Collection[Case]) -> list[Finding]:
    async with Bench() as bench:
        return [*[one for case in cases for one in await bench.play(case)], *await bench.left()]
