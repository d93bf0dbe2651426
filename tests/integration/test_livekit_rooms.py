"""Rooms of the caller's own, as LiveAvatar is asked for them and as callers are told; without a LiveKit server."""

import subprocess
import sys

import grpc
import jwt
import pytest

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from testkit import processes, speech
from testkit.caller import caller as connect
from testkit.caller import refused

SECRET = "a secret of at least thirty-two bytes"
LIVEKIT = {"livekit_url": "wss://rooms.example.com", "livekit_key": "APIkey", "livekit_secret": SECRET}
DESK = session_pb2.LiveKitRoom(name="desk-7")


def claims(room: session_pb2.RoomAccess) -> dict:
    assert room.url == LIVEKIT["livekit_url"]
    return jwt.decode(room.viewer_token, SECRET, algorithms=["HS256"])


async def test_the_avatar_is_ordered_into_the_callers_room_with_grants_that_start_accepts(emulator):
    with processes.gateway(emulator.url, **LIVEKIT) as gateway:
        async with connect(gateway.address) as caller:
            made = await caller.create(livekit_room=DESK)
            # The emulator refuses to start a session whose avatar's token lacks a grant, or is for another room.
            assert emulator.session(made.session.upstream_session_id)["livekit_room"] == "desk-7"
            stream = await caller.speak(made.session.id)
            await stream.say(speech.sound(0.5), "hello")
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            await caller.end(made.session.id)


async def test_each_answer_has_a_viewers_token_of_its_own(emulator):
    with processes.gateway(emulator.url, **LIVEKIT) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach(livekit_room=DESK)
            resumed = await caller.resume(attachment.opened.handle)
            first, second = claims(attachment.opened.room), claims(resumed.opened.room)
            assert first["sub"] != second["sub"]
            for found in (first, second):
                assert found["video"]["room"] == "desk-7"
                assert (found["video"]["canPublish"], found["video"]["canPublishData"]) == (False, False)
            await caller.end(attachment.session_id)


@pytest.mark.parametrize("fields", ["null", "omitted"])
async def test_a_start_that_answers_without_a_room_is_no_matter(fields):
    with (
        processes.emulator(byo_livekit_fields=fields) as emulator,
        processes.gateway(emulator.url, **LIVEKIT) as gateway,
    ):
        async with connect(gateway.address) as caller:
            made = await caller.create(livekit_room=DESK)
            assert claims(made.room)["video"]["room"] == "desk-7"
            await caller.end(made.session.id)


async def test_a_session_without_an_livekit_room_has_liveavatars(emulator):
    with processes.gateway(emulator.url, **LIVEKIT) as gateway:
        async with connect(gateway.address) as caller:
            made = await caller.create()
            assert made.room.url != LIVEKIT["livekit_url"]
            assert emulator.session(made.session.upstream_session_id)["livekit_room"] is None
            await caller.end(made.session.id)


async def test_a_gateway_without_a_livekit_server_refuses_and_starts_nothing(caller, emulator):
    before = emulator.state()["sessions"]
    why = await refused(caller.create(livekit_room=DESK))
    assert (why.code, why.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert why.field == "spec.livekit_room"
    assert "GATEWAY_LIVEKIT_URL" in why.message
    assert (await refused(caller.attach(livekit_room=DESK))).field == "open.spec.livekit_room"
    assert emulator.state()["sessions"] == before


async def test_a_room_without_a_name_is_refused(emulator):
    with processes.gateway(emulator.url, **LIVEKIT) as gateway:
        async with connect(gateway.address) as caller:
            why = await refused(caller.create(livekit_room=session_pb2.LiveKitRoom()))
            assert (why.reason, why.field) == ("INVALID_FIELD", "spec.livekit_room.name")


async def test_an_adopted_session_keeps_its_room(emulator, tmp_path):
    registry = str(tmp_path / "registry.db")
    with processes.gateway(emulator.url, registry_file=registry, **LIVEKIT) as gateway:
        port = int(gateway.address.rpartition(":")[2])
        async with connect(gateway.address) as caller:
            attachment = await caller.attach(livekit_room=DESK)
            await attachment.until_ready()
        gateway.process.kill()
        with processes.gateway(emulator.url, port=port, registry_file=registry, **LIVEKIT) as heir:
            async with connect(heir.address) as caller:
                resumed = await caller.resume(attachment.opened.handle, skip_compacted=True)
                await resumed.event("adopted")
                assert claims(resumed.opened.room)["video"]["room"] == "desk-7"
                await caller.end(attachment.session_id)


async def test_a_process_without_a_livekit_server_adopts_and_gives_no_token_for_the_room(emulator, tmp_path):
    registry = str(tmp_path / "registry.db")
    with processes.gateway(emulator.url, registry_file=registry, **LIVEKIT) as gateway:
        port = int(gateway.address.rpartition(":")[2])
        async with connect(gateway.address) as caller:
            attachment = await caller.attach(livekit_room=DESK)
            await attachment.until_ready()
        gateway.process.kill()
        with processes.gateway(emulator.url, port=port, registry_file=registry) as heir:
            async with connect(heir.address) as caller:
                resumed = await caller.resume(attachment.opened.handle, skip_compacted=True)
                await resumed.event("adopted")
                assert resumed.opened.room == session_pb2.RoomAccess()
                stream = await caller.speak(attachment.session_id)
                await stream.say(speech.sound(0.5), "still here")
                assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
                await caller.end(attachment.session_id)


async def test_neither_secret_nor_token_reaches_the_log(emulator):
    with processes.gateway(emulator.url, log_level="debug", **LIVEKIT) as gateway:
        async with connect(gateway.address) as caller:
            made = await caller.create(livekit_room=DESK)
            await caller.end(made.session.id)
        assert gateway.process.logged("session.ended")
        log = gateway.process.log
    for secret in (SECRET, LIVEKIT["livekit_key"], "eyJ"):
        assert secret not in log


@pytest.mark.parametrize("missing", sorted(LIVEKIT))
def test_a_livekit_server_that_is_half_set_is_a_configuration_error(missing):
    given = {f"GATEWAY_{name.upper()}": value for name, value in LIVEKIT.items() if name != missing}
    for command in ("serve", "check-config"):
        ended = subprocess.run(
            [sys.executable, "-m", "liveavatar_gateway", command],
            env={**processes.clean_environment(), **given, "LIVEAVATAR_API_KEY": "k"},
            capture_output=True,
            check=False,
            text=True,
            timeout=30,
        )
        assert ended.returncode == 78, ended
        assert f"missing: GATEWAY_{missing.upper()}" in ended.stderr
        assert SECRET not in ended.stderr + ended.stdout
