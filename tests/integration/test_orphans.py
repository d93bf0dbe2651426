"""No paid session outlives its owner: another gateway on the same registry ends what a killed one leaves."""

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path

import grpc
import pytest

from liveavatar.gateway import AsyncClient
from liveavatar.gateway.v1 import audio_pb2, session_pb2, session_service_pb2
from testkit import processes, speech
from testkit.caller import AVATAR, Caller, refused
from testkit.caller import caller as connect

GRACE_S = 3.0


@pytest.fixture
def registry(tmp_path: Path) -> str:
    return str(tmp_path / "registry.db")


@pytest.mark.timeout(120)
async def test_what_a_killed_gateway_leaves_is_ended_by_another_within_the_grace(registry, record_property):
    """Goal: no session is active upstream when the grace and 10 s have passed since the kill."""
    shared = {"registry_file": registry, "detach_grace_s": GRACE_S}
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, **shared) as first,
        processes.gateway(emulator.url, **shared) as second,
    ):
        async with connect(first.address) as caller:
            attachments = [await caller.attach() for _ in range(5)]
            for attachment in attachments:
                await attachment.until_ready()
            stream = await caller.speak(attachments[0].session_id)
            await stream.say(speech.sound(20.0))
            await stream.until("started")
            emulator.wait_active(5)
            first.process.kill()
            killed_at_s = time.monotonic()
        await asyncio.to_thread(emulator.wait_active, 0, GRACE_S + 10)
        took_s = time.monotonic() - killed_at_s
        record_property(
            "figure", f"0 active upstream {took_s:.1f} s after the kill, grace {GRACE_S:g} s, goal + 10 s"
        )
        async with connect(second.address) as caller:
            for attachment in attachments:
                # LiveAvatar has stopped the session; this call waits until the gateway knows.
                await caller.end(attachment.session_id)
                session = await caller.get(attachment.session_id)
                assert session.state == session_pb2.SESSION_STATE_ENDED
                assert session.end_reason == session_pb2.END_REASON_CALLER_LOST
                assert session.upstream_session_id == attachment.upstream_id
                assert session.usage.billed_duration.ToTimedelta().total_seconds() >= GRACE_S
        assert second.process.logged("session.swept", "session.ended", times=5)


async def test_a_gateway_that_starts_ends_at_once_what_was_left_long_ago(registry):
    with processes.emulator() as emulator:
        with processes.gateway(emulator.url, registry_file=registry, detach_grace_s=0) as first:
            async with connect(first.address) as caller:
                await caller.attach()
                emulator.wait_active(1)
                first.process.kill()
        await asyncio.sleep(3)
        assert emulator.active() == 1
        with processes.gateway(emulator.url, registry_file=registry, sweep_s=60):
            await asyncio.to_thread(emulator.wait_active, 0, 10)


async def test_a_session_that_was_being_started_when_its_gateway_was_killed_is_ended_too(registry):
    """LiveAvatar may start what nobody waits for any more; its id was written down before it was asked to."""
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=registry) as first,
        processes.gateway(emulator.url, registry_file=registry) as second,
    ):
        emulator.fault("start", delay_s=1.0)
        async with connect(first.address) as caller:
            creation = asyncio.create_task(refused(caller.create()))
            await asyncio.sleep(0.5)
            first.process.kill()
            with pytest.raises(AssertionError, match="no details"):
                await creation
        for _ in range(300):
            if "session.swept" in second.process.log:
                break
            await asyncio.sleep(0.05)
        await asyncio.to_thread(emulator.wait_active, 0, 10)
        assert second.process.logged("session.swept")


async def test_a_start_that_takes_effect_after_its_dead_gateway_was_swept_is_ended_too(registry):
    """LiveAvatar does not know yet what it is about to start: its absence is no proof."""
    settings = {"registry_file": registry, "lease_s": 1, "rest_timeout_s": 4}
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, **settings) as first,
        processes.gateway(emulator.url, **settings) as second,
    ):
        emulator.fault("start", delay_s=1.5)
        async with connect(first.address) as caller, connect(second.address) as other:
            creation = asyncio.create_task(refused(caller.create("again")))
            await asyncio.sleep(0.5)
            first.process.kill()
            with pytest.raises(AssertionError, match="no details"):
                await creation
            again = await other.attach("again")
            async with asyncio.timeout(10):
                while emulator.state()["sessions"]["started_total"] < 2:
                    await asyncio.sleep(0.05)
            await asyncio.to_thread(emulator.wait_active, 1, 10)
            assert emulator.runs(again.upstream_id)
            await other.end(again.session_id)


async def test_a_start_that_takes_effect_after_it_was_given_up_is_ended_too(registry):
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=registry, rest_timeout_s=1) as gateway,
    ):
        emulator.fault("start", delay_s=1.6)
        async with connect(gateway.address) as caller:
            assert (await refused(caller.create())).reason == "UPSTREAM_TIMEOUT"
            async with asyncio.timeout(10):
                while not emulator.state()["sessions"]["started_total"]:
                    await asyncio.sleep(0.05)
            await asyncio.to_thread(emulator.wait_active, 0, 5)


@pytest.mark.parametrize("at", ["note", "start"])
async def test_a_session_that_was_called_off_while_it_was_made_has_ended_for_every_process(registry, at):
    """Requests in flight to the registry or to LiveAvatar arrive after the process has ended."""
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=registry) as first,
        processes.gateway(emulator.url, registry_file=registry) as second,
    ):
        blocker = sqlite3.connect(registry, isolation_level=None)
        if at == "note":
            # The permit is written before the token is asked for, and the session after it.
            emulator.fault("token", delay_s=0.8)
        else:
            emulator.fault("start", delay_s=1.5)
        async with connect(first.address) as caller, connect(second.address) as other:
            creation = asyncio.create_task(caller.create())
            await asyncio.sleep(0.4)
            if at == "note":
                blocker.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(0.9)
            creation.cancel()
            (known,) = (await caller.sessions.ListSessions(session_service_pb2.ListSessionsRequest())).sessions
            await asyncio.sleep(0.5)
            if at == "note":
                blocker.execute("ROLLBACK")
            blocker.close()
            found = await found_by_all(other, known.id)
            assert found.state == session_pb2.SESSION_STATE_ENDED
            assert found.end_reason == session_pb2.END_REASON_CALLER_LOST
            await asyncio.to_thread(emulator.wait_active, 0, 10)


async def test_a_start_that_fails_leaves_sessions_to_one_that_works(registry):
    """A supervisor tries again: what is to be paid for meanwhile is what callers come back to."""
    with processes.emulator() as emulator, contextlib.ExitStack() as stack:
        first = stack.enter_context(processes.gateway(emulator.url, registry_file=registry))
        stranger = stack.enter_context(processes.gateway(emulator.url))
        async with connect(first.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            first.process.kill()
        taken = int(stranger.address.rpartition(":")[2])
        with (
            pytest.raises(RuntimeError, match="port is in use"),
            processes.gateway(emulator.url, port=taken, registry_file=registry),
        ):
            pass
        assert emulator.active() == 1
        second = stack.enter_context(processes.gateway(emulator.url, registry_file=registry))
        async with connect(second.address) as caller:
            resumed = await caller.resume(attachment.opened.handle, skip_compacted=True)
            await resumed.event("reconnected")
            await caller.end(attachment.session_id)


async def test_whoever_saw_all_events_of_a_dead_process_is_told_that_its_session_was_ended(registry):
    with processes.emulator() as emulator:
        with processes.gateway(emulator.url, registry_file=registry, detach_grace_s=0) as first:
            async with connect(first.address) as caller:
                attachment = await caller.attach()
                await attachment.event("pose_changed")
                first.process.kill()
        last = attachment.events[-1].sequence
        await asyncio.sleep(3)
        with processes.gateway(emulator.url, registry_file=registry) as second:
            async with connect(second.address) as caller:
                await found_by_all(caller, attachment.session_id)
                resumed = await caller.resume(attachment.opened.handle, last)
                ended = await resumed.event("ended")
                assert ended.session.end_reason == session_pb2.END_REASON_CALLER_LOST
                assert [event.sequence for event in resumed.events] == [last + 1]


async def test_a_full_account_is_searched_for_our_own_orphans(registry):
    """The next caller gets the place that a killed process still held, long before the next look for orphans."""
    shared = {"registry_file": registry, "detach_grace_s": 0, "sweep_s": 60}
    with (
        processes.emulator(concurrency=1) as emulator,
        processes.gateway(emulator.url, **shared) as first,
        processes.gateway(emulator.url, **shared) as second,
    ):
        async with connect(first.address) as caller:
            old = await caller.attach()
            await old.until_ready()
            first.process.kill()
        await asyncio.sleep(3)
        async with connect(second.address) as caller:
            created = await caller.create()
            assert created.session.state == session_pb2.SESSION_STATE_READY
            await caller.end(created.session.id)
        assert second.process.logged("sweep.for_capacity")


async def test_sessions_of_others_on_a_full_account_are_left_alone(registry):
    with (
        processes.emulator(concurrency=1) as emulator,
        processes.gateway(emulator.url, registry_file=registry) as stranger,
        processes.gateway(emulator.url, registry_file=f"{registry}.another") as ours,
    ):
        async with connect(stranger.address) as their_caller, connect(ours.address) as caller:
            theirs = await their_caller.attach()
            await theirs.until_ready()
            refusal = await refused(caller.create())
            assert refusal.reason == "CAPACITY_EXHAUSTED"
            assert refusal.metadata["upstream_code"] == "4032"
            assert emulator.active() == 1
            assert (await their_caller.get(theirs.session_id)).state == session_pb2.SESSION_STATE_READY
            await their_caller.end(theirs.session_id)


async def test_who_asks_the_wrong_process_is_told_where_the_session_is(registry):
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=registry) as first,
        processes.gateway(emulator.url, registry_file=registry) as second,
    ):
        async with connect(first.address) as caller, connect(second.address) as other:
            attachment = await caller.attach()
            await attachment.until_ready()
            for question in (
                other.get(attachment.session_id),
                other.speak(attachment.session_id),
                other.resume(attachment.opened.handle),
            ):
                refusal = await refused(question)
                assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "OWNER_MOVED")
                assert refusal.metadata["address"] == first.address
            ended = await caller.end(attachment.session_id)
            found = await found_by_all(other, attachment.session_id)
            assert found.state == session_pb2.SESSION_STATE_ENDED
            assert (found.end_reason, found.ended_at) == (ended.end_reason, ended.ended_at)


async def test_a_retry_that_comes_to_another_process_makes_no_second_session(registry):
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=registry) as first,
        processes.gateway(emulator.url, registry_file=registry) as second,
    ):
        async with connect(first.address) as caller, connect(second.address) as other:
            attachment = await caller.attach(request_id="wish")
            await attachment.until_ready()
            refusal = await refused(other.attach(request_id="wish"))
            assert (refusal.reason, refusal.metadata["address"]) == ("OWNER_MOVED", first.address)
            refusal = await refused(other.attach(request_id="wish", labels={"desk": "7"}))
            assert refusal.reason == "REQUEST_ID_REUSED"
            # The client library goes where it is sent.
            async with AsyncClient(second.address) as client:
                sent = await client.create_session(AVATAR, request_id="wish")
                assert sent.session.id == attachment.session_id
            first.process.kill()
            again = await other.attach(request_id="wish")
            assert again.session_id == attachment.session_id
            emulator.wait_active(1)
            await other.end(attachment.session_id)
            ended = await other.attach(request_id="wish")
            assert ended.session_id == attachment.session_id
            assert ended.opened.session.state == session_pb2.SESSION_STATE_ENDED


async def test_a_request_is_reserved_before_anything_is_asked_of_liveavatar(registry):
    """A retry at another process while the first waits for its token, as after a lost answer."""
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=registry) as first,
        processes.gateway(emulator.url, registry_file=registry) as second,
    ):
        emulator.fault("token", delay_s=3.0, times=1)
        async with connect(first.address) as caller, connect(second.address) as other:
            creating = asyncio.create_task(caller.create("wish"))
            await asyncio.sleep(1.0)
            refusal = await refused(other.create("wish"))
            assert (refusal.reason, refusal.metadata["address"]) == ("OWNER_MOVED", first.address)
            created = await creating
            assert len(emulator.sessions()) == 1
            await caller.end(created.session.id)


@pytest.mark.parametrize("why", ["failed", "killed"])
async def test_a_reservation_ends_with_the_creation_that_failed_or_the_process_that_made_it(registry, why):
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=registry, sweep_s=60) as first,
        processes.gateway(emulator.url, registry_file=registry, sweep_s=60) as second,
    ):
        async with connect(first.address) as caller, connect(second.address) as other:
            if why == "failed":
                emulator.fault("token", status=402, times=1)
                await refused(caller.create("wish"))
            else:
                emulator.fault("token", delay_s=5.0, times=1)
                creating = asyncio.create_task(caller.create("wish"))
                await asyncio.sleep(1.0)
                first.process.kill()
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await creating
            created = await other.create("wish")
            assert created.session.state == session_pb2.SESSION_STATE_READY
            assert (await other.create("wish")).session.id == created.session.id
            await other.end(created.session.id)


async def test_a_request_may_be_tried_again_while_what_failed_is_still_being_stopped(registry):
    """Its caller was answered before LiveAvatar confirmed the stop."""
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=registry) as gateway,
    ):
        emulator.fault("start", status=500, times=1)
        emulator.fault("stop", delay_s=4.0, times=1)
        async with connect(gateway.address) as caller:
            await refused(caller.create("wish"))
            created = await caller.create("wish")
            assert created.session.state == session_pb2.SESSION_STATE_READY
            await asyncio.to_thread(emulator.wait_active, 1)
            # The end of the first does not let go of the second's name.
            await asyncio.sleep(4.5)
            assert (await caller.create("wish")).session.id == created.session.id
            await caller.end(created.session.id)


async def test_a_caller_that_leaves_while_its_request_is_reserved_finds_its_session_within_the_grace(registry):
    """The registry is locked: the reservation is still under way when the caller has gone."""
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=registry, detach_grace_s=4) as gateway,
    ):
        async with connect(gateway.address) as caller:
            blocker = sqlite3.connect(registry, isolation_level=None)
            blocker.execute("BEGIN IMMEDIATE")
            creating = asyncio.create_task(caller.create("wish"))
            await asyncio.sleep(0.7)
            creating.cancel()
            await asyncio.sleep(0.3)
            blocker.execute("ROLLBACK")
            blocker.close()
            await asyncio.to_thread(emulator.wait_active, 1)
            # Nobody comes back: it is not paid for beyond its grace.
            await asyncio.to_thread(emulator.wait_active, 0)


async def test_callers_are_sent_to_the_address_that_the_owner_advertises(registry):
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=registry, advertised_address="gw-1.internal:443") as first,
        processes.gateway(emulator.url, registry_file=registry) as second,
    ):
        async with connect(first.address) as caller, connect(second.address) as other:
            created = await caller.create()
            refusal = await refused(other.get(created.session.id))
            assert refusal.metadata["address"] == "gw-1.internal:443"
            await caller.end(created.session.id)


async def found_by_all(other: Caller, session_id: str) -> session_pb2.Session:
    """Return the session as another process reads it, once the owner has recorded its end."""
    for _ in range(100):
        with contextlib.suppress(grpc.aio.AioRpcError):
            return await other.get(session_id)
        await asyncio.sleep(0.05)
    raise AssertionError(f"the owner never gave {session_id} up")


async def test_without_its_registry_a_gateway_starts_nothing_new_and_ends_nothing(registry):
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=registry) as gateway,
    ):
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            blocker = sqlite3.connect(registry, isolation_level=None)
            blocker.execute("BEGIN IMMEDIATE")
            pcm = speech.sound(3.0)
            await stream.say(pcm)
            refusal = await refused(caller.create())
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "REGISTRY_UNAVAILABLE")
            assert refusal.retry_s > 0
            assert emulator.active() == 1
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            blocker.execute("ROLLBACK")
            blocker.close()
            created = await caller.create()
            await caller.end(created.session.id)
            await caller.end(attachment.session_id)
            assert emulator.audio(attachment.upstream_id) == pcm
        assert gateway.process.logged("registry.unavailable")
        assert gateway.process.logged("registry.available")


async def test_a_gateway_without_a_registry_serves_all_the_same(tmp_path):
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file="off") as gateway,
    ):
        async with connect(gateway.address) as caller:
            created = await caller.create()
            stream = await caller.speak(created.session.id)
            await stream.say(speech.sound(1.0))
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            ended = await caller.end(created.session.id)
            assert ended.end_reason == session_pb2.END_REASON_CALLER_ENDED
            assert (await refused(caller.get("never-was"))).reason == "SESSION_NOT_FOUND"
