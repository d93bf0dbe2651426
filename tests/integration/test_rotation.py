"""A session that outlives the limit of one avatar: a fresh one takes over, and no word is lost or said twice."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from google.protobuf import duration_pb2

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from testkit import processes, speech
from testkit.caller import caller as connect

NEAR = {"expiring_notice_s": 4}
LIMIT_S = 16
"""The fresh avatar is prepared after half of it."""

pytestmark = pytest.mark.timeout(120)


async def _rotating(caller, **spec):
    limit = duration_pb2.Duration(seconds=LIMIT_S)
    attachment = await caller.attach(auto_rotate=True, max_duration=limit, **spec)
    await attachment.until_ready()
    return attachment


def _kinds(attachment) -> list[str]:
    return [event.WhichOneof("event") for event in attachment.events]


async def test_in_silence_a_fresh_avatar_takes_over_and_the_old_one_goes():
    with processes.emulator() as emulator, processes.gateway(emulator.url, **NEAR) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await _rotating(caller)
            watch = caller.watch()
            await watch.add(attachment.session_id)
            rotated = await attachment.event("rotated")
            watched = (await watch.until("event")).event
            while watched.WhichOneof("event") != "rotated":
                watched = (await watch.until("event")).event
            assert watched.rotated.upstream_session_id == rotated.upstream_session_id
            assert not watched.rotated.HasField("room"), "who only watches got a seat"
            watch.call.cancel()
            assert rotated.upstream_session_id != attachment.upstream_id
            assert rotated.room.viewer_token != attachment.opened.room.viewer_token
            assert rotated.expires_at.ToDatetime() > attachment.opened.session.expires_at.ToDatetime()
            emulator.wait_active(1)
            stream = await caller.speak(attachment.session_id)
            await stream.say(speech.sound(1.0), "after")
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            session = await caller.end(attachment.session_id)
        assert "expiring" not in _kinds(attachment)
        assert session.usage.rotation_count == 1
        assert session.usage.billed_duration.ToTimedelta().total_seconds() > LIMIT_S / 2
        assert emulator.active() == 0
        assert emulator.audio(rotated.upstream_session_id) == speech.sound(1.0)


async def test_without_a_registry_a_fresh_avatar_takes_over_all_the_same():
    """Nothing is written then, so the fresh one speaks in the very moment it is taken."""
    with processes.emulator() as emulator, processes.gateway(emulator.url, registry_file="off") as gateway:
        async with connect(gateway.address) as caller:
            attachment = await _rotating(caller)
            rotated = await attachment.event("rotated")
            stream = await caller.speak(attachment.session_id)
            await stream.say(speech.sound(1.0), "after")
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            await caller.end(attachment.session_id)
        assert emulator.audio(rotated.upstream_session_id) == speech.sound(1.0)
        assert emulator.active() == 0


async def test_back_to_back_utterances_go_to_one_avatar_or_the_other_whole():
    said = [speech.sound(1.5, seed=seed) for seed in range(8)]
    with processes.emulator() as emulator, processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await _rotating(caller)
            stream = await caller.speak(attachment.session_id)
            for number, pcm in enumerate(said):
                await stream.say(pcm, f"u{number}")
            for _ in said:
                assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            rotated = await attachment.event("rotated")
            await caller.end(attachment.session_id)
        old, new = attachment.upstream_id, rotated.upstream_session_id
        assert emulator.audio(old) + emulator.audio(new) == b"".join(said)
        outcomes = [one["outcome"] for one in emulator.session(old)["utterances"]]
        assert outcomes
        assert set(outcomes) == {"ended"}
        assert len(outcomes) + len(emulator.session(new)["utterances"]) == len(said)
        assert emulator.active() == 0


@pytest.mark.long
@pytest.mark.parametrize("profile", ["modern", "classic", "acks_only"])
async def test_an_utterance_longer_than_the_limit_goes_on_at_the_byte_where_the_old_avatar_ended(
    profile,
):
    pcm = speech.sound(18.0, seed=5)
    with processes.emulator(profile=profile) as emulator, processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await _rotating(caller)
            stream = await caller.speak(attachment.session_id)
            await stream.say(pcm, "monologue")
            rotated = await attachment.event("rotated")
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            await caller.end(attachment.session_id)
        old, new = attachment.upstream_id, rotated.upstream_session_id
        assert emulator.audio(old) + emulator.audio(new) == pcm
        (first,) = emulator.session(old)["utterances"]
        assert (first["outcome"], first["played_bytes"]) == ("ended", first["received_bytes"])
        assert emulator.active() == 0


async def test_without_a_place_on_the_account_it_is_told_and_the_session_ends_at_its_limit():
    with processes.emulator() as emulator, processes.gateway(emulator.url, max_sessions=1, **NEAR) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await _rotating(caller)
            ended = await attachment.event("ended")
        notices = [event.notice.type for event in attachment.events if event.WhichOneof("event") == "notice"]
        assert notices == ["rotation_delayed"]
        assert _kinds(attachment).count("expiring") == 1
        assert ended.session.end_reason == session_pb2.END_REASON_MAX_DURATION
        assert "all 1 sessions" in ended.error.message
        emulator.wait_active(0)


async def test_a_start_that_fails_is_tried_again():
    with processes.emulator() as emulator, processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await _rotating(caller)
            emulator.fault("start", status=503, times=1)
            assert (await attachment.event("notice")).type == "rotation_delayed"
            await attachment.event("rotated")
            await caller.end(attachment.session_id)
        assert emulator.active() == 0


async def test_a_socket_lost_while_the_fresh_avatar_is_prepared_loses_nothing():
    said = [speech.sound(1.5, seed=seed) for seed in range(8)]
    with processes.emulator(ready_delay_ms=1500) as emulator, processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await _rotating(caller)
            stream = await caller.speak(attachment.session_id)
            for number, pcm in enumerate(said):
                await stream.say(pcm, f"u{number}")
            await asyncio.to_thread(emulator.wait_active, 2)
            emulator.drop(attachment.upstream_id, 1011)
            for _ in said:
                assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            rotated = await attachment.event("rotated")
            await caller.end(attachment.session_id)
        heard = emulator.audio(attachment.upstream_id) + emulator.audio(rotated.upstream_session_id)
        assert heard == b"".join(said)
        assert emulator.active() == 0


async def test_a_gateway_killed_during_a_rotation_leaves_none_of_both_behind(tmp_path: Path):
    registry = str(tmp_path / "registry.db")
    with processes.emulator(ready_delay_ms=2000) as emulator, contextlib.ExitStack() as stack:
        gateway = stack.enter_context(processes.gateway(emulator.url, registry_file=registry))
        port = int(gateway.address.rpartition(":")[2])
        async with connect(gateway.address) as caller:
            attachment = await _rotating(caller)
            await asyncio.to_thread(emulator.wait_active, 2)
            gateway.process.kill()
        gateway = stack.enter_context(processes.gateway(emulator.url, port=port, registry_file=registry))
        async with connect(gateway.address) as caller:
            resumed = await caller.resume(attachment.opened.handle, skip_compacted=True)
            await resumed.event("adopted")
            await resumed.event("rotated")
            emulator.wait_active(1)
            stream = await caller.speak(attachment.session_id)
            await stream.say(speech.sound(0.5))
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            await caller.end(attachment.session_id)
        assert emulator.active() == 0


LIVEKIT = {"livekit_url": "wss://rooms.example.com", "livekit_key": "APIkey", "livekit_secret": "s" * 40}


async def test_in_an_livekit_room_a_rotation_changes_the_avatar_and_not_the_room():
    with processes.emulator() as emulator, processes.gateway(emulator.url, **LIVEKIT) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await _rotating(caller, livekit_room=session_pb2.LiveKitRoom(name="desk-7"))
            rotated = await attachment.event("rotated")
            assert rotated.room.url == attachment.opened.room.url == LIVEKIT["livekit_url"]
            await caller.end(attachment.session_id)
        assert emulator.active() == 0


async def test_an_avatar_out_of_reach_is_replaced_in_an_livekit_room_and_speech_goes_on():
    pcm = speech.sound(8.0, seed=9)
    settings = {"reconnect_budget_s": 1, **LIVEKIT}
    with processes.emulator() as emulator, processes.gateway(emulator.url, **settings) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach(livekit_room=session_pb2.LiveKitRoom(name="desk-7"))
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            await stream.say(pcm, "monologue")
            await stream.until("started")
            old = attachment.upstream_id
            emulator.socket_fault("refuse_sockets", old, how="reset")
            emulator.drop(old, 1011)
            reconnected = await attachment.event("reconnected")
            assert reconnected.replaced
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            session = await caller.end(attachment.session_id)
        assert session.upstream_session_id != old
        assert emulator.audio(old) + emulator.audio(session.upstream_session_id) == pcm
        assert emulator.active() == 0


@pytest.mark.long
@pytest.mark.parametrize("moment", ["while the fresh avatar is prepared", "when it takes over"])
async def test_a_gateway_killed_around_a_change_of_avatars_loses_no_byte_and_leaves_none_running(tmp_path, moment):
    pcm = speech.sound(20.0, seed=9)
    settings = {"registry_file": str(tmp_path / "registry.db"), "detach_grace_s": 20}
    with processes.emulator(ready_delay_ms=800) as emulator, contextlib.ExitStack() as stack:
        gateway = stack.enter_context(processes.gateway(emulator.url, **settings))
        port = int(gateway.address.rpartition(":")[2])
        async with connect(gateway.address) as caller:
            attachment = await _rotating(caller)
            stream = await caller.speak(attachment.session_id)
            await stream.say(pcm, "monologue")
            if moment == "when it takes over":
                await attachment.event("rotated")
            else:
                await asyncio.to_thread(emulator.wait_active, 2)
            gateway.process.kill()
        gateway = stack.enter_context(processes.gateway(emulator.url, port=port, **settings))
        async with connect(gateway.address) as caller:
            last = attachment.events[-1].sequence
            resumed = await caller.resume(attachment.opened.handle, last, skip_compacted=True)
            stream = await caller.speak(attachment.session_id)
            ack = await stream.resume("monologue")
            await stream.say_on(pcm, ack.received_bytes)
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            session = await caller.end(resumed.session_id)
        assert session.usage.rotation_count >= 1
        upstream = emulator.sessions()
        assert b"".join(emulator.audio(one["id"]) for one in upstream) == pcm
        emulator.wait_active(0)
