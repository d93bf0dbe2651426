"""Watching many sessions with the Python client: what is told, what is missing, and what breaks."""

import asyncio
import contextlib
import uuid

import grpc
import pytest
from clients.python.scripted import SESSION_ID, WatchPeer, scripted, status, watchful
from clients.python.wire import wire_to

from liveavatar.gateway import (
    AsyncClient,
    AsyncWatch,
    ConnectionLost,
    DeadlineExceeded,
    GatewayError,
    SessionAdoptedEvent,
    SessionClosed,
    SessionEndedEvent,
    SessionNotFound,
    SessionState,
    UtteranceEndedEvent,
    WatchedEvent,
    WatchGap,
    WatchProgress,
    WatchRemoved,
    WatchResumed,
    WatchSnapshot,
)
from liveavatar.gateway.channel import Connection
from liveavatar.gateway.runtime import ClientRuntime
from liveavatar.gateway.watch import WatchPace
from liveavatar.gateway.watch_state import OPEN_ATTEMPTS
from testkit import processes, speech
from testkit.caller import AVATAR
from testkit.caller import caller as connect

KEPT = 1024
"""Events that a session keeps."""


async def until(changes: AsyncWatch, kind: type, seconds: float = 30.0):
    """The next change of a kind; gives those before it, too."""
    before = []
    async with asyncio.timeout(seconds):
        async for change in changes:
            if isinstance(change, kind):
                return change, before
            before.append(change)
    raise AssertionError(f"the watch ended before a {kind.__name__}: {before}")


async def events_until_ended(changes: AsyncWatch) -> list[WatchedEvent]:
    found = []
    while not found or not isinstance(found[-1].event, SessionEndedEvent):
        found.append((await until(changes, WatchedEvent))[0])
    return found


def numbers(events: list[WatchedEvent]) -> list[int]:
    return [change.sequence for change in events]


async def test_a_session_is_told_from_its_snapshot_to_its_end(client):
    async with client.open_session(AVATAR) as session:
        await session.ready()
        async with client.watch(session.id) as changes:
            assert changes.connected
            snapshot, _ = await until(changes, WatchSnapshot)
            assert (snapshot.session_id, snapshot.record.state) == (session.id, SessionState.READY)
            progress, _ = await until(changes, WatchProgress)
            assert progress.sequences == {session.id: snapshot.sequence} == changes.sequences
            await session.say(speech.sound(0.3))
            await session.end()
            events = await events_until_ended(changes)
            assert numbers(events) == list(range(snapshot.sequence + 1, events[-1].sequence + 1))
            assert any(isinstance(change.event, UtteranceEndedEvent) for change in events)
            # Named by id: with the last of them the watch is over.
            assert [change async for change in changes] == [WatchRemoved(session_id=session.id, error=None)]
            assert await changes.next() is None


async def test_labels_find_sessions_that_are_and_those_to_come(client):
    mark = {"mark": uuid.uuid4().hex}
    present = (await client.create_session(AVATAR, labels=mark)).session
    async with client.watch(labels=mark) as changes:
        assert (await until(changes, WatchSnapshot))[0].session_id == present.id
        future = (await client.create_session(AVATAR, labels=mark)).session
        assert (await until(changes, WatchSnapshot))[0].session_id == future.id
        other = (await client.create_session(AVATAR)).session
        changes.remove(present.id)
        assert (await until(changes, WatchRemoved))[0] == WatchRemoved(session_id=present.id, error=None)
        changes.add(other.id)
        assert (await until(changes, WatchSnapshot))[0].session_id == other.id
        assert set(changes.sequences) == {future.id, other.id}
        for session in (present, other, future):
            await client.end_session(session.id)
        ended = {(await events_until_ended(changes))[-1].session_id for _ in range(2)}
        assert ended == {future.id, other.id}


async def test_all_sessions_are_watched_unless_some_are_named(client):
    created = (await client.create_session(AVATAR)).session
    async with client.watch() as changes:
        while (await until(changes, WatchSnapshot))[0].session_id != created.id:
            pass
    await client.end_session(created.id)


async def test_an_unknown_session_is_said_and_ends_the_watch(client):
    async with client.watch(["nobody"]) as changes:
        (change,) = [change async for change in changes]
        assert change.session_id == "nobody"
        assert isinstance(change.error, SessionNotFound)


async def test_a_watch_goes_on_behind_what_is_known_and_says_what_is_missing(client, shared_gateway):
    created = (await client.create_session(AVATAR)).session
    async with client.watch(created.id) as changes:
        await until(changes, WatchSnapshot)
        known = changes.sequences
    async with connect(shared_gateway.address) as caller:
        stream = await caller.speak(created.id)
        for _ in range(3):
            await stream.begin()
            await stream.end()
        async with client.watch(known) as changes:
            told = [(await until(changes, WatchedEvent))[0] for _ in range(3)]
        assert numbers(told) == [known[created.id] + number for number in (1, 2, 3)]
        for _ in range(KEPT):
            await stream.begin()
            await stream.end()
        await stream.call.done_writing()
        await stream.status()
    async with client.watch(known) as changes:
        gap, before = await until(changes, WatchGap)
        assert not [change for change in before if not isinstance(change, WatchProgress)]
        snapshot, _ = await until(changes, WatchSnapshot)
        assert (gap.first_sequence, gap.last_sequence) == (known[created.id] + 1, snapshot.sequence)
        assert snapshot.record.usage.utterance_count == KEPT + 3
    await client.end_session(created.id)


def test_the_blocking_client_watches_too(blocking):
    created = blocking.create_session(AVATAR).session
    with blocking.watch([created.id]) as changes:
        assert changes.connected
        assert isinstance(changes.next(timeout=10), WatchSnapshot)
        assert isinstance(changes.next(timeout=10), WatchProgress)
        with pytest.raises(DeadlineExceeded):
            changes.next(timeout=0.05)
        other = blocking.create_session(AVATAR).session
        changes.add(other.id)
        assert changes.next(timeout=10).session_id == other.id
        assert set(changes.sequences) == {created.id, other.id}
        changes.remove(other.id)
        blocking.end_session(other.id)
        blocking.end_session(created.id)
        told = list(changes)
    assert [change.session_id for change in told if isinstance(change, WatchRemoved)] == [other.id, created.id]
    assert {change.session_id for change in told if isinstance(change, WatchedEvent)} == {created.id}
    assert changes.next() is None


async def test_a_cut_wire_costs_no_change(emulator, shared_gateway):
    """The events that came while it was cut are told behind a word that it was."""
    async with (
        wire_to(shared_gateway.address) as wire,
        AsyncClient(shared_gateway.address) as near,
        AsyncClient(wire.address) as client,
        near.open_session(AVATAR) as session,
    ):
        await session.ready()
        async with client.watch(session.id) as changes:
            snapshot, _ = await until(changes, WatchSnapshot)
            await until(changes, WatchProgress)
            wire.cut(stay_down=True)
            await session.say(speech.sound(0.3))
            assert not changes.connected
            wire.mend()
            resumed, before = await until(changes, WatchResumed)
            assert (before, resumed.target) == ([], wire.address)
            assert resumed.attempt_count >= 1
            await session.end()
            events = await events_until_ended(changes)
            assert numbers(events) == list(range(snapshot.sequence + 1, events[-1].sequence + 1))


@pytest.fixture
def two(emulator, tmp_path):
    """Two processes of a gateway; each knows of the other's sessions."""
    registry = str(tmp_path / "registry.db")
    with (
        processes.gateway(emulator.url, registry_file=registry) as first,
        processes.gateway(emulator.url, registry_file=registry) as second,
    ):
        yield first, second


async def test_sessions_of_two_processes_are_watched_as_one(two):
    first, second = two
    async with AsyncClient(first.address) as one, AsyncClient(second.address) as other:
        here = (await one.create_session(AVATAR)).session
        there = (await other.create_session(AVATAR)).session
        async with one.watch([here.id, there.id]) as changes:
            found = {(await until(changes, WatchSnapshot))[0].session_id for _ in range(2)}
            assert found == {here.id, there.id}
            await other.end_session(there.id)
            assert (await events_until_ended(changes))[-1].session_id == there.id
            await one.end_session(here.id)
            assert (await events_until_ended(changes))[-1].session_id == here.id
            rest = [change async for change in changes if not isinstance(change, WatchProgress)]
            assert {type(change) for change in rest} == {WatchRemoved}


@pytest.mark.timeout(120)
async def test_a_session_is_watched_through_the_death_of_its_process(two):
    """Another one adopts it; what that one has no event of is said, and nothing else is missing."""
    first, second = two
    async with AsyncClient([first.address, second.address]) as client:
        async with client.open_session(AVATAR) as session:
            await session.ready()
            async with client.watch(session.id) as changes:
                await until(changes, WatchProgress)
                known = changes.sequences[session.id]
                first.process.kill()
                resumed, _ = await until(changes, WatchResumed)
                assert resumed.target == second.address
                told = []
                async with asyncio.timeout(60):
                    async for change in changes:
                        told.append(change)
                        if isinstance(change, WatchedEvent) and isinstance(change.event, SessionAdoptedEvent):
                            await session.end()
        for change in told:
            if isinstance(change, WatchGap):
                assert change.first_sequence == known + 1
                known = change.last_sequence
            elif isinstance(change, WatchedEvent):
                assert change.sequence == known + 1
                known = change.sequence
        assert isinstance(told[-2].event, SessionEndedEvent)
        assert told[-1] == WatchRemoved(session_id=session.id, error=None)


async def test_a_gateway_that_comes_back_is_found_again(emulator, tmp_path):
    registry = str(tmp_path / "registry.db")
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(processes.gateway(emulator.url, registry_file=registry))
        port = int(gateway.address.rpartition(":")[2])
        async with AsyncClient(gateway.address) as client, client.open_session(AVATAR) as session:
            await session.ready()
            async with client.watch(labels={}) as changes:
                await until(changes, WatchProgress)
                gateway.process.kill()
                stack.enter_context(processes.gateway(emulator.url, port=port, registry_file=registry))
                await until(changes, WatchResumed)
                await session.end()
                await events_until_ended(changes)


# --- what a healthy gateway never does


@contextlib.asynccontextmanager
async def paced(address: str, **pace: float):
    """A watch of one session, with limits of a test's own."""
    scope = ClientRuntime([address], lambda target: Connection(target, None, ()))
    try:
        yield AsyncWatch(
            scope,
            {SESSION_ID: 0},
            None,
            open_timeout_s=10,
            resume_timeout=None,
            pace=WatchPace(check_s=0.05, **pace),
        )
    finally:
        await scope.close()


async def test_a_stream_that_is_silent_although_it_was_asked_is_given_up():
    """A dead peer that nobody told of: neither the gateway's progress nor an answer comes."""

    async def falls_silent(peer: WatchPeer) -> None:
        await peer.asked()
        await peer.snapshot(3)
        await peer.progress(**{SESSION_ID: 3})
        await peer.expect("progress")
        await asyncio.sleep(5)

    async def goes_on(peer: WatchPeer) -> None:
        (asked,) = await peer.asked()
        assert (asked.add.session_id, asked.add.after_sequence) == (SESSION_ID, 3)
        await peer.event(4)
        await peer.removed()

    async with (
        scripted(watches=[falls_silent, goes_on]) as gateway,
        paced(gateway.address, silence_s=0.3, answer_s=0.3) as watch,
        watch as changes,
    ):
        kinds = [type(change) async for change in changes]
    assert kinds == [WatchSnapshot, WatchProgress, WatchResumed, WatchedEvent, WatchRemoved]


async def test_a_slow_reader_does_not_pile_up_changes_and_its_stream_is_not_taken_for_dead():
    async def talks(peer: WatchPeer) -> None:
        await peer.asked()
        await peer.snapshot(1)
        for sequence in range(2, 101):
            await peer.event(sequence)
        await peer.removed()

    async with (
        scripted(watches=[talks]) as gateway,
        paced(gateway.address, max_unread=10, silence_s=0.1, answer_s=0.1) as watch,
        watch as changes,
    ):
        await asyncio.sleep(0.6)
        assert changes.connected
        # Only what was read counts as known.
        assert changes.sequences == {SESSION_ID: 0}
        told = [change async for change in changes if isinstance(change, WatchedEvent)]
        assert numbers(told) == list(range(2, 101))
        assert gateway.watch_count == 1


async def test_a_watch_that_cannot_be_had_again_raises_when_its_time_is_over():
    async def breaks(peer: WatchPeer) -> None:
        await peer.asked()
        await peer.snapshot(1)
        await peer.progress()
        await peer.break_off()

    async def refuses(peer: WatchPeer) -> None:
        await peer.break_off()

    async with (
        scripted(watches=[breaks, refuses]) as gateway,
        AsyncClient(gateway.address, resume_timeout=0.5) as client,
        client.watch(SESSION_ID) as changes,
    ):
        assert isinstance(await changes.next(), WatchSnapshot)
        assert isinstance(await changes.next(), WatchProgress)
        for _ in range(2):
            with pytest.raises(ConnectionLost, match=r"within 0\.5 s"):
                await changes.next()


async def test_a_watch_that_is_refused_raises_why():
    async def refuses(peer: WatchPeer) -> None:
        await peer.refuse(status("INVALID_FIELD", grpc.StatusCode.INVALID_ARGUMENT, field="filter"))

    async def unreachable(peer: WatchPeer) -> None:
        await peer.break_off()

    async with scripted(watches=[refuses]) as gateway, AsyncClient(gateway.address) as client:
        with pytest.raises(GatewayError) as raised:
            await client.watch().open()
        assert raised.value.reason == "INVALID_FIELD"
    async with scripted(watches=[unreachable]) as gateway, AsyncClient(gateway.address) as client:
        with pytest.raises(ConnectionLost):
            await client.watch().open()
        assert gateway.watch_count == OPEN_ATTEMPTS


async def test_opening_is_bounded_and_done_once():
    async def says_nothing(peer: WatchPeer) -> None:
        await peer.asked()
        await asyncio.sleep(30)

    async with scripted(watches=[says_nothing]) as gateway, AsyncClient(gateway.address) as client:
        watch = client.watch(timeout=0.2)
        with pytest.raises(SessionClosed):
            await watch.next()
        with pytest.raises(DeadlineExceeded):
            await watch.open()
        with pytest.raises(SessionClosed):
            await watch.open()
        assert "over" in repr(watch)


async def test_closing_the_client_ends_its_watches():
    async with scripted(watches=[watchful]) as gateway:
        client = AsyncClient(gateway.address)
        changes = await client.watch().open()
        assert isinstance(await changes.next(), WatchProgress)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(changes.next())
            await asyncio.sleep(0.05)
            await client.close()
        assert waiting.result() is None
