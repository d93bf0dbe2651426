"""Section 2.1: POST /v1/sessions/token, field by field."""

from typing import Any

import httpx
from contract.emulator.api_table.table import (
    ABSENT,
    AVATAR,
    EMBED_WAYNE,
    NOBODY,
    TEXT,
    WAYNE,
    Table,
    World,
    claims,
)

table = Table()


def mint(rule: str, order: dict[str, Any], **wanted: Any) -> None:
    """A row that mints with `order` and looks at the answer."""
    table.answer("2.1", rule, lambda w: w.mint(**order), **wanted)


async def _ordered(w: World, order: dict[str, Any]) -> dict[str, Any]:
    """Return the emulator's recording of a started session that was minted with `order`."""
    return dict(await w.recording(await w.session(**order)))


def noted(rule: str, order: dict[str, Any], field: str, wanted: Any) -> None:
    async def see(w: World) -> Any:
        return (await _ordered(w, order))[field]

    table.add("2.1", rule, see, wanted)


# -- mode and avatar

mint("mode LITE", {"mode": "LITE"}, status=200)
mint("mode may be left out", {"without": "mode"}, status=200)
mint("the retired mode CUSTOM is refused", {"mode": "CUSTOM"}, status=422, detail__0__loc=["body", "mode"])
mint("FULL with a persona is not emulated", {"mode": "FULL", "avatar_persona": {}}, status=400, code=4000)
mint("FULL by a stored voice agent is not emulated", {"mode": "FULL", "voice_agent": {}}, status=400, code=4000)
mint("avatar_id is required", {"without": "avatar_id"}, status=422, detail__0__loc=["body", "avatar_id"])
mint("avatar_id is a UUID", {"avatar_id": "wayne"}, status=422, detail__0__loc=["body", "avatar_id"])
mint("any UUID passes for an avatar of one's own", {"avatar_id": NOBODY}, status=200)
noted("avatar_id is kept", {}, "avatar_id", AVATAR)
mint("unknown fields are ignored", {"colour": "blue"}, status=200)

# -- sandbox

noted("is_sandbox is false by default", {}, "is_sandbox", wanted=False)
mint("is_sandbox takes no other type", {"is_sandbox": "perhaps"}, status=422)
mint("the sandbox takes Wayne", {"is_sandbox": True, "avatar_id": WAYNE}, status=200)
mint(
    "the sandbox takes the other avatar that sources name",
    {"is_sandbox": True, "avatar_id": EMBED_WAYNE},
    status=200,
)
mint("the sandbox takes no third", {"is_sandbox": True}, status=400)
mint(
    "the sandbox takes exactly a minute",
    {"is_sandbox": True, "avatar_id": WAYNE, "max_session_duration": 60},
    status=200,
)
mint(
    "the sandbox takes not a second more",
    {"is_sandbox": True, "avatar_id": WAYNE, "max_session_duration": 61},
    status=400,
)
noted(
    "a sandbox session lasts a minute by default",
    {"is_sandbox": True, "avatar_id": WAYNE},
    "max_session_duration",
    60,
)

# -- video


async def _quality(w: World, quality: str) -> str:
    await w.knobs(allow_1080p=True)
    return str((await _ordered(w, {"video_settings": {"quality": quality}}))["quality"])


for quality in ("very_high", "high", "medium", "low"):
    table.add("2.1", f"quality {quality}", lambda w, quality=quality: _quality(w, quality), quality)
noted("quality is high by default", {}, "quality", "high")
noted(
    "quality is high when only the encoding is given", {"video_settings": {"encoding": "VP8"}}, "quality", "high"
)
mint("no other quality", {"video_settings": {"quality": "4k"}}, status=422)
mint("1080p needs a plan", {"video_settings": {"quality": "very_high"}}, status=403, code=4030)


async def _1080p_of(w: World, **order: Any) -> httpx.Response:
    await w.knobs(allow_1080p=True)
    return await w.mint(video_settings={"quality": "very_high"}, **order)


table.answer(
    "2.1",
    "1080p needs an avatar that is_1080p",
    lambda w: _1080p_of(w, avatar_id=EMBED_WAYNE),
    status=400,
    data__0__loc=["avatar_id"],
)
for encoding in ("H264", "VP8"):
    noted(f"encoding {encoding}", {"video_settings": {"encoding": encoding}}, "encoding", encoding)
noted("encoding is H264 by default", {}, "encoding", "H264")
mint("no other encoding", {"video_settings": {"encoding": "AV1"}}, status=422)
mint("video_settings may be null", {"video_settings": None}, status=200)
mint("video_quality at the top is accepted", {"video_quality": "high"}, status=200)
mint("video_quality at the top does not count", {"video_quality": "very_high"}, status=200)

# -- duration

noted("max_session_duration is kept", {"max_session_duration": 600}, "max_session_duration", 600)
noted("max_session_duration is the plan's limit by default", {}, "max_session_duration", 3600)
mint("max_session_duration may be the plan's limit", {"max_session_duration": 3600}, status=200)
mint("max_session_duration may not be more", {"max_session_duration": 3601}, status=400)
mint("max_session_duration is at least a second", {"max_session_duration": 0}, status=422)
mint("max_session_duration is a number", {"max_session_duration": "long"}, status=422)

# -- rooms

ROOM = {"livekit_url": "wss://rooms.example.com", "livekit_room": "desk-7", "livekit_client_token": "any"}
CHANNEL = {"agora_app_id": "app", "agora_token": "token", "agora_channel": "desk-7", "agora_uid": "7"}
mint("livekit_config", {"livekit_config": ROOM}, status=200)
mint("livekit_config may be null", {"livekit_config": None}, status=200)
for field in ROOM:
    mint(
        f"livekit_config needs {field}",
        {"livekit_config": {name: value for name, value in ROOM.items() if name != field}},
        status=422,
        detail__0__loc=["body", "livekit_config", field],
    )
mint("the shorthand livekit_config is refused", {"livekit_config": {"url": "wss://x", "token": "y"}}, status=422)
mint("a token without grants passes here", {"livekit_config": {**ROOM, "livekit_client_token": "x"}}, status=200)
mint("agora_config", {"agora_config": CHANNEL}, status=200)
for field in CHANNEL:
    mint(
        f"agora_config needs {field}",
        {"agora_config": {name: value for name, value in CHANNEL.items() if name != field}},
        status=422,
        detail__0__loc=["body", "agora_config", field],
    )
mint("agora_uid is a text", {"agora_config": {**CHANNEL, "agora_uid": 7}}, status=422)
mint("two rooms exclude each other", {"livekit_config": ROOM, "agora_config": CHANNEL}, status=400)

# -- connectors

ELEVENLABS = {"secret_id": NOBODY, "agent_id": "agent_1"}
CONNECTORS: dict[str, dict[str, Any]] = {
    "elevenlabs_agent_config": ELEVENLABS,
    "openai_realtime_config": {"secret_id": NOBODY},
    "gemini_realtime_config": {"secret_id": NOBODY},
    "cartesia_agent_config": {"secret_id": NOBODY, "agent_id": "agent_1"},
}
for field, config in CONNECTORS.items():
    mint(field, {field: config}, status=200)
    mint(f"{field} may be null", {field: None}, status=200)
    mint(f"{field} needs secret_id", {field: {**config, "secret_id": None}}, status=422)
    mint(f"{field}: secret_id is a UUID", {field: {**config, "secret_id": "mine"}}, status=422)
mint("cartesia_agent_config needs agent_id", {"cartesia_agent_config": {"secret_id": NOBODY}}, status=422)
mint("elevenlabs_agent_config needs agent_id", {"elevenlabs_agent_config": {"secret_id": NOBODY}}, status=422)
mint("elevenlabs_agent_config: voice_id", {"elevenlabs_agent_config": {**ELEVENLABS, "voice_id": "v"}}, status=200)
mint(
    "elevenlabs_agent_config: dynamic_variables",
    {"elevenlabs_agent_config": {**ELEVENLABS, "dynamic_variables": {"name": "Ada", "age": 36, "vip": True}}},
    status=200,
)
mint(
    "elevenlabs_agent_config: dynamic_variables are flat",
    {"elevenlabs_agent_config": {**ELEVENLABS, "dynamic_variables": {"name": {"first": "Ada"}}}},
    status=422,
)
for field, low, high in (("openai_realtime_config", 0.6, 1.2), ("gemini_realtime_config", 0, 2)):
    for temperature, status in ((low, 200), (high, 200), (low - 0.1, 422), (high + 0.1, 422)):
        mint(
            f"{field}: temperature {temperature:.1f}",
            {field: {"secret_id": NOBODY, "temperature": temperature}},
            status=status,
        )
    mint(f"{field}: context_id", {field: {"secret_id": NOBODY, "context_id": NOBODY}}, status=200)
    mint(f"{field}: context_id is a UUID", {field: {"secret_id": NOBODY, "context_id": "x"}}, status=422)
mint(
    "openai_realtime_config: an unknown voice",
    {"openai_realtime_config": {"secret_id": NOBODY, "voice": "Bob"}},
    status=422,
)


async def _carried(w: World, field: str) -> dict[str, Any]:
    """The connector's configuration as the session token carries it."""
    data = claims(await w.token(**{field: CONNECTORS[field]}))["start_session_data"]
    return dict(data[field])


for field, name, default in (
    ("openai_realtime_config", "voice", "alloy"),
    ("openai_realtime_config", "temperature", 0.8),
    ("openai_realtime_config", "model", "gpt-realtime"),
    ("gemini_realtime_config", "voice", "Puck"),
    ("gemini_realtime_config", "temperature", 0.8),
    ("gemini_realtime_config", "model", "gemini-3.1-flash-live-preview"),
):

    async def _default(w: World, field: str = field, name: str = name) -> Any:
        return (await _carried(w, field))[name]

    table.add("2.1", f"{field}: {name} is {default} by default", _default, default)
mint(
    "two connectors exclude each other",
    {"openai_realtime_config": {"secret_id": NOBODY}, "gemini_realtime_config": {"secret_id": NOBODY}},
    status=400,
    data__0__loc=["gemini_realtime_config"],
)


async def _with_secret(w: World, field: str, secret_type: str) -> httpx.Response:
    stored = await w.secret(secret_type=secret_type)
    return await w.mint(**{field: {**CONNECTORS[field], "secret_id": stored.json()["data"]["id"]}})


for field, secret_type in (
    ("elevenlabs_agent_config", "ELEVENLABS_API_KEY"),
    ("openai_realtime_config", "OPENAI_API_KEY"),
    ("gemini_realtime_config", "GEMINI_API_KEY"),
    ("cartesia_agent_config", "CARTESIA_API_KEY"),
):
    table.answer(
        "2.1",
        f"{field} takes a secret of type {secret_type}",
        lambda w, field=field, secret_type=secret_type: _with_secret(w, field, secret_type),
        status=200,
    )
    table.answer(
        "2.1",
        f"{field} takes no secret of another type",
        lambda w, field=field: _with_secret(w, field, "LLM_API_KEY"),
        status=400,
        data__0__loc=["secret_id"],
    )

# -- fields of FULL mode do not belong here, and do no harm

for field, value in (
    ("avatar_persona", {"language": "en"}),
    ("voice_agent", {"id": NOBODY}),
    ("context_id", NOBODY),
    ("interactivity_type", "CONVERSATIONAL"),
):
    mint(f"{field} is ignored", {field: value}, status=200)

# -- the answer, and what it means

mint("the answer is a 200", {}, status=200)
mint("the answer has two fields", {}, data__keys=["session_id", "session_token"])
mint("session_id is a text", {}, data__session_id=TEXT)


async def _subject(w: World) -> bool:
    data = (await w.mint()).json()["data"]
    return claims(data["session_token"])["sub"] == data["session_id"]


table.add("2.1", "session_token is a JWT of that session", _subject, wanted=True)


async def _lifetime(w: World) -> int:
    token = claims(await w.token())
    return int(token["exp"] - token["iat"])


table.add("2.1", "session_token is short-lived: five minutes, in our choice", _lifetime, 300)


async def _mode_carried(w: World) -> Any:
    return claims(await w.token())["start_session_data"]


table.add("2.1", "session_token carries the mode", _mode_carried, {"mode": "LITE"})


async def _room_carried(w: World) -> Any:
    return claims(await w.token(livekit_config=ROOM))["start_session_data"].get("livekit_config", ABSENT)


table.add("2.1", "session_token does not carry the caller's room", _room_carried, ABSENT)


async def _mint_thrice(w: World) -> list[int]:
    await w.knobs(concurrency=1)
    return [(await w.mint()).status_code for _ in range(3)]


table.add("2.1", "minting takes no slot", _mint_thrice, [200, 200, 200])


async def _free(w: World) -> str:
    await w.mint()
    return await w.credits()


table.add("2.1", "minting is free", _free, "1000.00")


async def _nothing_started(w: World) -> Any:
    await w.mint()
    return (await w.call("GET", "/sessions", params={"type": "active"})).json()["data"]["count"]


table.add("2.1", "minting starts nothing", _nothing_started, 0)


async def _immutable(w: World) -> Any:
    token = await w.token(max_session_duration=600)
    await w.knobs(max_duration_s=30)
    return (await w.start_with(token)).json()["data"]["max_session_duration"]


table.add("2.1", "what was minted is fixed", _immutable, 600)


async def _without_credit(w: World) -> httpx.Response:
    await w.knobs(credits=0)
    return await w.mint()


table.answer("2.1", "minting needs no credit", _without_credit, status=200)
table.answer(
    "2.1", "a body is required", lambda w: w.call("POST", "/sessions/token"), status=422, detail__0__loc=["body"]
)
