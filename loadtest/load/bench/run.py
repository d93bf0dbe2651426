"""Run of the benchmark: servers on one core, generator and sink on the other, windows in alternation."""

import asyncio
import contextlib
import gc
import shlex
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from liveavatar.gateway.channel import Connection
from load.bench.loads import BenchSettings, TalkLoad
from load.bench.ratios import FLOOR, GATEWAY, LoadResult, Quantiles, Window
from load.bench.sink import Sink
from load.bench.talker import Conversation, Talker
from load.figures import Recorder
from load.gateway import CONNECTION_OPTIONS
from load.recorder import LoadRecorder
from load.session import Failure
from load.speech import BYTE_RATE, Voice
from stage import services
from stage.cores import CoreTimes, process_cpu_s
from stage.daemon import Daemon, module
from stage.errors import StageError

_OPENING: Final = 16
"""Sessions that are opened or ended at the same time."""
_TALKERS_PER_CONNECTION: Final = 100
"""Sessions that share a connection for `Attach`; each has one of its own for audio."""

Progress = Callable[[str], None]


async def bench(settings: BenchSettings, progress: Progress) -> list[LoadResult]:
    """Measure all loads.

    Raises:
        StageError: a server did not start or ended early, or audio was lost.
    """
    sink = Sink()
    await sink.start()
    try:
        return [await _measure_load(settings, load, sink, progress) for load in settings.loads]
    finally:
        sink.stop()


def tree_command(tree: Path) -> str:
    """Return the command of another checkout's gateway, with its own virtual environment if it has one.

    Raises:
        StageError: no gateway is there.
    """
    if not (tree / "server/liveavatar_gateway").is_dir():
        raise StageError(f"{tree} is no checkout of the gateway")
    python = tree / ".venv/bin/python"
    path = f"PYTHONPATH={tree / 'server'}:{tree / 'clients/python'}"
    interpreter = str(python) if python.exists() else sys.executable
    return shlex.join(["env", path, interpreter, "-m", "liveavatar_gateway", "serve"])


async def _measure_load(settings: BenchSettings, load: TalkLoad, sink: Sink, progress: Progress) -> LoadResult:
    result = LoadResult(load.title)
    with tempfile.TemporaryDirectory(prefix="bench-") as workdir, ExitStack() as stack:
        servers = await asyncio.to_thread(_start_servers, settings, load, sink, Path(workdir), stack)
        async with contextlib.AsyncExitStack() as talks:
            conversations = {}
            for name, server in servers.items():
                progress(f"{load.title}: opening sessions, {name}")
                conversations[name] = await talks.enter_async_context(talkers(server, load, sink))
            gc.collect()
            gc.freeze()
            for number in range(1, settings.rounds + 1):
                for name, server in servers.items():
                    progress(f"{load.title}: round {number} of {settings.rounds}, {name}")
                    window = await _window(settings, server, *conversations[name])
                    result.windows.setdefault(name, []).append(window)
                    for process in servers.values():
                        process.check()
            progress(f"{load.title}: ending sessions")
        # Daemons wait for their processes; the gateway asks the sink meanwhile.
        await asyncio.to_thread(stack.close)
    return result


def _start_servers(
    settings: BenchSettings, load: TalkLoad, sink: Sink, workdir: Path, stack: ExitStack
) -> dict[str, Daemon]:
    cores = [settings.cores.measured]
    floor = Daemon(
        FLOOR, module("load.bench.floor", "--socket-url", sink.socket_url), cores=cores, workdir=workdir
    )
    servers = {FLOOR: stack.enter_context(floor)}
    commands = {GATEWAY: ""} | {tree.resolve().name: tree_command(tree.resolve()) for tree in settings.trees}
    for name, command in commands.items():
        folder = workdir / name
        folder.mkdir()
        gateway = services.gateway(
            sink.url, sessions=load.sessions + 1, cores=cores, workdir=folder, command=command
        )
        servers[name] = stack.enter_context(gateway)
    return servers


@asynccontextmanager
async def talkers(
    server: Daemon, load: TalkLoad, sink: Sink
) -> AsyncIterator[tuple[Conversation, Sequence[Talker]]]:
    """Open all sessions of a load with one server, and end them on leaving."""
    target = str(server.info["address"])
    recorder, voice = LoadRecorder(Recorder(), lambda *_: False), Voice()
    count = -(-load.sessions // _TALKERS_PER_CONNECTION)
    connections = [Connection(target, None, CONNECTION_OPTIONS) for _ in range(count)]
    talkers = [Talker(connections[number % count], target, recorder, voice) for number in range(load.sessions)]
    limit = asyncio.Semaphore(_OPENING)

    async def join(number: int) -> None:
        async with limit:
            await talkers[number].join(load, number, sink)

    async def end(talker: Talker) -> None:
        async with limit:
            await talker.end()

    try:
        try:
            await asyncio.gather(*(join(number) for number in range(load.sessions)))
        except Failure as failure:
            raise StageError(f"{server.name} opened no session: {failure.reason}: {failure}") from failure
        yield Conversation(talkers, load), talkers
    finally:
        await asyncio.gather(*(end(talker) for talker in talkers), return_exceptions=True)
        for connection in connections:
            await connection.close()


@dataclass(frozen=True, slots=True)
class _Clocks:
    """Clocks and counters at one moment."""

    at_s: float
    server_cpu_s: float
    load_cpu_s: float
    core: CoreTimes
    load_core: CoreTimes
    written_bytes: int
    packets: int


async def _window(
    settings: BenchSettings, server: Daemon, conversation: Conversation, talkers: Sequence[Talker]
) -> Window:
    """Let all sessions of a server talk through warm-up and window, and check every byte."""

    def now() -> _Clocks:
        return _Clocks(
            at_s=time.monotonic(),
            server_cpu_s=process_cpu_s(server.pid),
            load_cpu_s=time.process_time(),
            core=CoreTimes.now(settings.cores.measured),
            load_core=CoreTimes.now(settings.cores.load),
            written_bytes=conversation.written_bytes,
            packets=sum(talker.packets for talker in talkers),
        )

    with _no_garbage_collection():
        conversation.start()
        await asyncio.sleep(settings.warmup_s)
        before = now()
        conversation.forget()
        await asyncio.sleep(settings.seconds)
        after = now()
    first_packets_s = [value for talker in talkers for value in talker.first_packets_s]
    underruns = sum(talker.take_underruns() for talker in talkers)
    await conversation.finish()
    seconds = after.at_s - before.at_s
    return Window(
        audio_s=(after.written_bytes - before.written_bytes) / BYTE_RATE,
        seconds=seconds,
        cpu_s=after.server_cpu_s - before.server_cpu_s,
        core_busy=after.core.busy_since(before.core),
        load_share=(after.load_cpu_s - before.load_cpu_s) / seconds,
        load_core_busy=after.load_core.busy_since(before.load_core),
        stolen=max(after.core.stolen_since(before.core), after.load_core.stolen_since(before.load_core)),
        lateness=Quantiles.of(conversation.lateness_s),
        first_packets=Quantiles.of(first_packets_s),
        packets=after.packets - before.packets,
        underruns=underruns,
    )


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep the collector's pauses out of a window."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
