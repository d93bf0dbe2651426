"""Sessions that nobody uses: announced, cancelled by any use, and ended with their own reason."""

import asyncio

import grpc
import pytest
from google.protobuf import duration_pb2

from liveavatar.gateway.v1 import session_pb2, session_service_pb2
from testkit import processes, speech
from testkit.caller import caller as connect
from testkit.caller import refused

_IDLE = duration_pb2.Duration(seconds=2)
_ROOMS = {"livekit_url": "ws://127.0.0.1:1", "livekit_key": "devkey", "livekit_secret": "s" * 40}


async def test_an_idle_session_is_announced_and_ended_at_liveavatar(caller, emulator):
    attachment = await caller.attach(idle_timeout=_IDLE)
    await attachment.until_ready()
    expiring = await attachment.event("expiring")
    assert expiring.reason == session_pb2.END_REASON_IDLE
    last = await attachment.event("ended")
    assert last.session.end_reason == session_pb2.END_REASON_IDLE
    assert last.session.upstream_reason == ""
    assert last.session.ended_at.ToNanoseconds() >= expiring.expires_at.ToNanoseconds()
    assert not last.HasField("error")
    assert not emulator.runs(attachment.upstream_id)


async def test_each_use_of_a_session_prevents_its_end(caller):
    attachment = await caller.attach(idle_timeout=_IDLE)
    await attachment.until_ready()

    async def listen() -> None:
        await attachment.command("listen", start_listening=session_service_pb2.StartListening())

    async def speak() -> None:
        stream = await caller.speak(attachment.session_id)
        await stream.say(speech.sound(0.3), "hello")
        await stream.until("ended")

    async def interrupt() -> None:
        request = session_service_pb2.InterruptSessionRequest(session_id=attachment.session_id)
        await caller.sessions.InterruptSession(request)

    for use in (listen, speak, interrupt):
        await attachment.event("expiring")
        await use()
        cancelled = await attachment.event("expiry_cancelled")
        assert cancelled.reason == session_pb2.END_REASON_IDLE
    await attachment.event("expiring")
    attachment = await caller.resume(attachment.opened.handle)
    await attachment.event("expiry_cancelled")
    last = await attachment.event("ended")
    assert last.session.end_reason == session_pb2.END_REASON_IDLE


async def test_a_long_utterance_is_no_idleness(caller):
    attachment = await caller.attach(idle_timeout=_IDLE)
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.say(speech.sound(5.0), "long")
    await stream.until("ended")
    await attachment.event("utterance_ended")
    assert "expiring" not in {event.WhichOneof("event") for event in attachment.events}
    await caller.end(attachment.session_id)


async def test_an_open_stream_and_keep_alives_alone_are_no_use(emulator):
    with processes.gateway(emulator.url, keep_alive_s=1, heartbeat_s=0.5) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach(idle_timeout=duration_pb2.Duration(seconds=3))
            await attachment.until_ready()
            heartbeat = session_service_pb2.AttachRequest(heartbeat={})
            waiting = asyncio.create_task(attachment.event("ended"))
            while not waiting.done():
                await attachment.call.write(heartbeat)
                await asyncio.sleep(0.5)
            assert (await waiting).session.end_reason == session_pb2.END_REASON_IDLE


async def test_a_session_without_the_limit_stays(caller):
    attachment = await caller.attach()
    await attachment.until_ready()
    await asyncio.sleep(3)
    assert (await caller.get(attachment.session_id)).state == session_pb2.SESSION_STATE_READY
    await caller.end(attachment.session_id)


async def test_an_adopted_session_keeps_its_limit(tmp_path):
    shared = {"registry_file": tmp_path / "registry.db"}
    with processes.emulator() as emulator:
        with processes.gateway(emulator.url, **shared) as first:
            async with connect(first.address) as caller:
                made = await caller.create(
                    idle_timeout=duration_pb2.Duration(seconds=4), detach_grace=duration_pb2.Duration(seconds=60)
                )
                first.process.kill()
        with processes.gateway(emulator.url, **shared) as second:
            async with connect(second.address) as caller:
                async with asyncio.timeout(30):
                    while (session := await caller.get(made.session.id)).end_reason == 0:
                        await asyncio.sleep(0.1)
                assert session.end_reason == session_pb2.END_REASON_IDLE


@pytest.mark.parametrize("seconds", [-1, 0, 86_401])
async def test_a_limit_out_of_its_range_is_refused(caller, seconds):
    why = await refused(caller.create(idle_timeout=duration_pb2.Duration(seconds=seconds)))
    assert (why.code, why.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert why.field == "spec.idle_timeout"


async def test_a_limit_without_viewers_needs_a_room_of_the_callers_and_a_sensible_length(emulator):
    with processes.gateway(emulator.url, **_ROOMS) as gateway:
        async with connect(gateway.address) as caller:
            limit = duration_pb2.Duration(seconds=60)
            why = await refused(caller.create(viewer_absence_timeout=limit))
            assert (why.code, why.field) == (grpc.StatusCode.INVALID_ARGUMENT, "spec.viewer_absence_timeout")
            assert "livekit_room" in why.message
            room = session_pb2.LiveKitRoom(name="desk-7")
            for seconds in (-1, 4, 86_401):
                limit = duration_pb2.Duration(seconds=seconds)
                why = await refused(caller.create(viewer_absence_timeout=limit, livekit_room=room))
                assert why.field == "spec.viewer_absence_timeout"


async def test_a_livekit_server_that_is_down_ends_no_session(emulator):
    """No look into the room succeeds, so nothing is known of it."""
    with processes.gateway(emulator.url, viewer_absence_s=5, **_ROOMS) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach(livekit_room=session_pb2.LiveKitRoom(name="desk-7"))
            await attachment.until_ready()
            await asyncio.sleep(9)
            assert (await caller.get(attachment.session_id)).state == session_pb2.SESSION_STATE_READY
            assert gateway.process.logged("rooms.unreachable")
            await caller.end(attachment.session_id)
