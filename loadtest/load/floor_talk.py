"""Talk with the floor during a run: `python -m load.floor_talk`, started by `FloorTalk`.

CPU seconds are no fixed amount of work: on a shared machine the same speech costs up to 1.6 times as much while
the other thread of the core works. The floor is a bare server on the gateway's core, and its cost in the same
minutes says how fast the machine was.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Final

import uvloop

from load.bench.loads import TalkLoad
from load.bench.run import talkers
from load.bench.sink import Sink
from load.result import FloorCost
from load.speech import BYTE_RATE
from stage.cores import process_cpu_s
from stage.daemon import Daemon, module, say_ready

LOAD: Final = TalkLoad(sessions=4, chunk_ms=100, turn_ms=15_000)
"""Few sessions, which cost the gateway's core about one per cent."""
_WRITE_EVERY_S: Final = 1.0
_FOLDER: Final = Path(__file__).parents[1]


class FloorTalk(Daemon):
    """Process that talks with a floor from its start to its end."""

    def __init__(self, *, measured: Collection[int], cores: Collection[int], workdir: Path) -> None:
        """Prepare the process without starting it.

        Args:
            measured: Cores of the floor, which are the gateway's.
            cores: Cores of the process itself.
            workdir: Folder of its log and its report.
        """
        self._report = workdir / "floor-talk.json"
        options = ["--report", str(self._report), *(f"--core={core}" for core in measured)]
        path = os.pathsep.join([str(_FOLDER), *filter(None, [os.environ.get("PYTHONPATH", "")])])
        super().__init__(
            "floor-talk",
            module("load.floor_talk", *options),
            cores=cores,
            workdir=workdir,
            environment={"PYTHONPATH": path},
        )

    @property
    def cost(self) -> FloorCost | None:
        """Cost so far; None before the first second."""
        try:
            return FloorCost(**json.loads(self._report.read_text()))
        except FileNotFoundError:
            return None


async def talk(measured: Collection[int], report: Path, ready_file: Path) -> None:
    """Talk until SIGTERM, and write what it cost to `report` every second.

    Raises:
        StageError: the floor did not start, or lost audio.
    """
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sink = Sink()
    await sink.start()
    with tempfile.TemporaryDirectory(prefix="floor-") as folder:
        command = module("load.bench.floor", "--socket-url", sink.socket_url)
        floor = Daemon("floor", command, cores=measured, workdir=Path(folder))
        try:
            await asyncio.to_thread(floor.start)
            async with talkers(floor, LOAD, sink) as (conversation, _):
                conversation.start()
                began_s = process_cpu_s(floor.pid)
                say_ready(ready_file)
                while not stop.is_set():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_WRITE_EVERY_S):
                            await stop.wait()
                    conversation.forget()
                    cpu_s = process_cpu_s(floor.pid) - began_s
                    _write(report, FloorCost(cpu_s=cpu_s, audio_s=conversation.written_bytes / BYTE_RATE))
                await conversation.finish()
        finally:
            await asyncio.to_thread(floor.stop)
            sink.stop()


def _write(path: Path, cost: FloorCost) -> None:
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(asdict(cost)))
    draft.rename(path)


def main() -> None:
    """Run as a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", type=int, action="append", default=[])
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--ready-file", type=Path, required=True)
    options = parser.parse_args()
    uvloop.run(talk(options.core, options.report, options.ready_file))


if __name__ == "__main__":
    main()
