"""Streams on which nobody says anything: kept open by heartbeats, bounded before their first message, answered at
their end."""

import asyncio
import time

import grpc
import pytest
from google.protobuf import duration_pb2

from liveavatar.gateway import AsyncClient, OutcomeKind
from liveavatar.gateway.v1 import audio_pb2, session_pb2, stream_pb2
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from testkit import processes, speech
from testkit.caller import AVATAR, STEP_TIMEOUT_S, refused
from testkit.caller import caller as connect

HEARTBEAT_S = 0.2
FIRST_MESSAGE_S = 0.5
GRACE_S = 3.0


@pytest.fixture(scope="module")
def quick_gateway(shared_emulator):
    """Run a gateway with short limits for silent streams."""
    with processes.gateway(
        shared_emulator.url, heartbeat_s=HEARTBEAT_S, first_message_timeout_s=FIRST_MESSAGE_S
    ) as found:
        yield found


@pytest.fixture
async def quick(emulator, quick_gateway):
    async with connect(quick_gateway.address) as found:
        yield found


# --- heartbeats


async def test_a_silent_attach_gets_heartbeats_as_announced_and_may_send_its_own(quick):
    attachment = await quick.attach()
    assert attachment.opened.heartbeat_interval.ToTimedelta().total_seconds() == HEARTBEAT_S
    await attachment.until_ready()
    heartbeats = 0
    while heartbeats < 3:
        heartbeats += (await attachment.read()).WhichOneof("message") == "heartbeat"
        await attachment.call.write(sessions.AttachRequest(heartbeat=stream_pb2.Heartbeat()))
    assert (await attachment.command("l", start_listening=sessions.StartListening())).status.code == 0
    assert len(attachment.results) == 1
    await quick.end(attachment.session_id)


async def test_a_silent_audio_stream_gets_heartbeats_as_announced_and_may_send_its_own(quick, emulator):
    session = (await quick.create()).session
    stream = await quick.speak(session.id)
    assert stream.ready.heartbeat_interval.ToTimedelta().total_seconds() == HEARTBEAT_S
    await stream.until("heartbeat")
    await stream.send(heartbeat=stream_pb2.Heartbeat())
    pcm = speech.sound(0.4)
    await stream.begin("u")
    await stream.chunk(pcm[:9600])
    # Nothing more comes for a while, as from a slow source: an utterance that is open is a silent stream too.
    await stream.until("heartbeat")
    await stream.send(heartbeat=stream_pb2.Heartbeat())
    await stream.chunk(pcm[9600:])
    await stream.end()
    assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    assert emulator.audio(session.upstream_session_id) == pcm
    await quick.end(session.id)


async def test_without_an_interval_none_is_announced_and_none_is_sent(emulator):
    with processes.gateway(emulator.url, heartbeat_s=0) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            assert not attachment.opened.HasField("heartbeat_interval")
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            assert not stream.ready.HasField("heartbeat_interval")
            await caller.end(attachment.session_id)
            await attachment.closed()
            await stream.status()
            assert [one.WhichOneof("message") for one in stream.received] == []


async def test_the_python_client_speaks_on_behind_heartbeats(quick_gateway, emulator):
    async with AsyncClient(quick_gateway.address) as client, client.open_session(AVATAR) as session:
        await session.say(speech.sound(0.2))
        await asyncio.sleep(HEARTBEAT_S * 4)
        outcome = await session.say(speech.sound(0.2))
        assert outcome.kind is OutcomeKind.PLAYED


# --- the first message


@pytest.mark.parametrize(
    "open_call",
    [
        pytest.param(lambda caller: caller.sessions.Attach(), id="Attach"),
        pytest.param(lambda caller: caller.audio.StreamAudio(), id="StreamAudio"),
        pytest.param(lambda caller: caller.sessions.WatchSessions(), id="WatchSessions"),
    ],
)
async def test_a_stream_without_a_first_message_ends_with_a_reason(quick, open_call):
    began_s = time.monotonic()
    why = await refused(_drained(open_call(quick)))
    assert time.monotonic() - began_s >= FIRST_MESSAGE_S * 0.9
    assert (why.reason, why.code) == ("FIRST_MESSAGE_TIMEOUT", grpc.StatusCode.DEADLINE_EXCEEDED)
    assert why.metadata["timeout_s"] == f"{FIRST_MESSAGE_S:g}"


async def test_a_unary_call_whose_request_never_comes_ends_with_a_reason(quick):
    # The same bytes on the wire as a unary call that stops behind its headers.
    call = quick.channel.stream_unary("/liveavatar.gateway.v1.SessionService/GetServerInfo")()
    why = await refused(call)
    assert (why.reason, why.code) == ("FIRST_MESSAGE_TIMEOUT", grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_a_stream_whose_first_message_came_may_be_silent_for_as_long_as_it_likes(quick):
    watch = quick.watch()
    await watch.filter(nobody="has this")
    session = (await quick.create()).session
    stream = await quick.speak(session.id)
    await asyncio.sleep(FIRST_MESSAGE_S * 1.5)
    assert await watch.progress() == {}
    await stream.say(speech.sound(0.2), "u")
    assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    await quick.end(session.id)


# --- the caller has closed its side


async def test_the_end_that_a_caller_asked_for_is_told_although_it_closed_its_side(caller):
    attachment = await caller.attach()
    await attachment.until_ready()
    command = sessions.SessionCommand(id="end", end=sessions.End())
    await attachment.call.write(sessions.AttachRequest(command=command))
    await attachment.call.done_writing()
    assert (await attachment.event("ended")).session.end_reason == session_pb2.END_REASON_CALLER_ENDED
    assert [result.id for result in attachment.results] == ["end"]
    assert await attachment.closed() is grpc.StatusCode.OK


async def test_an_interrupt_is_answered_although_its_caller_closed_its_side(caller, emulator):
    attachment = await caller.attach()
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.say(speech.sound(3.0), "u")
    await stream.until("started")
    command = sessions.SessionCommand(id="cut", interrupt=sessions.Interrupt())
    await attachment.call.write(sessions.AttachRequest(command=command))
    await attachment.call.done_writing()
    assert await attachment.closed() is grpc.StatusCode.OK
    (result,) = attachment.results
    assert [one.utterance_id for one in result.interrupt.interrupted] == ["u"]
    await caller.end(attachment.session_id)


async def test_an_interrupt_that_nobody_answers_keeps_no_session_alive_and_is_answered_when_that_ends(emulator):
    """The socket is lost and does not come back for 30 s; the grace of the session is over much sooner."""
    with processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach(detach_grace=_duration(0.5))
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            await stream.say(speech.sound(5.0), "u")
            await stream.until("started")
            stream.call.cancel()
            emulator.socket_fault("refuse_sockets", attachment.upstream_id, how="reset")
            emulator.drop(attachment.upstream_id, 1011)
            command = sessions.SessionCommand(id="cut", interrupt=sessions.Interrupt())
            await attachment.call.write(sessions.AttachRequest(command=command))
            await attachment.call.done_writing()
            ended = await attachment.event("ended")
            assert ended.session.end_reason == session_pb2.END_REASON_CALLER_LOST
            assert [result.id for result in attachment.results] == ["cut"]
            assert await attachment.closed() is grpc.StatusCode.OK


async def test_answers_that_are_due_are_told_to_a_watcher_that_closed_its_side_and_reads_late(shared_gateway):
    asked = [f"{number:😀>128}" for number in range(250)]
    requests = [sessions.WatchSessionsRequest(add=sessions.AddWatch(session_id=one)) for one in asked]
    requests.append(sessions.WatchSessionsRequest(progress=sessions.ProgressRequest()))
    async with connect(shared_gateway.address, reads_ahead=False) as caller:
        call = caller.sessions.WatchSessions()
        for request in requests:
            await call.write(request)
        await call.done_writing()
        # A call that is answered behind the whole stream: the gateway has read that to its end by then.
        await caller.sessions.GetServerInfo(sessions.GetServerInfoRequest())
        answers = [answer async for answer in call]
        assert [one.removed.session_id for one in answers if one.HasField("removed")] == asked
        assert sum(one.HasField("progress") for one in answers) == 1
        assert await call.code() is grpc.StatusCode.OK


async def test_an_utterance_that_was_left_open_does_not_double_the_grace(emulator):
    """Its stream waits for another to go on with it; the session waits no longer than that for its callers."""
    with processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            session = (await caller.create(detach_grace=_duration(GRACE_S))).session
            stream = await caller.speak(session.id)
            await stream.begin("u")
            await stream.chunk(speech.sound(0.2))
            await stream.until("ack")
            await stream.call.done_writing()
            began_s = time.monotonic()
            await stream.until("ended")
            emulator.wait_active(0)
            assert time.monotonic() - began_s < 2 * GRACE_S


def _duration(seconds: float) -> duration_pb2.Duration:
    return duration_pb2.Duration(nanos=round(seconds * 1e9) % 10**9, seconds=int(seconds))


async def _drained(call) -> None:
    while await asyncio.wait_for(call.read(), STEP_TIMEOUT_S) is not grpc.aio.EOF:
        pass
    await call
