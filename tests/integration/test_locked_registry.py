"""Another program holds the registry's write lock for seconds: nobody who listens notices."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator

import grpc
import pytest

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from testkit import processes, speech
from testkit.caller import caller as connect
from testkit.caller import make_spec, refused_before_deadline

TALKING = 4
LOCKED_S = 5.0


@contextlib.contextmanager
def _locked(registry: str) -> Iterator[None]:
    blocker = sqlite3.connect(registry, isolation_level=None, timeout=20)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()


@pytest.mark.timeout(120)
async def test_while_the_registry_is_locked_calls_are_answered_and_no_avatar_runs_dry(tmp_path, record_property):
    """Utterances begin, go on, end and are cut meanwhile; each of those is noted."""
    registry = str(tmp_path / "registry.db")
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=registry) as gateway,
    ):
        async with connect(gateway.address) as caller:
            attachments = [await caller.attach() for _ in range(TALKING)]
            streams = []
            for attachment in attachments:
                await attachment.until_ready()
                streams.append(await caller.speak(attachment.session_id))
            with _locked(registry):
                locked_at_s = time.monotonic()
                talks = [asyncio.create_task(_talk(stream, seed)) for seed, stream in enumerate(streams)]
                slowest_s = 0.0
                while time.monotonic() - locked_at_s < LOCKED_S:
                    asked_s = time.monotonic()
                    await caller.get(attachments[0].session_id)
                    slowest_s = max(slowest_s, time.monotonic() - asked_s)
                    await asyncio.sleep(0.01)
            await asyncio.gather(*talks)
            gaps = [
                len(utterance["underruns"]["gaps"])
                for attachment in attachments
                for utterance in emulator.session(attachment.upstream_id)["utterances"]
            ]
            record_property("figure", f"slowest call {slowest_s * 1000:.0f} ms while locked for {LOCKED_S:g} s")
            assert gaps == [0] * len(gaps)
            assert len(gaps) == TALKING * 4
            # One note that waited for the lock would hold up every call for as long as it may wait.
            assert slowest_s < LOCKED_S / 10
            for attachment in attachments:
                await caller.end(attachment.session_id)


async def _talk(stream, seed: int) -> None:
    for number in range(4):
        name = f"u-{number}"
        await stream.say(speech.sound(1.2, seed=seed * 10 + number), name)
        ended = await stream.until("ended")
        assert (ended.utterance_id, ended.outcome) == (name, audio_pb2.UTTERANCE_OUTCOME_COMPLETED)


@pytest.mark.timeout(120)
async def test_a_call_that_the_registry_holds_up_is_refused_before_its_deadline_and_takes_effect_later(tmp_path):
    """Its caller learns why; a bare end by the deadline would not say that the next call may work."""
    registry = str(tmp_path / "registry.db")
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, registry_file=registry) as first,
        processes.gateway(emulator.url, registry_file=registry) as second,
    ):
        async with connect(first.address) as caller, connect(second.address) as other:
            attachment = await caller.attach()
            await attachment.until_ready()
            end = p.EndSessionRequest(session_id=attachment.session_id)
            create = p.CreateSessionRequest(spec=make_spec(), request_id="request-1")
            with _locked(registry):
                ending, creating = await asyncio.gather(
                    refused_before_deadline(lambda s: other.sessions.EndSession(end, timeout=s)),
                    refused_before_deadline(lambda s: other.sessions.CreateSession(create, timeout=s)),
                )
                for refusal in (ending, creating):
                    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "REGISTRY_UNAVAILABLE")
                    assert refusal.retry_s > 0
            ended = (await attachment.event("ended")).session
            assert ended.end_reason == session_pb2.END_REASON_CALLER_ENDED
            created = await other.create("request-1")
            await other.end(created.session.id)


@pytest.mark.timeout(120)
async def test_what_a_locked_registry_did_not_take_is_known_to_the_next_process_after_a_kill(tmp_path):
    """A handle given, events told and an utterance ended while it was locked, up to the kill."""
    registry = str(tmp_path / "registry.db")
    pcm = speech.sound(8.0, seed=3)
    with processes.emulator() as emulator, contextlib.ExitStack() as stack:
        settings = {"registry_file": registry, "detach_grace_s": 30}
        gateway = stack.enter_context(processes.gateway(emulator.url, **settings))
        async with connect(gateway.address) as caller:
            first = await caller.attach()
            await first.until_ready()
            with _locked(registry):
                attachment = await caller.resume(first.opened.handle, first.events[-1].sequence)
                stream = await caller.speak(attachment.session_id)
                await stream.say(speech.sound(0.4), "over")
                await stream.until("ended")
                await attachment.event("utterance_ended")
                last = attachment.events[-1].sequence
                await stream.say(pcm, "goes on")
                await stream.until("started")
                gateway.process.kill()
        gateway = stack.enter_context(processes.gateway(emulator.url, **settings))
        async with connect(gateway.address) as caller:
            resumed = await caller.resume(attachment.opened.handle, last, skip_compacted=True)
            await resumed.event("adopted")
            assert resumed.events[0].sequence > last, "a number that was told is not given again"
            stream = await caller.speak(attachment.session_id)
            await stream.begin("over", resume=True)
            ended = await stream.until("ended")
            assert (ended.utterance_id, ended.outcome) == ("over", audio_pb2.UTTERANCE_OUTCOME_COMPLETED)
            ack = await stream.resume("goes on")
            assert ack.confirmed_bytes > 0
            await stream.say_on(pcm, ack.received_bytes)
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            await caller.end(attachment.session_id)
        assert emulator.audio(attachment.upstream_id) == speech.sound(0.4) + pcm
