"""The last sound of a conversation is out before LiveAvatar is told to stop, and nobody else waits for that."""

import asyncio
import signal

import grpc

from liveavatar.gateway.v1 import admin_service_pb2, audio_pb2, session_pb2
from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceStub
from testkit import processes, speech
from testkit.caller import Caller
from testkit.caller import caller as connect

_TAIL_S = 2.0


async def _spoken(caller: Caller) -> session_pb2.Session:
    """Open a session whose only utterance has just ended."""
    session = (await caller.create()).session
    stream = await caller.speak(session.id)
    await stream.say(speech.sound(0.2))
    assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    return session


async def test_only_a_caller_that_ends_right_after_speech_waits_for_the_last_sound():
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, end_tail_s=_TAIL_S, admin_port=0) as gateway,
    ):
        async with (
            connect(gateway.address) as caller,
            grpc.aio.insecure_channel(gateway.admin_address) as operators,
        ):
            silent = (await caller.create()).session
            talking = (await caller.create()).session
            stream = await caller.speak(talking.id)
            await stream.say(speech.sound(8.0))
            await stream.until("started")
            ejected = await _spoken(caller)
            eject = admin_service_pb2.EjectSessionRequest(session_id=ejected.id)
            await AdminServiceStub(operators).EjectSession(eject, timeout=20)
            left = await _spoken(caller)
            await asyncio.gather(*(caller.end(one.id) for one in (left, silent, talking)))
            records = {
                name: emulator.session(one.upstream_session_id)
                for name, one in (("left", left), ("silent", silent), ("talking", talking), ("ejected", ejected))
            }
    left_s = records["left"]["ended_at_s"]
    assert left_s - records["left"]["utterances"][0]["ended_at_s"] >= _TAIL_S - 0.1
    assert records["talking"]["utterances"][0]["outcome"] != "completed"
    ejected_after_s = records["ejected"]["ended_at_s"] - records["ejected"]["utterances"][0]["ended_at_s"]
    assert ejected_after_s < _TAIL_S - 0.1
    for name in ("silent", "talking", "ejected"):
        assert records[name]["ended_at_s"] < left_s, f"{name} had nothing to wait for"


async def test_a_drain_right_after_speech_waits_for_the_last_sound():
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, end_tail_s=_TAIL_S, drain_grace_s=10) as gateway,
    ):
        async with connect(gateway.address) as caller:
            session = await _spoken(caller)
            gateway.process.send(signal.SIGTERM)
            assert await asyncio.to_thread(gateway.process.wait, 40) == 0
        record = emulator.session(session.upstream_session_id)
    assert record["ended_at_s"] - record["utterances"][0]["ended_at_s"] >= _TAIL_S - 0.1
