"""A killed gateway is no end: another process goes on with its sessions where it was, to the byte."""

import asyncio
import contextlib
import random
import time
from pathlib import Path

import grpc
import pytest

from liveavatar.gateway import AsyncClient, OutcomeKind, SessionAdoptedEvent
from liveavatar.gateway.v1 import admin_service_pb2, audio_pb2, session_pb2, session_service_pb2
from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceStub
from liveavatar_gateway.registry.factory import RegistryConfig, account_name, make_registry
from testkit import processes, speech
from testkit.caller import AVATAR, refused
from testkit.caller import caller as connect

ODD_BYTES = 95_999
"""Chunks that end inside a sample: what a killed process held of one is asked for again."""


@pytest.fixture
def registry(tmp_path: Path) -> str:
    return str(tmp_path / "registry.db")


def _port(gateway: processes.Gateway) -> int:
    return int(gateway.address.rpartition(":")[2])


def _kinds(attachment) -> list[str]:
    return [event.WhichOneof("event") for event in attachment.events]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("profile", ["modern", "classic", "acks_only"])
async def test_a_sentence_survives_kill_minus_9_again_and_again(registry, profile, record_property):
    """Goal: no byte lost and none repeated; the gap that is heard is at most the restart and 2 s."""
    rng = random.Random(profile)
    pcm = speech.sound(16.0, seed=7)
    with processes.emulator(profile=profile) as emulator, contextlib.ExitStack() as stack:
        settings = {"registry_file": registry, "detach_grace_s": 20}
        gateway = stack.enter_context(processes.gateway(emulator.url, **settings))
        port = _port(gateway)
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            await stream.say(pcm, "monologue", chunk_bytes=ODD_BYTES)
            await stream.until("started")
            await asyncio.sleep(rng.uniform(0.3, 1.5))
        last = attachment.events[-1].sequence
        downs_s = []
        for _ in range(3):
            gateway.process.kill()
            killed_at_s = time.monotonic()
            gateway = stack.enter_context(processes.gateway(emulator.url, port=port, **settings))
            downs_s.append(time.monotonic() - killed_at_s)
            async with connect(gateway.address) as caller:
                resumed = await caller.resume(attachment.opened.handle, last, skip_compacted=True)
                assert resumed.session_id == attachment.session_id
                await resumed.event("adopted")
                last = resumed.events[-1].sequence
                stream = await caller.speak(attachment.session_id)
                ack = await stream.resume("monologue")
                assert ack.received_bytes >= ack.confirmed_bytes > 0
                await stream.say_on(pcm, ack.received_bytes, chunk_bytes=ODD_BYTES)
                await asyncio.sleep(rng.uniform(0.3, 1.5))
                attachment = resumed
        async with connect(gateway.address) as caller:
            stream = await caller.speak(attachment.session_id)
            await stream.resume("monologue")
            await stream.end()
            ended = await stream.until("ended")
            assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            session = await caller.end(attachment.session_id)
        assert session.end_reason == session_pb2.END_REASON_CALLER_ENDED
        assert emulator.state()["sessions"]["active"] == 0
        (utterance,) = emulator.session(attachment.upstream_id)["utterances"]
        heard = emulator.audio(attachment.upstream_id)
        gaps = [gap["resumed_at_s"] - gap["dry_at_s"] for gap in utterance["underruns"]["gaps"]]
        told = [", ".join(f"{one_s:.1f}" for one_s in many_s) or "none" for many_s in (downs_s, gaps)]
        record_property(
            "figure", f"{len(heard) - len(pcm):+} bytes heard, restarts took {told[0]} s, gaps heard {told[1]} s"
        )
        assert heard == pcm
        assert max(gaps, default=0.0) <= max(downs_s) + 2.0


async def test_a_sentence_of_another_rate_survives_kill_minus_9_without_a_sample_missing(registry):
    """The resampler's buffered input was never sent, so the caller sends it again."""
    pcm = speech.sound(8.0)[: 16_000 * 2 * 8]
    telephone = {"sample_rate_hz": 16_000}
    with processes.emulator() as emulator, contextlib.ExitStack() as stack:
        settings = {"registry_file": registry, "detach_grace_s": 20}
        gateway = stack.enter_context(processes.gateway(emulator.url, **settings))
        port = _port(gateway)
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id, **telephone)
            await stream.say(pcm, "sentence")
            await stream.until("started")
        for _ in range(2):
            gateway.process.kill()
            gateway = stack.enter_context(processes.gateway(emulator.url, port=port, **settings))
            async with connect(gateway.address) as caller:
                resumed = await caller.resume(attachment.opened.handle, skip_compacted=True)
                await resumed.event("reconnected")
                stream = await caller.speak(attachment.session_id, **telephone)
                ack = await stream.resume("sentence")
                await stream.say_on(pcm, ack.received_bytes)
                await asyncio.sleep(0.5)
                attachment = resumed
        async with connect(gateway.address) as caller:
            stream = await caller.speak(attachment.session_id, **telephone)
            await stream.resume("sentence")
            await stream.end()
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            await caller.end(attachment.session_id)
        samples = len(emulator.audio(attachment.upstream_id)) // 2
        assert abs(samples - 8 * 24_000) <= 4, f"{8 * 24_000 - samples} samples are missing"


async def test_events_are_numbered_on_and_tell_of_the_adoption(registry):
    with processes.emulator() as emulator, contextlib.ExitStack() as stack:
        gateway = stack.enter_context(processes.gateway(emulator.url, registry_file=registry))
        port = _port(gateway)
        async with connect(gateway.address) as caller:
            attachment = await caller.attach(labels={"desk": "7"})
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            await stream.say(speech.sound(0.5), "said before")
            await stream.until("ended")
            before = await caller.get(attachment.session_id)
            await attachment.event("utterance_ended")
            gateway.process.kill()
        gateway = stack.enter_context(processes.gateway(emulator.url, port=port, registry_file=registry))
        async with connect(gateway.address) as caller:
            last = attachment.events[-1].sequence
            resumed = await caller.resume(attachment.opened.handle, last, skip_compacted=True)
            adopted = await resumed.event("adopted")
            assert 0 < adopted.gap.ToTimedelta().total_seconds() < 60
            await resumed.event("reconnected")
            numbers = [event.sequence for event in resumed.events]
            first = max(last, resumed.opened.compacted_through) + 1
            assert numbers == list(range(first, first + len(numbers)))
            after = await caller.get(attachment.session_id)
            assert after.state == session_pb2.SESSION_STATE_READY
            for same in (
                "id",
                "avatar_id",
                "upstream_session_id",
                "created_at",
                "ready_at",
                "expires_at",
                "labels",
            ):
                assert getattr(after, same) == getattr(before, same), same
            assert after.usage.utterance_count == before.usage.utterance_count == 1
            assert after.usage.received_bytes == before.usage.received_bytes
            assert (resumed.opened.room.url, resumed.opened.room.viewer_token) == (
                attachment.opened.room.url,
                attachment.opened.room.viewer_token,
            )
            stream = await caller.speak(attachment.session_id)
            await stream.begin("said before", resume=True)
            ended = await stream.until("ended")
            assert (ended.outcome, ended.played.ToTimedelta().total_seconds()) == (
                audio_pb2.UTTERANCE_OUTCOME_COMPLETED,
                0.5,
            )
            await stream.say(speech.sound(0.5, seed=2), "said after")
            assert (await stream.until("ended")).utterance_id == "said after"
            await caller.end(attachment.session_id)
            assert emulator.audio(attachment.upstream_id) == speech.sound(0.5) + speech.sound(0.5, seed=2)


async def test_another_process_takes_a_session_over_as_soon_as_somebody_asks_it(registry):
    """Long before its next look for orphans."""
    shared = {"registry_file": registry, "sweep_s": 60}
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, **shared) as first,
        processes.gateway(emulator.url, **shared) as second,
    ):
        await asyncio.sleep(1.0)
        async with connect(first.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            first.process.kill()
        async with connect(second.address) as caller:
            resumed = await caller.resume(attachment.opened.handle, skip_compacted=True)
            await resumed.event("adopted")
            stream = await caller.speak(attachment.session_id)
            await stream.say(speech.sound(0.5))
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            await caller.end(attachment.session_id)
        assert emulator.active() == 0


async def test_a_handle_that_was_replaced_long_ago_or_never_given_adopts_nothing(registry):
    shared = {"registry_file": registry, "sweep_s": 60}
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, **shared) as first,
        processes.gateway(emulator.url, **shared) as second,
    ):
        await asyncio.sleep(1.0)
        async with connect(first.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            first.process.kill()
        async with connect(second.address) as caller:
            guess = f"{attachment.session_id}.guessed"
            assert (await refused(caller.resume(guess))).reason == "SESSION_NOT_FOUND"
            assert "session.adopted" not in second.process.log
            assert guess not in second.process.log


async def test_the_same_request_gives_the_same_session_through_a_restart(registry):
    with processes.emulator() as emulator, contextlib.ExitStack() as stack:
        gateway = stack.enter_context(processes.gateway(emulator.url, registry_file=registry))
        port = _port(gateway)
        async with connect(gateway.address) as caller:
            created = await caller.create("wanted-once")
            gateway.process.kill()
        gateway = stack.enter_context(processes.gateway(emulator.url, port=port, registry_file=registry))
        async with connect(gateway.address) as caller:
            again = await caller.create("wanted-once")
            assert again.session.id == created.session.id
            await caller.end(created.session.id)
        assert len(emulator.sessions()) == 1


async def test_a_session_that_nobody_comes_back_to_is_ended_when_the_rest_of_its_grace_is_over(registry):
    """Not a whole grace after the adoption: a gateway that is killed again and again ends it all the same."""
    with processes.emulator() as emulator, contextlib.ExitStack() as stack:
        settings = {"registry_file": registry, "detach_grace_s": 9}
        gateway = stack.enter_context(processes.gateway(emulator.url, **settings))
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            attachment.call.cancel()
            await asyncio.sleep(0.3)
        left_at_s = time.monotonic()
        for _ in range(20):
            gateway.process.kill()
            gateway = stack.enter_context(processes.gateway(emulator.url, **settings))
            await asyncio.sleep(0.5)
            if emulator.active() == 0:
                break
        # A grace that began anew with each owner would outlast them all.
        assert emulator.active() == 0
        assert time.monotonic() - left_at_s > 7
        async with connect(gateway.address) as caller:
            session = await caller.get(attachment.session_id)
            assert session.end_reason == session_pb2.END_REASON_CALLER_LOST


async def test_a_session_taken_away_from_a_living_process_is_left_alone_by_it(registry):
    """The fence keeps a process that others took for dead from sending and from stopping sessions."""
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=registry, lease_s=2) as gateway,
    ):
        account = account_name(emulator.url, processes.API_KEY)
        config = RegistryConfig(file=registry, account=account)
        async with make_registry(config) as other, connect(gateway.address) as caller:
            await other.renew("127.0.0.1:9")
            attachment = await caller.attach()
            await attachment.until_ready()
            row = await other.find(attachment.session_id)
            fence = await other.claim(row)
            refusal = await refused(attachment.event("ended"))
            assert (refusal.reason, refusal.metadata["session_id"]) == ("OWNER_MOVED", attachment.session_id)
            refusal = await refused(caller.speak(attachment.session_id))
            assert (refusal.reason, refusal.metadata["address"]) == ("OWNER_MOVED", "127.0.0.1:9")
            gateway.process.stop()
            assert emulator.active() == 1, "it is for its new owner to stop"
            after = await other.find(attachment.session_id)
            assert (after.owner, after.epoch, after.payload["end_reason"]) == (other.owner, fence.epoch, None)
            assert gateway.process.logged("session.moved")


async def test_an_interrupt_whose_session_was_taken_away_is_answered_with_that(registry):
    """Nobody here can answer it; a call without a deadline would wait forever."""
    settings = {"registry_file": registry, "lease_s": 2, "interrupt_timeout_s": 10}
    with (
        processes.emulator(interrupt_ack_ms=60_000) as emulator,
        processes.gateway(emulator.url, **settings) as gateway,
    ):
        config = RegistryConfig(file=registry, account=account_name(emulator.url, processes.API_KEY))
        async with make_registry(config) as other, connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            await stream.say(speech.sound(12.0))
            await stream.until("started")
            request = session_service_pb2.InterruptSessionRequest(session_id=attachment.session_id)
            asked = asyncio.ensure_future(_result(caller.sessions.InterruptSession(request)))
            while not _interrupts(emulator, attachment.upstream_id):
                await asyncio.sleep(0.01)
            assert await other.claim(await other.find(attachment.session_id)) is not None
            refusal = await refused(asyncio.wait_for(asked, 5))
            assert (refusal.reason, refusal.metadata["session_id"]) == ("OWNER_MOVED", attachment.session_id)


async def _watch(session, told: list[type]) -> None:
    told.extend([type(event) async for event in session.events()])


@pytest.mark.timeout(180)
async def test_a_say_of_the_python_client_notices_nothing_of_a_killed_gateway_but_an_event(
    registry, record_property
):
    pcm = speech.sound(10.0, seed=11)
    with processes.emulator() as emulator, contextlib.ExitStack() as stack:
        gateway = stack.enter_context(processes.gateway(emulator.url, registry_file=registry))
        address, port = gateway.address, _port(gateway)
        async with AsyncClient(address) as client, client.open_session(AVATAR) as session:
            told: list[type] = []
            watching = asyncio.create_task(_watch(session, told))
            utterance = session.say(pcm)
            await utterance.started()
            await asyncio.sleep(1.0)
            gateway.process.kill()
            killed_at_s = time.monotonic()
            gateway = stack.enter_context(processes.gateway(emulator.url, port=port, registry_file=registry))
            down_s = time.monotonic() - killed_at_s
            outcome = await utterance
            upstream_id = session.record.upstream_session_id
        assert outcome.kind is OutcomeKind.PLAYED
        await watching
        assert SessionAdoptedEvent in told
        (heard,) = emulator.session(upstream_id)["utterances"]
        gap_s = sum(gap["resumed_at_s"] - gap["dry_at_s"] for gap in heard["underruns"]["gaps"])
        extra = len(emulator.audio(upstream_id)) - len(pcm)
        record_property("figure", f"{extra:+} bytes heard, restart took {down_s:.1f} s, gap heard {gap_s:.1f} s")
        assert emulator.audio(upstream_id) == pcm
        assert gap_s <= down_s + 2.0
        assert emulator.active() == 0


async def test_operators_see_who_has_which_session_before_and_after(registry):
    shared = {"registry_file": registry, "sweep_s": 60}
    request = admin_service_pb2.ListOwnedSessionsRequest()
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, **shared) as first,
        processes.gateway(emulator.url, admin_port=0, **shared) as second,
    ):
        async with (
            connect(first.address) as caller,
            connect(second.address) as other,
            grpc.aio.insecure_channel(second.admin_address) as channel,
        ):
            admin = AdminServiceStub(channel)
            attachment = await caller.attach()
            await attachment.until_ready()
            await asyncio.sleep(0.5)
            (theirs,) = (await admin.ListOwnedSessions(request, timeout=10)).sessions
            mine = await admin.GetProcessStatus(admin_service_pb2.GetProcessStatusRequest(), timeout=10)
            assert (theirs.session.id, theirs.session.state) == (
                attachment.session_id,
                session_pb2.SESSION_STATE_READY,
            )
            assert theirs.owner != mine.owner
            assert theirs.epoch == 1
            assert 0 < theirs.lease_left.ToTimedelta().total_seconds() <= 10
            first.process.kill()
            resumed = await other.resume(attachment.opened.handle, skip_compacted=True)
            await resumed.event("adopted")
            (adopted,) = (await admin.ListOwnedSessions(request, timeout=10)).sessions
            assert (adopted.session.id, adopted.owner, adopted.epoch) == (attachment.session_id, mine.owner, 2)
            status = await admin.GetProcessStatus(admin_service_pb2.GetProcessStatusRequest(), timeout=10)
            assert (status.adopted_count, status.swept_count) == (1, 0)
            bad = admin_service_pb2.ListOwnedSessionsRequest(page_token="never-given")
            assert (await refused(admin.ListOwnedSessions(bad, timeout=10))).field == "page_token"
            await other.end(attachment.session_id)


@pytest.mark.parametrize("way", ["call", "stream"])
async def test_an_interrupt_that_a_killed_gateway_did_not_answer_is_carried_out_by_the_next(registry, way):
    """The interrupt failed with an error, but the utterance must not continue."""
    with processes.emulator(interrupt_ack_ms=60_000) as emulator, contextlib.ExitStack() as stack:
        gateway = stack.enter_context(processes.gateway(emulator.url, registry_file=registry))
        port = _port(gateway)
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            await stream.say(speech.sound(12.0), "cut")
            await stream.until("started")
            if way == "call":
                request = session_service_pb2.InterruptSessionRequest(session_id=attachment.session_id)
                asked = asyncio.ensure_future(_result(caller.sessions.InterruptSession(request)))
            else:
                command = session_service_pb2.Interrupt()
                asked = asyncio.ensure_future(attachment.command("c1", interrupt=command))
            while not _interrupts(emulator, attachment.upstream_id):
                await asyncio.sleep(0.01)
            gateway.process.kill()
            with pytest.raises((grpc.aio.AioRpcError, AssertionError)):
                await asked
        emulator.change_settings(interrupt_ack_ms=190)
        gateway = stack.enter_context(processes.gateway(emulator.url, port=port, registry_file=registry))
        async with connect(gateway.address) as caller:
            last = attachment.events[-1].sequence
            resumed = await caller.resume(attachment.opened.handle, last, skip_compacted=True)
            ended = await resumed.event("utterance_ended")
            assert ended.utterance_id == "cut"
            assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED
            assert _interrupts(emulator, attachment.upstream_id) == 2
            stream = await caller.speak(attachment.session_id)
            await stream.say(speech.sound(0.5), "next")
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            await caller.end(attachment.session_id)


@pytest.mark.parametrize("next_id", ["", "another"])
async def test_speech_without_an_end_that_nobody_takes_up_after_a_kill_does_not_hold_up_the_session(
    registry, next_id
):
    """It ends as after a broken stream: at once when its caller says something else, else after the grace."""
    with processes.emulator() as emulator, contextlib.ExitStack() as stack:
        settings = {"registry_file": registry, "detach_grace_s": 60 if next_id else 8}
        gateway = stack.enter_context(processes.gateway(emulator.url, **settings))
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            await stream.begin("broken off")
            await stream.chunk(speech.sound(1.0))
            await stream.until("started")
            gateway.process.kill()
        gateway = stack.enter_context(processes.gateway(emulator.url, **settings))
        async with connect(gateway.address) as caller:
            resumed = await caller.resume(attachment.opened.handle, skip_compacted=True)
            await resumed.event("reconnected")
            if next_id:
                stream = await caller.speak(attachment.session_id)
                await stream.say(speech.sound(0.5, seed=2), next_id)
            ended = await asyncio.wait_for(resumed.event("utterance_ended"), 20)
            assert (ended.utterance_id, ended.outcome) == (
                "broken off",
                audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED,
            )
            if next_id:
                ended = await asyncio.wait_for(stream.until("ended"), 20)
                assert (ended.utterance_id, ended.outcome) == (next_id, audio_pb2.UTTERANCE_OUTCOME_COMPLETED)
            await caller.end(attachment.session_id)


async def _result(call):
    return await call


def _interrupts(emulator: processes.Emulator, upstream_id: str) -> int:
    return sum(one["type"] == "agent.interrupt" for one in emulator.session(upstream_id)["commands"])
