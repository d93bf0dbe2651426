"""Exchange on `WatchSessions`: snapshots, events, gaps and removals of the watched sessions."""

import asyncio

import pytest

from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar_gateway.core.errors import Draining, InternalError, InvalidField, SessionNotFound
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.watch_stream import WatchStream
from testkit.actors import Context, Process

CONFIG = RpcConfig(speech=SpeechConfig(), first_message_timeout_s=10)


class Watching:
    """A stream that runs over the sessions of one process."""

    def __init__(self, process: Process, *sessions) -> None:
        self.sessions = {session.id: session for session in sessions}
        self.observers: set = set()
        process.services.listener.on_news = self.on_news
        self.context = Context()
        self.stream = WatchStream(self, CONFIG, self.context.iterate(), self.context, tenant="")
        self.running = asyncio.create_task(self.stream.run())

    # --- the directory

    def local(self, session_id: str, *, tenant: str):
        return self.sessions.get(session_id)

    async def get(self, session_id: str, *, tenant: str):
        if session_id not in self.sessions:
            raise SessionNotFound(session_id, field="session_id")
        return self.sessions[session_id]

    def living(self) -> list:
        return list(self.sessions.values())

    def on_news(self, session_id: str) -> None:
        for observer in self.observers:
            observer.on_news(session_id)

    # --- the caller

    def send(self, **message) -> None:
        self.context.requests.put_nowait(p.WatchSessionsRequest(**message))


@pytest.fixture
async def process():
    found = Process()
    yield found
    await found.close()


async def test_a_watch_begins_with_a_snapshot_and_ends_with_the_session(process):
    session = await process.ready()
    watching = Watching(process, session)
    watching.send(add=p.AddWatch(session_id=session.id))
    snapshot = await watching.context.until("snapshot")
    assert snapshot.sequence == session.log.last_sequence
    session.end(EndReason.CALLER_ENDED)
    await asyncio.wait_for(session.finished.wait(), 10)
    removed = await watching.context.until("removed")
    assert (removed.session_id, removed.status.code) == (session.id, 0)


async def test_events_behind_the_named_sequence_are_sent_again(process):
    session = await process.ready()
    watching = Watching(process, session)
    watching.send(add=p.AddWatch(session_id=session.id, after_sequence=1))
    assert (await watching.context.until("event")).event.sequence == 2


async def test_a_sequence_that_was_never_given_out_and_an_unknown_session_are_not_watched(process):
    session = await process.ready()
    watching = Watching(process, session)
    watching.send(add=p.AddWatch(session_id=session.id, after_sequence=99))
    assert "after_sequence" in (await watching.context.until("removed")).status.message
    watching.send(add=p.AddWatch(session_id="other"))
    assert (await watching.context.until("removed")).session_id == "other"


async def test_a_filter_watches_sessions_with_its_labels_those_to_come_included(process):
    blue, red = await process.ready(labels={"team": "blue"}), await process.ready(labels={"team": "red"})
    watching = Watching(process, blue, red)
    watching.send(filter=p.WatchFilter(labels={"team": "blue"}))
    assert (await watching.context.until("snapshot")).session.id == blue.id
    later = process.session(labels={"team": "blue"})
    watching.sessions[later.id] = later
    watching.stream.on_session(red)
    watching.stream.on_session(later)
    assert (await watching.context.until("snapshot")).session.id == later.id


async def test_a_removed_watch_is_confirmed_and_its_events_stop(process):
    session = await process.ready()
    watching = Watching(process, session)
    watching.send(add=p.AddWatch(session_id=session.id))
    await watching.context.until("snapshot")
    watching.send(remove=p.RemoveWatch(session_id=session.id))
    await watching.context.until("removed")
    session.end(EndReason.CALLER_ENDED)
    watching.send(progress=p.ProgressRequest())
    assert dict((await watching.context.until("progress")).sequences) == {}


async def test_progress_names_the_last_sequence_of_each_session(process):
    session = await process.ready()
    watching = Watching(process, session)
    watching.send(add=p.AddWatch(session_id=session.id))
    watching.send(progress=p.ProgressRequest())
    progress = await watching.context.until("progress")
    assert dict(progress.sequences) == {session.id: session.log.last_sequence}


async def test_compacted_events_are_replaced_by_a_snapshot(process):
    session = await process.ready()
    for _ in range(session._core.config.event_log_size + 10):
        session._core._emit(None)
    watching = Watching(process, session)
    watching.send(add=p.AddWatch(session_id=session.id, after_sequence=1))
    lagged = await watching.context.until("lagged")
    assert lagged.oldest_sequence == session.log.compacted_through + 1
    await watching.context.until("snapshot")


async def test_a_fault_in_one_session_ends_its_watch_alone(process):
    broken, sound = await process.ready(), await process.ready()
    broken.view = lambda: 1 / 0
    watching = Watching(process, broken, sound)
    watching.send(add=p.AddWatch(session_id=broken.id))
    removed = await watching.context.until("removed")
    assert (removed.session_id, removed.status.code != 0) == (broken.id, True)
    watching.send(add=p.AddWatch(session_id=sound.id))
    assert (await watching.context.until("snapshot")).session.id == sound.id


@pytest.mark.parametrize("message", [{}, {"filter": p.WatchFilter()}], ids=["nothing", "a filter too many"])
async def test_a_wrong_request_ends_the_stream(process, message):
    watching = Watching(process)
    for _ in range(17):
        watching.send(**message)
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(watching.running, 10)
    assert isinstance(caught.value.exceptions[0], InvalidField)


@pytest.mark.parametrize("failure", [Draining(), InternalError("a fault", incident="i")])
async def test_the_stream_ends_with_its_process_and_with_a_fault_of_its_observer(process, failure):
    watching = Watching(process)
    await asyncio.sleep(0)
    if isinstance(failure, Draining):
        watching.stream.on_close()
    else:
        watching.stream.fail(failure)
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(watching.running, 10)
    assert isinstance(caught.value.exceptions[0], type(failure))
    assert watching.observers == set()


async def test_a_caller_that_closes_its_side_gets_its_answers_first(process):
    watching = Watching(process)
    watching.send(remove=p.RemoveWatch(session_id="s"))
    watching.context.requests.put_nowait(None)
    await asyncio.wait_for(watching.running, 10)
    assert (await watching.context.until("removed")).session_id == "s"
