"""Callers that stop reading their streams cost no memory beyond their windows, and are told what they missed.

`SLOW_READERS_S=60` in the environment lets them not read for that long; a few seconds otherwise.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from liveavatar.gateway.v1 import audio_service_pb2, session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from testkit import processes, speech
from testkit.caller import Attachment, Caller, Speech, Watch, refused
from testkit.caller import caller as connect

CALLERS = 50
HOSTILE = 10
KEPT = 1024
"""Events that a session keeps."""
BUFFERED_S = 30
"""Audio that a session may keep."""
EVENT_BYTES = 400
"""Memory of an event in a log: 300 for an entry, its time, its content and its id, by tracemalloc."""
NETWORK_BYTES = 4 * 64 * 1024
"""Buffer of gRPC for two streams, each way. Its own structures come on top: 226 kB for 64 kB of tiny messages."""
HOSTILE_BYTES = 6 << 20
"""Memory that one caller may cause by sending as much as possible. Measured 3.8 MB, where its two streams used one
at a time take 1.2 together: gRPC keeps a whole read of the connection for each small message that waits in it."""
SILENT_S = float(os.environ.get("SLOW_READERS_S", "5"))
MB = 1_000_000


def _rss_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def gateway(emulator) -> Iterator[processes.Gateway]:
    with processes.gateway(emulator.url, max_buffered_s=BUFFERED_S, write_timeout_s=600, fresh=True) as found:
        yield found


@pytest.fixture
def report(capsys, record_property):
    """Figures of a run, shown also when all is well."""

    def show(what: str, **rss_bytes: int) -> None:
        record_property(what, rss_bytes)
        figures = ", ".join(f"{name} {value / MB:.1f} MB" for name, value in rss_bytes.items())
        with capsys.disabled():
            print(f"\nRSS, {what}: {figures}")  # noqa: T201 - what the test is for

    return show


async def _make_events(stream: Speech, count: int) -> None:
    """Empty utterances, whose ends are read meanwhile."""
    for done in range(count):
        await stream.begin()
        await stream.end()
        if done % 64 == 63:
            await stream.until("ended")
    for _ in range(count - count // 64):
        await stream.until("ended")


@pytest.mark.long
@pytest.mark.timeout(600 + SILENT_S)
async def test_fifty_callers_that_stop_reading_take_their_credit_and_their_events_and_no_more(gateway, report):
    pid = gateway.process.pid
    pcm = speech.sound(BUFFERED_S - 1)
    async with connect(gateway.address, reads_ahead=False) as caller:
        attached = [await caller.attach() for _ in range(CALLERS)]
        streams = [await caller.speak(one.session_id) for one in attached]
        watch = caller.watch()
        await watch.filter()
        before = _rss_bytes(pid)
        # From here on nobody reads an `Attach`. The first two get far more than a log and the network keep.
        for start in range(0, CALLERS, 10):
            group = range(start, start + 10)
            await asyncio.gather(*[_make_events(streams[one], (1 if one > 1 else 3) * KEPT) for one in group])
        full = _rss_bytes(pid)
        # From here on nobody reads anything.
        for stream in streams:
            await stream.say(pcm)
        began_s, most = time.monotonic(), 0
        while time.monotonic() < began_s + SILENT_S:
            await asyncio.sleep(0.5)
            most = max(most, _rss_bytes(pid))
        after = _rss_bytes(pid)
        report(
            f"{CALLERS} callers that read nothing for {SILENT_S:g} s",
            before=before,
            logs_full=full,
            most=most,
            after=after,
        )
        window = BUFFERED_S * speech.BYTE_RATE + KEPT * EVENT_BYTES + NETWORK_BYTES
        assert after - before < CALLERS * window
        # While audio comes in, a busy machine keeps another read of each connection.
        assert most - before < CALLERS * (window + NETWORK_BYTES)
        await _told_what_they_missed(caller, attached[0], watch)
        # What they said was spoken all the same.
        stream = streams[1]
        while not (ended := await stream.until("ended")).played.ToTimedelta():
            pass
        assert ended.played.ToTimedelta().total_seconds() == pytest.approx(BUFFERED_S - 1, abs=0.1)


async def _told_what_they_missed(caller: Caller, attachment: Attachment, watch: Watch) -> None:
    why = await refused(_read_all(attachment))
    assert why.reason == "EVENTS_COMPACTED"
    numbers = [event.sequence for event in attachment.events]
    assert numbers == list(range(1, len(numbers) + 1))
    oldest = int(why.metadata["oldest_sequence"])
    assert oldest > numbers[-1] + 1
    resumed = await caller.resume(attachment.opened.handle, after_sequence=numbers[-1], skip_compacted=True)
    assert resumed.opened.compacted_through >= oldest - 1
    await caller.end(attachment.session_id)
    await resumed.event("ended")
    first = resumed.events[0].sequence
    assert first == resumed.opened.compacted_through + 1
    assert [event.sequence for event in resumed.events] == list(range(first, first + len(resumed.events)))
    lagged = await watch.until("lagged")
    assert lagged.oldest_sequence > lagged.sent_sequence + 1
    assert (await watch.read()).snapshot.session.id == lagged.session_id


async def _read_all(attachment: Attachment) -> None:
    while True:
        await attachment.read()


async def _pester(stream: Speech, attachment: Attachment) -> None:
    """Send whatever a caller can send, read nothing."""

    async def speak() -> None:
        while True:
            await stream.begin()
            await stream.chunk(bytes(4_800))
            await stream.send(cancel={})

    async def command() -> None:
        while True:
            message = sessions.SessionCommand(id="c", interrupt=sessions.Interrupt())
            await attachment.call.write(sessions.AttachRequest(command=message))

    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await asyncio.gather(speak(), command())


async def _steady_bytes(pid: int) -> int:
    """Return the memory of a process once it has not changed for some seconds."""
    steady, since_s = _rss_bytes(pid), time.monotonic()
    while time.monotonic() < since_s + 4:
        await asyncio.sleep(0.2)
        if abs((now := _rss_bytes(pid)) - steady) > MB / 2:
            steady, since_s = now, time.monotonic()
    return steady


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_callers_that_ask_without_end_and_read_no_answer_are_not_heard_any_more(gateway, report):
    pid = gateway.process.pid
    async with connect(gateway.address, reads_ahead=False) as caller, connect(gateway.address) as other:
        attached = [await caller.attach() for _ in range(2 * HOSTILE)]
        streams = [await caller.speak(one.session_id) for one in attached]
        pestering: list[asyncio.Task[None]] = []

        async def pester(callers: range) -> int:
            pestering.extend(asyncio.create_task(_pester(streams[one], attached[one])) for one in callers)
            return await _steady_bytes(pid)

        # The first ones are also the first to use much of the process: what that takes once is not theirs.
        before = await pester(range(HOSTILE))
        after = await pester(range(HOSTILE, 2 * HOSTILE))
        report(f"{HOSTILE} callers more that ask without end", before=before, after=after)
        assert not any(task.done() for task in pestering)
        assert after - before < HOSTILE * HOSTILE_BYTES
        # Whoever takes such a session over is alone with it: when that one goes, nobody holds it any more.
        taker = await other.resume(attached[0].opened.handle, skip_compacted=True)
        stream = await other.speak(attached[0].session_id)
        await stream.say(speech.sound(0.3), "u")
        while (await stream.until("ended")).utterance_id != "u":
            pass
        assert not attached[0].call.done()
        ended = await other.end(taker.session_id)
        assert ended.end_reason == session_pb2.END_REASON_CALLER_ENDED
        for task in pestering:
            task.cancel()
        await asyncio.wait(pestering)


async def test_a_session_is_given_up_although_a_caller_that_lost_it_still_does_not_read(gateway):
    async with connect(gateway.address, reads_ahead=False) as caller, connect(gateway.address) as other:
        stuck = await caller.attach(detach_grace={"nanos": 500_000_000})
        pestering = asyncio.create_task(_pester(await caller.speak(stuck.session_id), stuck))
        await _steady_bytes(gateway.process.pid)
        taker = await other.resume(stuck.opened.handle, skip_compacted=True)
        taking = await other.speak(stuck.session_id)
        await taking.call.done_writing()
        await taker.call.done_writing()
        while (await other.get(stuck.session_id)).state != session_pb2.SESSION_STATE_ENDED:
            await asyncio.sleep(0.1)
        assert (await other.get(stuck.session_id)).end_reason == session_pb2.END_REASON_CALLER_LOST
        assert not stuck.call.done()
        pestering.cancel()
        await asyncio.wait([pestering])


async def test_nothing_waits_any_more_for_a_caller_that_read_no_answer_and_went_away(emulator):
    with processes.gateway(emulator.url, metrics_port=0) as gateway:
        async with connect(gateway.address) as other:
            session = (await other.create()).session
            before = _tasks(gateway)
            async with connect(gateway.address, reads_ahead=False) as caller:
                stream = await caller.speak(session.id)
                pestering = asyncio.create_task(_pester_with_speech(stream))
                await _steady_bytes(gateway.process.pid)
                assert _tasks(gateway) > before
                pestering.cancel()
                await asyncio.wait([pestering])
            for _ in range(100):
                if (left := _tasks(gateway)) <= before:
                    break
                await asyncio.sleep(0.1)
            assert left <= before
            await other.end(session.id)


async def _pester_with_speech(stream) -> None:
    """Begin and cancel without end."""
    while True:
        await stream.begin()
        await stream.send(cancel=audio_service_pb2.CancelUtterance())


def _tasks(gateway) -> int:
    lines = httpx.get(gateway.metrics).raise_for_status().text.splitlines()
    return next(int(float(line.split()[1])) for line in lines if line.startswith("gateway_asyncio_tasks "))
