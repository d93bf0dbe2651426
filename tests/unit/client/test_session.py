import asyncio

import pytest
from unit.client.fakes import FakeCall, FakeRuntime, settle

from liveavatar.gateway import (
    AsyncSession,
    AttachSuperseded,
    AudioFormat,
    EndReason,
    SessionClosed,
    SessionEnded,
    SessionState,
)
from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as pb


class AttachedCall(FakeCall):
    """Gateway that opens the session at once and answers every command."""

    def __init__(self, *messages):
        session = session_pb2.Session(id="s", state=session_pb2.SESSION_STATE_READY)
        opened = pb.SessionOpened(session=session, handle="handle")
        opened.detach_grace.seconds = 10
        super().__init__(pb.AttachResponse(opened=opened), *messages)
        self.commands = []

    async def write(self, request):
        if request.WhichOneof("message") == "command":
            kind = request.command.WhichOneof("command")
            self.commands.append(kind)
            self.arrive(pb.AttachResponse(command_result=pb.CommandResult(id=request.command.id)))
            if kind == "end":
                final = session_pb2.Session(
                    id="s",
                    state=session_pb2.SESSION_STATE_ENDED,
                    end_reason=session_pb2.END_REASON_CALLER_ENDED,
                )
                ended = pb.SessionEvent(sequence=1, ended=pb.SessionEnded(session=final))
                self.arrive(pb.AttachResponse(event=ended))
        return await super().write(request)


def session(*calls):
    runtime = FakeRuntime(*calls)
    made = AsyncSession(
        runtime,
        pb.AttachRequest(open=pb.OpenSession(request_id="r")),
        audio_format=AudioFormat(),
        open_timeout_s=5.0,
        call_timeout_s=5.0,
        chunk_s=0.1,
        resume_timeout=None,
    )
    return made, runtime


async def test_a_block_opens_and_ends_the_session():
    call = AttachedCall()
    made, runtime = session(call)
    assert repr(made) == "<AsyncSession not open unspecified>"
    async with made:
        assert (made.id, made.handle, made.state, made.connected) == ("s", "handle", SessionState.READY, True)
        assert made.unended
        await made.ready()
    assert call.commands == ["end"]
    assert made.record.end_reason is EndReason.CALLER_ENDED
    assert not made.unended
    assert not runtime.registered


async def test_before_it_is_open_nothing_is_taken():
    made, _ = session()
    for attempt in (lambda: made.id, lambda: made.handle, lambda: made.say(b"")):
        with pytest.raises(SessionClosed, match="not open"):
            attempt()
    with pytest.raises(SessionClosed):
        await made.end()


async def test_a_refusal_to_open_is_raised():
    refusal = SessionEnded("over", reason="SESSION_ENDED")
    made, _ = session(FakeCall(refusal))
    with pytest.raises(SessionEnded):
        await made.open()


async def test_after_the_end_calls_raise_it():
    made, _ = session(AttachedCall())
    async with made:
        await made.end()
        with pytest.raises(SessionEnded, match="CALLER_ENDED"):
            made.say(bytes(960))
        with pytest.raises(SessionEnded):
            await made.start_listening()


async def test_detaching_leaves_the_session_to_another_process():
    call = AttachedCall()
    made, runtime = session(call)
    async with made:
        assert await made.detach() == "handle"
        assert not made.unended
    assert call.commands == []
    assert call.half_closed
    assert not runtime.registered


async def test_a_session_that_was_taken_over_is_not_ended():
    call = AttachedCall()
    made, _ = session(call)
    async with made:
        call.arrive(AttachSuperseded("taken over", reason="ATTACH_SUPERSEDED"))
        await settle(50)
        assert not made.unended
        with pytest.raises(AttachSuperseded):
            await made.interrupt()
    assert call.commands == []


async def test_the_listening_pose_is_kept_for_a_block():
    call = AttachedCall()
    made, _ = session(call)
    async with made, made.listening():
        assert call.commands == ["start_listening"]
    assert call.commands == ["start_listening", "stop_listening", "end"]


async def test_a_cancelled_opening_ends_what_the_gateway_may_have_started():
    call = FakeCall()
    made, runtime = session(call)
    opening = asyncio.create_task(made.open())
    await settle()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await settle()
    assert [request.WhichOneof("message") for request in call.written] == ["open", "command"]
    assert call.written[1].command.WhichOneof("command") == "end"
    for task in runtime.spawned:
        task.cancel()
    await asyncio.wait(runtime.spawned)
    await made._root.close()


async def test_data_is_sent_as_a_command():
    call = AttachedCall()
    made, _ = session(call)
    async with made:
        await made.send_data("hello", topic="chat", identities="ann")
        await made.send_data(b"\x00")
    commands = [request.command.send_data for request in call.written if request.command.HasField("send_data")]
    assert [(one.payload, one.topic, list(one.identities)) for one in commands] == [
        (b"hello", "chat", ["ann"]),
        (b"\x00", "", []),
    ]
