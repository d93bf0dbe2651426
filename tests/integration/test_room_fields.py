"""Rooms in requests: wrong fields are named before LiveAvatar is called, and Agora channels passed on whole."""

import hashlib

import jwt
from google.protobuf import duration_pb2

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from testkit import processes, speech
from testkit.caller import caller as connect
from testkit.caller import make_spec, refused

LIVEKIT = {
    "livekit_url": "wss://rooms.example.com",
    "livekit_key": "APIkey",
    "livekit_secret": "a secret of at least thirty-two bytes",
}
TOKEN = "007eJxTYGCanary-of-an-Agora-token"
CHANNEL = {"app_id": "app-7", "token": TOKEN, "channel": "desk-7", "uid": "1007"}
CALLER = session_pb2.AGENT_SEAT_CALLER


def agora(**changes: str) -> session_pb2.AgoraRoom:
    return session_pb2.AgoraRoom(**{**CHANNEL, **changes})


def desk(**changes: str) -> session_pb2.LiveKitRoom:
    return session_pb2.LiveKitRoom(**{"name": "desk-7", **changes})


def viewers(**changes) -> dict:
    return {"livekit_room": desk(), "viewers": [session_pb2.Viewer(**{"identity": "ann", **changes})]}


WRONG = {
    "room without a name": ({"livekit_room": desk(name="")}, "livekit_room.name"),
    "long room": ({"livekit_room": desk(name="x" * 129)}, "livekit_room.name"),
    "room with a control character": ({"livekit_room": desk(name="a\nb")}, "livekit_room.name"),
    "long identity": ({"livekit_room": desk(avatar_identity="x" * 129)}, "livekit_room.avatar_identity"),
    "unprintable identity": ({"livekit_room": desk(avatar_identity="\u202ea")}, "livekit_room.avatar_identity"),
    "viewers without a room": ({"viewers": [session_pb2.Viewer(identity="ann")]}, "viewers"),
    "too many viewers": (
        {"livekit_room": desk(), "viewers": [session_pb2.Viewer(identity=f"v{n}") for n in range(33)]},
        "viewers",
    ),
    "viewer without an identity": (viewers(identity=""), "viewers[0].identity"),
    "viewer as the avatar": (viewers(identity="avatar"), "viewers[0].identity"),
    "viewer as the next avatar": (viewers(identity="avatar-2"), "viewers[0].identity"),
    "viewer as the agent": (viewers(identity="avatar-agent"), "viewers[0].identity"),
    "long name": (viewers(name="x" * 129), "viewers[0].name"),
    "short life": (viewers(lifetime=duration_pb2.Duration(seconds=59)), "viewers[0].lifetime"),
    "long life": (viewers(lifetime=duration_pb2.Duration(seconds=86_401)), "viewers[0].lifetime"),
    "channel without an app": ({"agora_room": agora(app_id="")}, "agora_room.app_id"),
    "channel without a name": ({"agora_room": agora(channel="")}, "agora_room.channel"),
    "channel without a uid": ({"agora_room": agora(uid="")}, "agora_room.uid"),
    "channel without a token": ({"agora_room": agora(token="")}, "agora_room.token"),
    "token with blanks": ({"agora_room": agora(token=f"{TOKEN} x")}, "agora_room.token"),
    "long token": ({"agora_room": agora(token=TOKEN * 200)}, "agora_room.token"),
    "long channel": ({"agora_room": agora(channel="x" * 65)}, "agora_room.channel"),
    "two rooms": ({"agora_room": agora(), "livekit_room": desk()}, "agora_room"),
    "viewers of a channel": (
        {"agora_room": agora(), "viewers": [session_pb2.Viewer(identity="ann")]},
        "viewers",
    ),
    "seat in a channel": ({"agora_room": agora(), "agent_seat": CALLER}, "agent_seat"),
    "rotation in a channel": ({"agora_room": agora(), "auto_rotate": True}, "auto_rotate"),
    "absence in a channel": (
        {"agora_room": agora(), "viewer_absence_timeout": duration_pb2.Duration(seconds=60)},
        "viewer_absence_timeout",
    ),
    "unknown seat": ({"agent_seat": 9}, "agent_seat"),
}


async def test_every_wrong_field_is_named_before_liveavatar_is_called():
    with processes.emulator() as emulator, processes.gateway(emulator.url, **LIVEKIT) as gateway:
        before = emulator.state()
        async with connect(gateway.address) as caller:
            for name, (fields, field) in WRONG.items():
                created = await refused(caller.create(**fields))
                assert (created.reason, created.field) == ("INVALID_FIELD", f"spec.{field}"), name
                attached = await refused(caller.attach(**fields))
                assert (attached.reason, attached.field) == ("INVALID_FIELD", f"open.spec.{field}"), name
                assert TOKEN not in created.message + attached.message, name
        after = emulator.state()
        assert (after["sessions"], after["refusals"]) == (before["sessions"], before["refusals"])
        assert TOKEN not in gateway.process.log


async def test_an_agora_channel_is_passed_on_and_the_session_speaks(tmp_path):
    with processes.emulator() as emulator:
        shared = {"registry_file": str(tmp_path / "registry.db"), "log_level": "debug"}
        with processes.gateway(emulator.url, **shared) as gateway:
            async with connect(gateway.address) as caller:
                made = await caller.create("r-1", agora_room=agora())
                digest = hashlib.sha256(TOKEN.encode()).hexdigest()
                assert emulator.session(made.session.upstream_session_id)["agora_room"] == {
                    "app_id": "app-7",
                    "channel": "desk-7",
                    "uid": "1007",
                    "token_sha256": digest,
                }
                assert made.room == session_pb2.RoomAccess()
                stream = await caller.speak(made.session.id)
                await stream.say(speech.sound(0.5), "hello")
                assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
                again = await caller.create("r-1", agora_room=agora(token="a-fresh-token-of-the-same-caller"))
                assert again.session.id == made.session.id
                other = await refused(caller.create("r-1", agora_room=agora(uid="8")))
                assert other.reason == "REQUEST_ID_REUSED"
                for call in (
                    caller.sessions.RemoveViewer(
                        p.RemoveViewerRequest(session_id=made.session.id, identity="ann"), timeout=10
                    ),
                    caller.sessions.CreateViewerTokens(
                        p.CreateViewerTokensRequest(
                            session_id=made.session.id, viewers=[session_pb2.Viewer(identity="ann")]
                        ),
                        timeout=10,
                    ),
                ):
                    assert (await refused(call)).reason == "ROOM_NOT_OWN"
                listed = await caller.sessions.ListSessions(p.ListSessionsRequest(), timeout=10)
                assert TOKEN not in str(listed)
                await caller.end(made.session.id)
            log = gateway.process.log
        assert TOKEN not in log + emulator.process.log
        stored = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
        assert TOKEN.encode() not in stored


async def test_an_avatar_in_an_own_room_cannot_be_prepared(emulator):
    with processes.gateway(emulator.url, **LIVEKIT) as gateway:
        async with connect(gateway.address) as caller:
            for name, room in (("livekit_room", desk()), ("agora_room", agora())):
                request = p.PrepareSessionRequest(spec=make_spec(**{name: room}))
                why = await refused(caller.sessions.PrepareSession(request, timeout=10))
                assert (why.reason, why.field) == ("INVALID_FIELD", f"spec.{name}")


async def test_a_prepared_session_brings_the_agents_token_along(emulator, caller):
    request = p.PrepareSessionRequest(spec=make_spec())
    reservation = (await caller.sessions.PrepareSession(request, timeout=30)).reservation
    request = p.CreateSessionRequest(spec=make_spec(agent_seat=CALLER), reservation_id=reservation.id)
    made = await caller.sessions.CreateSession(request, timeout=30)
    assert jwt.decode(made.room.agent_token, options={"verify_signature": False})["sub"] == "agent"
    await caller.end(made.session.id)
