"""Sessions that say nothing are kept alive at LiveAvatar, also while their command socket is down."""

import asyncio
import re

import httpx
import pytest

from liveavatar.gateway.v1 import session_pb2
from testkit import processes, speech
from testkit.caller import Attachment
from testkit.caller import caller as connect

_IDLE_S = 3.0
"""Idle limit of the emulator."""


async def until_state(attachment: Attachment, state: int) -> None:
    while (await attachment.event("state_changed")).state != state:
        pass


def ways(emulator: processes.Emulator, upstream_id: str) -> list[str]:
    return [one["via"] for one in emulator.session(upstream_id)["keepalives"]]


async def kept_alive(gateway: processes.Gateway, way: str, outcome: str) -> float:
    async with httpx.AsyncClient() as client:
        text = (await client.get(gateway.metrics)).text
    line = rf'^gateway_upstream_keep_alives_total{{outcome="{outcome}",way="{way}"}} (\S+)$'
    found = re.search(line, text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def lose_socket(emulator: processes.Emulator, attachment: Attachment, for_s: float) -> None:
    emulator.socket_fault("refuse_sockets", attachment.upstream_id, how="reset", for_s=for_s)
    emulator.socket_fault("drop", attachment.upstream_id)
    await until_state(attachment, session_pb2.SESSION_STATE_RECONNECTING)


async def test_a_socket_that_stays_down_longer_than_the_idle_limit_loses_no_session():
    with (
        processes.emulator(idle_s=_IDLE_S) as emulator,
        processes.gateway(emulator.url, keep_alive_s=1, reconnect_budget_s=60, metrics_port=0) as gateway,
    ):
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            await lose_socket(emulator, attachment, for_s=3 * _IDLE_S)
            await until_state(attachment, session_pb2.SESSION_STATE_READY)
            stream = await caller.speak(attachment.session_id)
            await stream.say(speech.sound(0.5), "still here")
            await stream.until("ended")
            assert "rest" in ways(emulator, attachment.upstream_id)
            assert await kept_alive(gateway, "rest", "sent") >= 3
            await caller.end(attachment.session_id)


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 429, "retry_after_s": 0.2}, {"delay_s": 0.3}])
async def test_a_keep_alive_that_fails_is_repeated_before_the_idle_limit(fault):
    with (
        processes.emulator(idle_s=_IDLE_S) as emulator,
        processes.gateway(emulator.url, keep_alive_s=1, reconnect_budget_s=60, metrics_port=0) as gateway,
    ):
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            emulator.fault("keep-alive", times=2, **fault)
            await lose_socket(emulator, attachment, for_s=2 * _IDLE_S)
            await until_state(attachment, session_pb2.SESSION_STATE_READY)
            assert emulator.runs(attachment.upstream_id)
            if "status" in fault:
                assert await kept_alive(gateway, "rest", "failed") == 2
            await caller.end(attachment.session_id)


async def test_a_ready_socket_needs_no_rest():
    with (
        processes.emulator(idle_s=_IDLE_S) as emulator,
        processes.gateway(emulator.url, keep_alive_s=1, metrics_port=0) as gateway,
    ):
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            await asyncio.sleep(2 * _IDLE_S)
            assert set(ways(emulator, attachment.upstream_id)) == {"socket"}
            assert await kept_alive(gateway, "socket", "sent") >= 5
            await caller.end(attachment.session_id)


async def test_none_is_sent_while_audio_flows():
    with processes.emulator() as emulator, processes.gateway(emulator.url, keep_alive_s=1.5) as gateway:
        async with connect(gateway.address) as caller:
            made = await caller.create()
            upstream_id = made.session.upstream_session_id
            stream = await caller.speak(made.session.id)
            await stream.say(speech.sound(5.0), "a monologue")
            await stream.until("ended")
            commands = emulator.session(upstream_id)["commands"]
            packets = [at["at_s"] for at in commands if at["type"] == "agent.speak"]
            between = [one for one in emulator.session(upstream_id)["keepalives"] if one["at_s"] < packets[-1]]
            assert between == []
            await caller.end(made.session.id)


async def test_an_adopted_session_is_kept_alive_at_once(tmp_path):
    """The last command is unknown, and may have been sent a whole interval before its owner died."""
    shared = {"registry_file": tmp_path / "registry.db", "keep_alive_s": 60}
    with processes.emulator() as emulator:
        with processes.gateway(emulator.url, **shared) as first:
            async with connect(first.address) as caller:
                attachment = await caller.attach()
                await attachment.until_ready()
                first.process.kill()
        with processes.gateway(emulator.url, **shared) as second:
            async with connect(second.address) as caller:
                await caller.resume(attachment.opened.handle, skip_compacted=True)
                async with asyncio.timeout(20):
                    while not ways(emulator, attachment.upstream_id):
                        await asyncio.sleep(0.1)
                await caller.end(attachment.session_id)
