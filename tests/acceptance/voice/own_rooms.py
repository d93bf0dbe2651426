"""Rooms of the callers' own: wrong names, URLs and tokens are refused before LiveAvatar is called, by their field.

Those that are right work: the avatar joins with the caller's token, the gateway hears with another, and viewers
cannot publish unless that was asked for.
"""

import asyncio
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import jwt
from google.protobuf import duration_pb2
from livekit import api

from acceptance.line import Line, Outcome, Setting
from acceptance.voice.stage import Stage, stage
from liveavatar.gateway.v1 import session_pb2
from testkit.caller import Caller, refused
from testkit.caller import caller as connect
from testkit.room_tokens import AVATAR_GRANTS, unsigned
from testkit.users import singing, user_token

_ROOM: Final = "desk-7"
_HEARS: Final = {"room": _ROOM, "roomJoin": True, "canSubscribe": True}
_HEARD_BYTES: Final = 48_000
_JOINED_S: Final = 30.0


def wrong(url: str, now_s: float) -> dict[str, tuple[Mapping[str, Any], str]]:
    """Return rooms by what is wrong with them, each with the field that a refusal names."""

    def own(field: str, **changes: str) -> tuple[Mapping[str, Any], str]:
        return {"livekit_room": session_pb2.LiveKitRoom(**{"name": _ROOM, **changes})}, f"livekit_room.{field}"

    def brought(field: str, **changes: str) -> tuple[Mapping[str, Any], str]:
        return own(field, **{"url": url, "avatar_token": unsigned(now_s), **changes})

    def avatar(**claims: Any) -> tuple[Mapping[str, Any], str]:
        return brought("avatar_token", avatar_token=unsigned(now_s, **claims))

    def listener(**claims: Any) -> tuple[Mapping[str, Any], str]:
        token = unsigned(now_s, **{"sub": "ear", "video": _HEARS, **claims})
        return brought("listener_token", listener_token=token)

    def viewer(**claims: Any) -> tuple[Mapping[str, Any], str]:
        token = unsigned(now_s, **{"sub": "ann", "video": _HEARS, **claims})
        return brought("viewer_token", viewer_token=token)

    cases = {
        "no name": own("name", name=""),
        "a long name": own("name", name="x" * 129),
        "a control character in the name": own("name", name="a\nb"),
        "a long identity": own("avatar_identity", avatar_identity="x" * 129),
        "a token without a URL": own("avatar_token", avatar_token=unsigned(now_s)),
        "a listener's token without a URL": own("listener_token", listener_token=unsigned(now_s)),
        "a viewer's token without a URL": own("viewer_token", viewer_token=unsigned(now_s)),
        "no name on another server": brought("name", name=""),
        "no URL of a server": brought("url", url="rooms.example.com"),
        "a URL of another kind": brought("url", url="https://rooms.example.com"),
        "a URL with credentials": brought("url", url="wss://user:word@rooms.example.com"),
        "a URL with a fragment": brought("url", url="wss://rooms.example.com/#a"),
        "a service of a cloud": brought("url", url="wss://169.254.169.254"),
        "a long URL": brought("url", url=f"wss://rooms.example.com/{'x' * 2048}"),
        "no avatar's token": brought("avatar_token", avatar_token=""),
        "a word in place of a token": brought("avatar_token", avatar_token="token"),
        "a token cut in the middle": brought("avatar_token", avatar_token=unsigned(now_s)[:40]),
        "a long token": brought("avatar_token", avatar_token=unsigned(now_s, name="x" * 4096)),
        "a token that has expired": avatar(exp=now_s - 1),
        "a token without an expiry": avatar(exp=...),
        "a token of tomorrow": avatar(nbf=now_s + 86_400),
        "a token for another room": avatar(room="desk-8"),
        "a token without a room": avatar(video=AVATAR_GRANTS),
        "a token without an identity": avatar(sub=""),
        "a token of another identity": brought("avatar_token", avatar_identity="bob"),
        **{
            f"a token without {grant}": avatar(
                video={"room": _ROOM, **{name: True for name in AVATAR_GRANTS if name != grant}}
            )
            for grant in AVATAR_GRANTS
        },
        "a deaf listener": listener(video={"room": _ROOM, "roomJoin": True, "canSubscribe": False}),
        "a listener of another room": listener(video={**_HEARS, "room": "desk-8"}),
        "a listener named as the avatar": listener(sub="ada"),
        "a listener that has expired": listener(exp=now_s - 1),
        "a viewer of another room": viewer(video={**_HEARS, "room": "desk-8"}),
        "a viewer named as the avatar": viewer(sub="ada"),
        "a viewer that has expired": viewer(exp=now_s - 1),
    }
    right = brought("")[0]
    seat = {"agent_seat": session_pb2.AGENT_SEAT_CALLER}
    return {
        **cases,
        "viewers to be signed for": ({**right, "viewers": [session_pb2.Viewer(identity="ann")]}, "viewers"),
        "an agent to be signed for": ({**right, **seat}, "agent_seat"),
        "a second avatar": ({**right, "auto_rotate": True}, "auto_rotate"),
        "a look into the room": (
            {**right, "viewer_absence_timeout": duration_pb2.Duration(seconds=60)},
            "viewer_absence_timeout",
        ),
        "a viewer named as the next avatar": (
            {
                "livekit_room": session_pb2.LiveKitRoom(name=_ROOM),
                "viewers": [session_pb2.Viewer(identity="avatar-2")],
            },
            "viewers[0].identity",
        ),
    }


async def _refusals(at: Stage, caller: Caller) -> tuple[int, list[str]]:
    """Ask for each wrong room; return the number of them, and what is wrong with the answers."""
    before = await asyncio.to_thread(at.emulator.state)
    found = []
    cases = wrong(at.livekit.url, time.time())
    for name, (fields, field) in cases.items():
        tokens = [
            token
            for token in (getattr(fields["livekit_room"], kind) for kind in ("avatar_token", "viewer_token"))
            if len(token) > len("token")
        ]
        for request, why in (
            ("spec", await refused(caller.create(**fields))),
            ("open.spec", await refused(caller.attach(**fields))),
        ):
            if (why.reason, why.field) != ("INVALID_FIELD", f"{request}.{field}"):
                found.append(f"{name}: {why.reason} {why.field}, not {request}.{field}")
            found += [f"{name}: the refusal repeats a token" for token in tokens if token in why.message]
    after = await asyncio.to_thread(at.emulator.state)
    if any(after[key] != before[key] for key in ("sessions", "refusals")):
        found.append("LiveAvatar was called")
    return len(cases), found


def _signed(at: Stage, identity: str, *, publishes: bool) -> str:
    grants = api.VideoGrants(
        room_join=True, room=_ROOM, can_subscribe=True, can_publish=publishes, can_publish_data=publishes
    )
    token = api.AccessToken(at.livekit.api_key, at.livekit.api_secret).with_identity(identity)
    return token.with_grants(grants).with_ttl(timedelta(hours=1)).to_jwt()


async def _brought(at: Stage, caller: Caller) -> list[str]:
    """Bring a room with right tokens; return what does not work."""
    tokens = {
        "avatar_token": _signed(at, "ada", publishes=True),
        "listener_token": _signed(at, "ear", publishes=False),
        "viewer_token": _signed(at, "ann", publishes=False),
    }
    room = session_pb2.LiveKitRoom(name=_ROOM, url=at.livekit.url, **tokens)
    made = await caller.create(livekit_room=room)
    found = []
    if (made.room.url, made.room.viewer_token) != (at.livekit.url, tokens["viewer_token"]):
        found.append("the caller is not given its own access")
    async with (
        asyncio.timeout(_JOINED_S),
        singing(at.livekit.url, user_token(at.livekit, _ROOM, "bob"), 440),
        api.LiveKitAPI(at.livekit.url, at.livekit.api_key, at.livekit.api_secret) as client,
    ):
        hearing = await caller.listen(made.session.id)
        while len(hearing.heard("bob")) < _HEARD_BYTES:
            await hearing.until("audio")
        while True:
            request = api.ListParticipantsRequest(room=_ROOM)
            inside = {one.identity for one in (await client.room.list_participants(request)).participants}
            if {"ada", "ear"} <= inside:
                break
            await asyncio.sleep(0.05)
    await caller.end(made.session.id)
    logs = at.gateway.process.log + at.emulator.process.log
    return found + [f"{name} is in a log" for name, token in tokens.items() if token in logs]


async def _viewers(caller: Caller) -> list[str]:
    """Let the gateway sign tokens for viewers; return those with wrong rights."""
    viewers = [
        session_pb2.Viewer(identity="ann"),
        session_pb2.Viewer(identity="ben", can_publish=True),
    ]
    made = await caller.create(livekit_room=session_pb2.LiveKitRoom(name="desk-9"), viewers=viewers)
    await caller.end(made.session.id)
    tokens = {viewer.identity: viewer.token for viewer in made.room.viewers}
    expected = {"": False, "ann": False, "ben": True}
    found = []
    for identity, token in {"": made.room.viewer_token, **tokens}.items():
        video = jwt.decode(token, options={"verify_signature": False})["video"]
        if {video["canPublish"], video["canPublishData"]} != {expected[identity]}:
            found.append(f"viewer {identity!r} has the grants {video}")
    return found


async def _run(_setting: Setting) -> Outcome:
    with stage(log_level="debug") as at:
        async with connect(at.gateway.address) as caller:
            count, refusals = await _refusals(at, caller)
            problems = [*refusals, *await _brought(at, caller), *await _viewers(caller)]
    return Outcome(
        figure="; ".join(
            [
                f"{count - len(refusals)} of {count} wrong rooms refused by their field",
                "a right one joined and heard",
                *problems[:5],
            ]
        ),
        passed=not problems,
    )


OWN_ROOMS: Final = Line(
    name="own rooms",
    goal="each wrong name, URL and token refused before LiveAvatar is called, by its field; viewers only watch",
    run=_run,
)
