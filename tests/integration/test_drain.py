"""SIGTERM: every utterance gets its end or a reason, every session is stopped, the process exits with 0."""

import asyncio
import signal

import grpc
import pytest

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from testkit import processes, speech
from testkit.caller import Caller, Refusal, refused
from testkit.caller import caller as connect

TALKING = 20


async def _talk(caller: Caller, seconds: float):
    attachment = await caller.attach()
    stream = await caller.speak(attachment.session_id)
    await stream.say(speech.sound(seconds), "u")
    await stream.until("started")
    return attachment, stream


async def _exit_code(gateway: processes.Gateway) -> int:
    return await asyncio.to_thread(gateway.process.wait, 40)


@pytest.mark.parametrize(
    ("said_s", "grace_s", "outcome"),
    [
        pytest.param(2.0, 20, audio_pb2.UTTERANCE_OUTCOME_COMPLETED, id="speech that fits the grace is finished"),
        pytest.param(20.0, 3, audio_pb2.UTTERANCE_OUTCOME_FAILED, id="speech that does not fit gets a reason"),
    ],
)
@pytest.mark.timeout(120)
async def test_twenty_talking_sessions_are_drained(emulator, said_s, grace_s, outcome):
    before = emulator.active()
    with processes.gateway(emulator.url, drain_grace_s=grace_s) as gateway:
        async with connect(gateway.address) as caller:
            talking = await asyncio.gather(*[_talk(caller, said_s) for _ in range(TALKING)])
            assert emulator.active() == before + TALKING
            gateway.process.send(signal.SIGTERM)
            for attachment, stream in talking:
                ended = await stream.until("ended")
                assert ended.outcome == outcome
                if outcome == audio_pb2.UTTERANCE_OUTCOME_FAILED:
                    why = Refusal(ended.error)
                    assert (why.reason, why.metadata["end_reason"]) == ("SESSION_ENDED", "DRAINED")
                last = await attachment.event("ended")
                assert last.session.end_reason == session_pb2.END_REASON_DRAINED
                assert attachment.go_aways[0].handle == attachment.opened.handle
                assert await attachment.closed() is grpc.StatusCode.OK
            assert await _exit_code(gateway) == 0
    assert emulator.active() == before


async def test_a_draining_gateway_takes_nothing_new_and_says_so(emulator):
    with processes.gateway(emulator.url, drain_grace_s=8) as gateway:
        async with connect(gateway.address) as caller:
            attachment, stream = await _talk(caller, 3.0)
            gateway.process.send(signal.SIGTERM)
            while not attachment.go_aways:
                await attachment.read()
            why = await refused(caller.create())
            assert (why.reason, why.code) == ("DRAINING", grpc.StatusCode.UNAVAILABLE)
            assert why.retry_s > 0
            await stream.begin("late")
            assert Refusal((await stream.until("rejected")).error).reason == "DRAINING"
            await stream.end()
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            assert await _exit_code(gateway) == 0


async def test_a_second_signal_cuts_speech_and_still_stops_the_session(emulator):
    before = emulator.active()
    with processes.gateway(emulator.url, drain_grace_s=30) as gateway:
        async with connect(gateway.address) as caller:
            attachment, stream = await _talk(caller, 15.0)
            gateway.process.send(signal.SIGINT)
            while not attachment.go_aways:
                await attachment.read()
            gateway.process.send(signal.SIGINT)
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_FAILED
            assert await _exit_code(gateway) == 0
    assert emulator.active() == before


async def test_a_gateway_without_sessions_exits_at_once(emulator):
    with processes.gateway(emulator.url, drain_grace_s=60) as gateway:
        gateway.process.send(signal.SIGTERM)
        assert await _exit_code(gateway) == 0


@pytest.mark.timeout(90)
async def test_a_liveavatar_that_is_gone_does_not_keep_the_gateway_from_exiting():
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, drain_grace_s=4, rest_timeout_s=2) as gateway,
    ):
        async with connect(gateway.address) as caller:
            attachment, _ = await _talk(caller, 10.0)
            emulator.process.stop()
            gateway.process.send(signal.SIGTERM)
            await attachment.event("ended")
            assert await _exit_code(gateway) == 0
        assert gateway.process.logged("shutdown.sessions_may_still_run")


@pytest.mark.parametrize("when", ["answered in time", "never answered"])
async def test_a_start_that_is_in_flight_when_the_gateway_exits_is_stopped_or_named(when):
    """LiveAvatar has started the session and bills it, and the gateway does not know that yet."""
    lasts = {"delay_s": 7.0} if when == "answered in time" else {"hang": True}
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, drain_grace_s=3, registry_file="off", rest_timeout_s=30) as gateway,
    ):
        emulator.fault("start", after_effect=True, **lasts)
        async with connect(gateway.address) as caller:
            opening = asyncio.create_task(caller.create())
            await asyncio.to_thread(emulator.wait_active, 1)
            gateway.process.send(signal.SIGTERM)
            assert (await refused(opening)).metadata["end_reason"] == "DRAINED"
        assert await _exit_code(gateway) == 0
        [upstream_id] = [session["id"] for session in emulator.sessions()]
        named = upstream_id in gateway.process.log
        assert emulator.active() == (0 if when == "answered in time" else 1)
        assert named == (when == "never answered")
        assert ("shutdown.sessions_may_still_run" in gateway.process.log) == named
