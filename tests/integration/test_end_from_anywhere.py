"""A session is ended through any process of the gateway, also when the one that drives it is dead or hangs."""

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import grpc

from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar_gateway.registry.factory import RegistryConfig, account_name, make_registry
from testkit import processes, speech
from testkit.caller import caller as connect
from testkit.caller import refused, refused_before_deadline


@contextlib.contextmanager
def two_gateways(registry: Path, **settings: float) -> Iterator[tuple]:
    """Run an emulator and two gateways that share a registry."""
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=str(registry), **settings) as first,
        processes.gateway(emulator.url, registry_file=str(registry), **settings) as second,
    ):
        yield emulator, first, second


async def stop_outside_of_a_write(gateway: processes.Gateway, registry: Path) -> None:
    """Stop a gateway while it does not hold the lock of the registry, which it would keep."""
    while True:
        gateway.process.send(signal.SIGSTOP)
        probe = sqlite3.connect(registry, isolation_level=None, timeout=0.5)
        try:
            probe.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            gateway.process.send(signal.SIGCONT)
            await asyncio.sleep(0.1)
        else:
            probe.execute("ROLLBACK")
            return
        finally:
            probe.close()


async def test_any_process_ends_a_session_of_another_and_gives_its_final_record(tmp_path):
    with two_gateways(tmp_path / "registry.db") as (emulator, first, second):
        async with connect(first.address) as caller, connect(second.address) as other:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            await stream.say(speech.sound(10.0))
            await stream.until("started")
            ended = await other.end(attachment.session_id)
            assert emulator.active() == 0
            assert ended.state == session_pb2.SESSION_STATE_ENDED
            assert ended.end_reason == session_pb2.END_REASON_CALLER_ENDED
            assert ended.usage.received_bytes > 0
            assert (await attachment.event("ended")).session.end_reason == ended.end_reason
            assert (await other.end(attachment.session_id)).end_reason == ended.end_reason
            assert (await caller.end(attachment.session_id)).usage == ended.usage


async def test_a_wish_of_another_version_ends_the_session_and_nothing_else(tmp_path):
    """Its reason may be one that this version does not have; the owner goes on with its books."""
    registry = str(tmp_path / "registry.db")
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=registry, lease_s=2) as gateway,
    ):
        account = account_name(emulator.url, processes.API_KEY)
        async with (
            make_registry(RegistryConfig(file=registry, account=account)) as newer,
            connect(gateway.address) as caller,
        ):
            attachment = await caller.attach()
            await attachment.until_ready()
            await newer.request_end(attachment.session_id, "NO_REASON_OF_THIS_VERSION")
            ended = await attachment.event("ended")
            assert ended.session.end_reason == session_pb2.END_REASON_OPERATOR
            second = await caller.attach()
            await newer.request_end(second.session_id, "CALLER_ENDED")
            ended = await second.event("ended")
            assert ended.session.end_reason == session_pb2.END_REASON_CALLER_ENDED


async def test_a_session_of_a_dead_process_ends_at_once_for_who_asks(tmp_path):
    with two_gateways(tmp_path / "registry.db", detach_grace_s=300, sweep_s=60) as (emulator, first, second):
        async with connect(first.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            first.process.kill()
        async with connect(second.address) as other:
            ended = await other.end(attachment.session_id)
            assert ended.end_reason == session_pb2.END_REASON_CALLER_ENDED
            assert emulator.active() == 0


async def test_a_wish_to_end_outlives_the_process_that_was_to_carry_it_out(tmp_path):
    """The owner hangs, the call runs out, the owner dies: the session does not wait out its grace."""
    with two_gateways(tmp_path / "registry.db", detach_grace_s=300) as (emulator, first, second):
        async with connect(first.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            await stop_outside_of_a_write(first, tmp_path / "registry.db")
        async with connect(second.address) as other:
            request = p.EndSessionRequest(session_id=attachment.session_id)
            refusal = await refused_before_deadline(lambda s: other.sessions.EndSession(request, timeout=s))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "OWNER_MOVED")
            assert emulator.active() == 1
            first.process.kill()
            await asyncio.to_thread(emulator.wait_active, 0, 15)
            assert (await other.end(attachment.session_id)).end_reason == session_pb2.END_REASON_CALLER_ENDED


async def test_a_process_that_hung_ends_what_was_to_end_when_it_goes_on(tmp_path):
    with two_gateways(tmp_path / "registry.db") as (emulator, first, second):
        async with connect(first.address) as caller, connect(second.address) as other:
            attachment = await caller.attach()
            await attachment.until_ready()
            await stop_outside_of_a_write(first, tmp_path / "registry.db")
            try:
                ending = asyncio.create_task(other.end(attachment.session_id))
                await asyncio.sleep(1)
                assert not ending.done()
            finally:
                first.process.send(signal.SIGCONT)
            assert (await ending).end_reason == session_pb2.END_REASON_CALLER_ENDED
            assert emulator.active() == 0


async def test_whoever_comes_back_to_another_process_is_told_how_the_session_ended(tmp_path):
    with two_gateways(tmp_path / "registry.db") as (_, first, second):
        async with connect(first.address) as caller, connect(second.address) as other:
            attachment = await caller.attach()
            await attachment.until_ready()
            seen = attachment.events[-1].sequence
            resumed = await caller.resume(attachment.opened.handle, seen)
            ended = await caller.end(attachment.session_id)
            for handle in (attachment.opened.handle, resumed.opened.handle):
                again = await other.resume(handle, seen, skip_compacted=True)
                assert again.opened.session.end_reason == ended.end_reason
                last = (await again.event("ended")).session
                assert (last.end_reason, last.ended_at, last.usage) == (
                    ended.end_reason,
                    ended.ended_at,
                    ended.usage,
                )
                refusal = await refused(other.speak(attachment.session_id))
                assert (refusal.reason, refusal.metadata["end_reason"]) == ("SESSION_ENDED", "CALLER_ENDED")
