import asyncio

import pytest
from unit.client.fakes import FakeCall, FakeRuntime, settle

from liveavatar.gateway import AsyncWatch, SessionClosed, WatchProgress, WatchRemoved, WatchSnapshot
from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as pb
from liveavatar.gateway.watch import WatchPace, _WatchStream


def snapshot(session_id, sequence):
    session = session_pb2.Session(id=session_id, state=session_pb2.SESSION_STATE_READY)
    return pb.WatchSessionsResponse(snapshot=pb.WatchSnapshot(session=session, sequence=sequence))


PROGRESS = pb.WatchSessionsResponse(progress=pb.WatchProgress())


def watch(*calls, sessions=None, labels=None):
    return AsyncWatch(FakeRuntime(*calls), sessions or {}, labels, open_timeout_s=5.0, resume_timeout=None)


async def test_a_watch_asks_for_its_sessions_and_reports_them():
    call = FakeCall(snapshot("s", 3), PROGRESS)
    async with watch(call, sessions={"s": 0}) as changes:
        first, second = await changes.next(), await changes.next()
        assert isinstance(first, WatchSnapshot)
        assert isinstance(second, WatchProgress)
        assert changes.sequences == {"s": 3}
        assert changes.connected
        await settle()
    assert [request.WhichOneof("message") for request in call.written] == ["add", "progress"]
    assert repr(changes) == "<AsyncWatch 1 sessions over>"


async def test_a_watch_ends_with_its_last_session():
    removed = pb.WatchSessionsResponse(removed=pb.WatchRemoved(session_id="s"))
    async with watch(FakeCall(PROGRESS, removed), sessions={"s": 0}) as changes:
        assert [type(change) async for change in changes] == [WatchProgress, WatchRemoved]


async def test_sessions_may_be_added_and_removed():
    call = FakeCall(PROGRESS)
    async with watch(call, labels={}) as changes:
        await settle()
        changes.add("s", 2)
        changes.remove("s")
        await settle()
        kinds = [request.WhichOneof("message") for request in call.written]
        assert kinds == ["filter", "progress", "add", "remove"]
        assert changes.sequences == {"s": 2}
        await changes.next()
        assert isinstance(await changes.next(), WatchRemoved)
        assert changes.sequences == {}


async def test_a_watch_that_is_not_open_brings_nothing():
    with pytest.raises(SessionClosed, match="not open"):
        await watch().next()


async def test_a_slow_reader_holds_the_stream_back():
    call = FakeCall(*[snapshot(name, 1) for name in "abcde"])
    made = AsyncWatch(
        FakeRuntime(call), {}, {}, open_timeout_s=5.0, resume_timeout=None, pace=WatchPace(max_unread=2)
    )
    async with made as changes:
        await settle()
        assert len(changes._unread) == 2
        assert [(await changes.next()).session_id for _ in range(5)] == [*"abcde"]


class Checked:
    """Call of a watch, checked at times of the test's choice."""

    def __init__(self):
        self.call = FakeCall()
        self.stream = _WatchStream(self.call, 0.0)
        self.pace = WatchPace()

    def check(self, now_mono_s):
        return self.stream.check(now_mono_s, self.pace), self.stream.outbox.qsize()


async def test_a_call_without_a_first_answer_is_cancelled():
    checked = Checked()
    assert checked.check(9.0) == (True, 0)
    assert checked.check(10.0) == (False, 0)
    assert checked.call.cancelled
    assert not checked.stream.answered


async def test_a_silent_gateway_is_asked_once_and_then_given_up():
    checked = Checked()
    assert checked.stream.answer()
    assert not checked.stream.answer()
    assert checked.check(19.0) == (True, 0)
    assert checked.check(20.0) == (True, 1)
    assert checked.check(25.0) == (True, 1)
    assert checked.check(30.0) == (False, 1)
    assert checked.call.cancelled
    assert checked.stream.answered


async def test_a_slow_reader_is_no_silence_of_the_gateway():
    checked = Checked()
    checked.stream.answer()
    checked.stream.begin_delivery()
    assert checked.check(1000.0) == (True, 0)
    checked.stream.end_delivery(1000.0)
    assert checked.check(1001.0) == (True, 0)


async def test_a_direction_that_is_silent_for_long_is_used():
    checked = Checked()
    checked.stream.answer()
    checked.call.unwritten_s = 20.0
    assert checked.check(1.0) == (True, 1)
    await asyncio.sleep(0)
    assert checked.check(2.0) == (True, 1)
