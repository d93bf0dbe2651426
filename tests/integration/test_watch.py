"""`WatchSessions`: every change of many sessions on one stream, with numbers, and without slowing any of them."""

import asyncio
import signal
import uuid

import grpc
import pytest

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from testkit import processes, speech
from testkit.caller import Caller, Refusal, Watch, refused
from testkit.caller import caller as connect

KEPT = 1024
"""Events that a session keeps."""


async def _empty_utterances(caller: Caller, session_id: str, count: int, *, filler: str = "") -> None:
    """Make `count` events, each with `filler` in it."""
    stream = await caller.speak(session_id)
    for number in range(count):
        await stream.begin(f"{filler}{uuid.uuid4().hex[:8]}-{number}" if filler else "")
        await stream.end()
    await stream.call.done_writing()
    assert await stream.status() is grpc.StatusCode.OK


async def _ended(watch: Watch) -> sessions.WatchEvent:
    while (event := await watch.until("event")).event.WhichOneof("event") != "ended":
        pass
    return event


async def test_a_watched_session_begins_with_a_snapshot_and_goes_on_without_holes(caller: Caller):
    created = (await caller.create()).session
    watch = caller.watch()
    await watch.add(created.id)
    snapshot = await watch.until("snapshot")
    assert (snapshot.session.id, snapshot.session.state) == (created.id, session_pb2.SESSION_STATE_READY)
    stream = await caller.speak(created.id)
    await stream.say(speech.sound(0.3), "u")
    await stream.until("ended")
    await caller.end(created.id)
    last = await _ended(watch)
    assert last.event.ended.session.end_reason == session_pb2.END_REASON_CALLER_ENDED
    removed = await watch.until("removed")
    assert (removed.session_id, removed.status.code) == (created.id, 0)
    numbers = watch.sequences(created.id)
    assert numbers == list(range(snapshot.sequence + 1, last.event.sequence + 1))
    kinds = [one.event.event.WhichOneof("event") for one in watch.received if one.HasField("event")]
    assert {"utterance_started", "utterance_ended", "pose_changed", "state_changed", "ended"} == set(kinds)


async def test_a_watch_goes_on_after_the_sequence_it_knows(caller: Caller):
    created = (await caller.create()).session
    first = caller.watch()
    await first.add(created.id)
    known = (await first.until("snapshot")).sequence
    first.call.cancel()
    await _empty_utterances(caller, created.id, 3)
    second = caller.watch()
    await second.add(created.id, after_sequence=known)
    for _ in range(3):
        await second.until("event")
    assert second.sequences(created.id) == [known + 1, known + 2, known + 3]
    assert not any(one.HasField("snapshot") for one in second.received)
    await caller.end(created.id)


async def test_a_watcher_that_knows_too_little_is_told_the_gap_and_what_is_true_now(caller: Caller):
    created = (await caller.create()).session
    await _empty_utterances(caller, created.id, KEPT)
    watch = caller.watch()
    await watch.add(created.id, after_sequence=1)
    lagged = await watch.until("lagged")
    assert (lagged.session_id, lagged.sent_sequence) == (created.id, 1)
    snapshot = (await watch.read()).snapshot
    assert lagged.oldest_sequence == snapshot.sequence - KEPT + 1
    assert snapshot.session.usage.utterance_count == KEPT
    await caller.end(created.id)


@pytest.mark.parametrize(
    ("after_sequence", "reason"), [(-1, "INVALID_FIELD"), (10_000, "INVALID_FIELD"), (None, "SESSION_NOT_FOUND")]
)
async def test_what_cannot_be_watched_is_answered_and_the_stream_goes_on(caller: Caller, after_sequence, reason):
    created = (await caller.create()).session
    watch = caller.watch()
    await watch.add("unknown" if after_sequence is None else created.id, after_sequence or 0)
    assert Refusal((await watch.until("removed")).status).reason == reason
    await watch.add(created.id)
    await watch.until("snapshot")
    await caller.end(created.id)


async def test_labels_find_the_sessions_that_are_and_those_to_come(caller: Caller):
    mark = uuid.uuid4().hex
    present = (await caller.create(labels={"mark": mark, "n": "1"})).session
    other = (await caller.create(labels={"mark": "another"})).session
    over = (await caller.create(labels={"mark": mark})).session
    await caller.end(over.id)
    watch = caller.watch()
    await watch.filter(mark=mark)
    assert (await watch.until("snapshot")).session.id == present.id
    future = (await caller.create(labels={"mark": mark})).session
    snapshot = await watch.until("snapshot")
    assert (snapshot.session.id, snapshot.session.state) == (future.id, session_pb2.SESSION_STATE_CREATING)
    while (await watch.until("event")).event.state_changed.state != session_pb2.SESSION_STATE_READY:
        pass
    assert set(await watch.progress()) == {present.id, future.id}
    await watch.remove(present.id)
    assert (await watch.until("removed")).session_id == present.id
    assert set(await watch.progress()) == {future.id}
    for session in (present, other, future):
        await caller.end(session.id)
    await _ended(watch)
    assert {one.event.session_id for one in watch.received if one.HasField("event")} == {future.id}


async def test_progress_says_how_far_everything_was_told_when_asked_for(caller: Caller):
    made = [(await caller.create()).session for _ in range(3)]
    watch = caller.watch()
    for session in made:
        await watch.add(session.id)
    for _ in made:
        await watch.until("snapshot")
    await asyncio.gather(*[_empty_utterances(caller, session.id, 50) for session in made])
    told = await watch.progress()
    for session in made:
        assert watch.sequences(session.id)[-1] == told[session.id]
        assert len(watch.sequences(session.id)) == 50
        await caller.end(session.id)


async def test_a_session_that_ended_can_be_watched_to_its_end(caller: Caller):
    created = (await caller.create()).session
    await caller.end(created.id)
    watch = caller.watch()
    await watch.add(created.id, after_sequence=1)
    await _ended(watch)
    assert (await watch.until("removed")).status.code == 0
    await watch.add(created.id)
    assert (await watch.until("snapshot")).session.state == session_pb2.SESSION_STATE_ENDED
    assert (await watch.until("removed")).status.code == 0


async def test_watching_does_not_hold_a_session(caller: Caller):
    created = (await caller.create(detach_grace={"nanos": 300_000_000})).session
    watch = caller.watch()
    await watch.add(created.id)
    assert (await _ended(watch)).event.ended.session.end_reason == session_pb2.END_REASON_CALLER_LOST


async def test_the_end_of_the_request_stream_ends_the_watch(caller: Caller):
    watch = caller.watch()
    await watch.filter()
    await watch.call.done_writing()
    with pytest.raises(EOFError):
        await watch.until("nothing")
    assert await watch.call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({}, "message"),
        ({"add": {}}, "add.session_id"),
        ({"remove": {}}, "remove.session_id"),
        (17 * [{"filter": {}}], "filter"),
    ],
)
async def test_a_wrong_request_is_refused_by_field(caller: Caller, message, field):
    watch = caller.watch()
    for one in message if isinstance(message, list) else [message]:
        await watch.send(**one)
    why = await refused(watch.until("nothing"))
    assert (why.reason, why.field) == ("INVALID_FIELD", field)


async def test_a_watcher_that_reads_nothing_slows_no_session_and_is_told_the_gap(caller: Caller, shared_gateway):
    created = (await caller.create()).session
    async with connect(shared_gateway.address, reads_ahead=False) as other:
        lazy = other.watch()
        await lazy.add(created.id)
        first = await lazy.until("snapshot")
        # Far more than its library takes for it, and than the session keeps.
        for _ in range(2):
            await _empty_utterances(caller, created.id, KEPT, filler="x" * 100)
        # The speech of a session is told in time all the same.
        stream = await caller.speak(created.id)
        await stream.say(speech.sound(0.3))
        assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
        lagged = await lazy.until("lagged")
        before = lazy.sequences(created.id)
        assert before == list(range(first.sequence + 1, lagged.sent_sequence + 1))
        snapshot = (await lazy.read()).snapshot
        assert lagged.sent_sequence < lagged.oldest_sequence == snapshot.sequence - KEPT + 1
        await caller.end(created.id)
        last = await _ended(lazy)
        after = lazy.sequences(created.id)[len(before) :]
        assert after == list(range(snapshot.sequence + 1, last.event.sequence + 1))


async def test_progress_comes_by_itself_and_a_gateway_that_exits_says_so(emulator):
    with processes.gateway(emulator.url, watch_progress_s=0.2) as gateway:
        async with connect(gateway.address) as caller:
            created = (await caller.create()).session
            watch = caller.watch()
            await watch.filter()
            await watch.until("snapshot")
            for _ in range(3):
                assert set((await watch.until("progress")).sequences) == {created.id}
            gateway.process.send(signal.SIGTERM)
            last = await _ended(watch)
            assert last.event.ended.session.end_reason == session_pb2.END_REASON_DRAINED
            why = await refused(watch.until("nothing"))
            assert (why.reason, why.code) == ("DRAINING", grpc.StatusCode.UNAVAILABLE)
