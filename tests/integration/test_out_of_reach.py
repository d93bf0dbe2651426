"""An avatar that cannot be reached any more is given up in bounded time, and the end of its session says so."""

import asyncio

import pytest

from liveavatar.gateway.v1 import session_pb2
from testkit import processes, speech
from testkit.caller import Refusal
from testkit.caller import caller as connect

LIVEKIT = {"livekit_url": "wss://rooms.example.com", "livekit_key": "APIkey", "livekit_secret": "s" * 40}
DESK = session_pb2.LiveKitRoom(name="desk-7")

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("moment", ["before it is ready", "while it speaks"])
async def test_a_socket_that_opens_and_is_closed_again_and_again_costs_the_budget_and_no_more(moment):
    with (
        processes.emulator(ready_delay_ms=200) as emulator,
        processes.gateway(emulator.url, reconnect_budget_s=7) as gateway,
    ):
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            if moment == "while it speaks":
                await attachment.until_ready()
                stream = await caller.speak(attachment.session_id)
                await stream.say(speech.sound(5.0))
                await stream.until("started")
                emulator.change_settings(reconnect_emits_connected=False)
            emulator.socket_fault("drop", attachment.upstream_id, code=1011, times=100_000)
            last = await asyncio.wait_for(attachment.event("ended"), 20)
            assert last.session.end_reason == session_pb2.END_REASON_UPSTREAM_FAILED
            why = Refusal(last.error)
            assert (why.reason, why.metadata["close_code"]) == ("UPSTREAM_UNREACHABLE", "1011")
            assert int(why.metadata["attempt_count"]) >= 2
        emulator.wait_active(0)


async def test_a_session_whose_avatar_cannot_be_replaced_says_that_it_failed():
    settings = {"reconnect_budget_s": 1, **LIVEKIT}
    with processes.emulator() as emulator, processes.gateway(emulator.url, **settings) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach(livekit_room=DESK)
            await attachment.until_ready()
            emulator.fault("start", status=403, code=4032, message="Session concurrency limit reached", times=9)
            emulator.socket_fault("refuse_sockets", attachment.upstream_id, how="reset")
            emulator.drop(attachment.upstream_id, 1011)
            last = await asyncio.wait_for(attachment.event("ended"), 20)
            assert last.session.end_reason == session_pb2.END_REASON_UPSTREAM_FAILED
            assert Refusal(last.error).reason == "CAPACITY_EXHAUSTED"
        emulator.wait_active(0)
