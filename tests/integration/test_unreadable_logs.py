"""The gateway and its sessions continue when the reader of its log stalls or ends."""

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from testkit import processes, speech
from testkit.caller import caller as connect

_ONE_PAGE = 4096


@contextlib.contextmanager
def _reader_dies() -> Iterator[tuple[int, Callable[[], None]]]:
    reader, writer = os.pipe()
    yield writer, lambda: os.close(reader)
    os.close(writer)


@contextlib.contextmanager
def _nobody_reads() -> Iterator[tuple[int, Callable[[], None]]]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _ONE_PAGE)
    yield writer, lambda: None
    os.close(reader)
    os.close(writer)


@contextlib.contextmanager
def _disk_full() -> Iterator[tuple[int, Callable[[], None]]]:
    full = os.open("/dev/full", os.O_WRONLY)
    yield full, lambda: None
    os.close(full)


@pytest.mark.parametrize("log", [_reader_dies, _nobody_reads, _disk_full])
async def test_a_log_that_cannot_be_written_ends_no_session(emulator, log):
    with (
        log() as (log_fd, break_it),
        processes.gateway(emulator.url, log_fd=log_fd, log_level="debug", detach_grace_s=0) as gateway,
    ):
        async with connect(gateway.address) as caller:
            talking = await caller.attach()
            stream = await caller.speak(talking.session_id)
            await stream.say(speech.sound(1.5), "u")
            await stream.until("started")
            break_it()
            for number in range(6):
                # Each of these is logged more than once: begun, ended, and why.
                other = await caller.attach()
                await other.until_ready()
                if number % 2:
                    await caller.end(other.session_id)
                    ended = await other.event("ended")
                    assert ended.session.end_reason == session_pb2.END_REASON_CALLER_ENDED
                else:
                    other.call.cancel()
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            await caller.end(talking.session_id)
            assert (await talking.event("ended")).session.end_reason == session_pb2.END_REASON_CALLER_ENDED
        gateway.process.send(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.process.wait, 30) == 0
