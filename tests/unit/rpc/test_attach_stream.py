"""Exchange on `Attach`: every command has one result, and every event comes once."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from liveavatar.gateway.v1 import room_pb2, session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar_gateway.auth.authenticator import NoAuthenticator
from liveavatar_gateway.core.errors import AttachSuperseded, EventsCompacted, HeaderRequired, UnexpectedMessage
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.rpc.attach_stream import AttachStream
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.wishes import Wishes
from testkit.actors import AVATAR_ID, Context, Process
from testkit.avatar import audio_input_of

CONFIG = RpcConfig(speech=SpeechConfig(), first_message_timeout_s=10)
WISHES = Wishes(CONFIG, NoAuthenticator(), may_use_room_url=lambda _: True)


@pytest.fixture
async def process():
    found = Process()
    yield found
    await found.close()


class Attached:
    """A stream that runs, and the call it belongs to."""

    def __init__(self, session, **resume) -> None:
        self.context = Context()
        options = {"after_sequence": 0, "skip_compacted": False, **resume}
        stream = AttachStream(session, CONFIG, self.context.iterate(), self.context, **options)
        self.running = asyncio.create_task(stream.run())

    def send(self, command: p.SessionCommand) -> None:
        self.context.requests.put_nowait(p.AttachRequest(command=command))

    def close(self) -> None:
        self.context.requests.put_nowait(None)


def command(command_id: str, **kind) -> p.SessionCommand:
    return p.SessionCommand(id=command_id, **kind)


async def test_events_come_in_order_and_the_last_one_ends_the_stream(process):
    session = await process.ready()
    attached = Attached(session)
    opened = await attached.context.until("opened")
    assert opened.session.id == session.id
    assert opened.handle.startswith(session.id)
    attached.send(command("c-1", end=p.End()))
    result = await attached.context.until("command_result")
    assert (result.id, result.status.code) == ("c-1", 0)
    await asyncio.wait_for(attached.running, 10)
    events = []
    while not attached.context.written.empty():
        events.append(attached.context.written.get_nowait().event)
    assert events[-1].ended.session.state == session_pb2.SESSION_STATE_ENDED


async def test_another_command_does_not_wait_behind_an_interrupt(process):
    session = await process.ready()
    utterance = session.utterances.begin("u", audio_input_of(None))
    session.utterances.receive(utterance, None, bytes(96_000))
    attached = Attached(session)
    while not utterance.sent_s:
        await asyncio.sleep(0)
    attached.send(command("c-1", interrupt=p.Interrupt()))
    attached.send(command("c-2", start_listening=p.StartListening()))
    assert (await attached.context.until("command_result")).id == "c-2"
    # The end of the session waits for the result that is still to come.
    session.end(EndReason.CALLER_ENDED)
    result = await attached.context.until("command_result")
    assert (result.id, result.interrupt.interrupted[0].utterance_id) == ("c-1", "u")
    assert (await attached.context.until("event")) is not None
    await asyncio.wait_for(attached.running, 10)


async def test_a_command_that_is_refused_has_the_reason_in_its_result(process):
    session = await process.ready()
    attached = Attached(session)
    attached.send(command("c-1", interrupt=p.Interrupt(utterance_id="unknown")))
    attached.send(command("c-2"))
    results = {}
    for _ in range(2):
        result = await attached.context.until("command_result")
        results[result.id] = result.status
    assert "unknown" in results["c-1"].message
    assert "must say what to do" in results["c-2"].message


async def test_a_caller_that_closes_its_side_detaches(process):
    session = await process.ready()
    attached = Attached(session)
    await attached.context.until("opened")
    attached.close()
    await asyncio.wait_for(attached.running, 10)
    assert not session.attachments.attached
    assert session.attachments.detached_until_s is not None


async def test_a_later_stream_supersedes_the_earlier_one(process):
    session = await process.ready()
    earlier = Attached(session)
    await earlier.context.until("opened")
    Attached(session)
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(earlier.running, 10)
    assert isinstance(caught.value.exceptions[0], AttachSuperseded)


async def test_a_drain_and_its_cancellation_are_announced(process):
    session = await process.ready()
    attached = Attached(session)
    await attached.context.until("opened")
    deadline = datetime.now(UTC)
    session.go_away(deadline, takes_speech=True)
    assert (await attached.context.until("go_away")).deadline.ToDatetime(tzinfo=UTC) == deadline
    session.cancel_go_away()
    await attached.context.until("go_away_cancelled")


async def test_a_position_whose_events_are_compacted_is_refused_unless_they_are_skipped(process):
    session = process.session()
    for _ in range(session._core.config.event_log_size + 10):
        session._core._emit(None)
    context = Context()
    with pytest.raises(EventsCompacted):
        AttachStream(session, CONFIG, context.iterate(), context, after_sequence=3, skip_compacted=False)
    assert not session.attachments.attached
    stream = AttachStream(session, CONFIG, context.iterate(), context, after_sequence=3, skip_compacted=True)
    assert stream._lost_through == session.log.compacted_through


async def test_only_commands_may_follow_the_first_message(process):
    attached = Attached(await process.ready())
    attached.context.requests.put_nowait(p.AttachRequest(open=p.OpenSession()))
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(attached.running, 10)
    assert isinstance(caught.value.exceptions[0], UnexpectedMessage)


async def test_the_first_message_opens_a_session_or_resumes_it(process):
    session = await process.ready()

    async def opened(*_: object, **__: object):
        return session

    directory = SimpleNamespace(open=opened, by_handle=opened)
    spec = session_pb2.SessionSpec(avatar_id=AVATAR_ID)
    for first in (
        p.AttachRequest(open=p.OpenSession(spec=spec)),
        p.AttachRequest(resume=p.ResumeSession(handle="h", skip_compacted=True)),
    ):
        context = Context([first])
        stream = await AttachStream.open(directory, CONFIG, WISHES, context.iterate(), context)
        assert session.attachments.attached
        assert stream._session is session


async def test_a_first_message_that_opens_nothing_is_refused():
    for first in (p.AttachRequest(command=p.SessionCommand(id="c")), None):
        context = Context([first])
        with pytest.raises(HeaderRequired):
            await AttachStream.open(None, CONFIG, WISHES, context.iterate(), context)


async def test_data_out_of_its_bounds_is_refused_in_its_result(process):
    session = await process.ready()
    attached = Attached(session)
    attached.send(command("c-1", send_data=room_pb2.SendData(payload=bytes(16_000))))
    result = await attached.context.until("command_result")
    assert (result.id, result.status.code) == ("c-1", 3)
    attached.close()
    await asyncio.wait_for(attached.running, 10)
