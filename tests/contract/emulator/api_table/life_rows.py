"""Sections 2.2 to 2.4: a session's life over REST."""

from typing import Any

import httpx
from contract.emulator.api_table.table import (
    ABSENT,
    NOBODY,
    TEXT,
    WAYNE,
    Table,
    World,
    claims,
)
from contract.emulator.api_table.token_rows import CHANNEL, CONNECTORS, ROOM

from liveavatar_emulator.tokens import sign

table = Table()

# -- 2.2: start


def start(
    rule: str, order: dict[str, Any] | None = None, knobs: dict[str, Any] | None = None, **wanted: Any
) -> None:
    table.answer("2.2", rule, lambda w: w.start(knobs=knobs, **(order or {})), **wanted)


async def _start_with_body(w: World, **request: Any) -> httpx.Response:
    return await w.call("POST", "/sessions/start", key=None, bearer=await w.token(), **request)


for what, request in {
    "no body": {},
    "an empty object": {"json": {}},
    "the session's id": {"json": {"session_id": NOBODY}},
}.items():
    table.answer(
        "2.2", f"start with {what}", lambda w, request=request: _start_with_body(w, **request), status=201
    )
start("start answers 201", status=201)
start(
    "the answer has six fields",
    data__keys=[
        "livekit_agent_token",
        "livekit_client_token",
        "livekit_url",
        "max_session_duration",
        "session_id",
        "ws_url",
    ],
)


async def _same_id(w: World) -> bool:
    minted = (await w.mint()).json()["data"]
    started = await w.start_with(minted["session_token"])
    return bool(started.json()["data"]["session_id"] == minted["session_id"])


table.add("2.2", "session_id is that of the token", _same_id, wanted=True)
for field in ("livekit_url", "livekit_client_token", "livekit_agent_token"):
    start(f"{field} in an owned room", **{f"data__{field}": TEXT})
for field in ("livekit_client_token", "livekit_agent_token"):

    async def _grants(w: World, field: str = field) -> dict[str, Any]:
        video = claims((await w.start()).json()["data"][field])["video"]
        return {name: video.get(name, ABSENT) for name in ("canSubscribe", "canPublish", "canPublishData")}

    wanted = {"canSubscribe": True, "canPublish": True, "canPublishData": True}
    table.add("2.2", f"{field} grants everything in an owned room", _grants, wanted)


async def _agent_token(w: World) -> tuple[bool, bool]:
    token = claims((await w.start()).json()["data"]["livekit_agent_token"])
    return bool(token["video"]["room"]), bool(token["sub"])


table.add("2.2", "livekit_agent_token names the room and who joins", _agent_token, (True, True))
start("max_session_duration is a number", {"max_session_duration": 300}, data__max_session_duration=300)
start(
    "max_session_duration of the sandbox is 60",
    {"is_sandbox": True, "avatar_id": WAYNE},
    data__max_session_duration=60,
)


async def _ws_url(w: World) -> bool:
    url = (await w.start()).json()["data"]["ws_url"]
    return bool(url.startswith(w.emulator.url.replace("http://", "ws://")))


table.add("2.2", "ws_url leads back to the host that was called", _ws_url, wanted=True)


async def _opaque(w: World) -> bool:
    data = (await w.start()).json()["data"]
    return data["session_id"] in data["ws_url"] or data["livekit_client_token"] in data["ws_url"]


table.add("2.2", "ws_url is a secret of its own", _opaque, wanted=False)


async def _attached(w: World) -> str:
    session = await w.session()
    async with w.emulator.socket(session) as socket:
        return str((await socket.until("session.state_updated"))["state"])


table.add("2.2", "ws_url needs no header and no hello", _attached, "new")
for field, config in CONNECTORS.items():
    start(f"{field}: no ws_url", {field: config}, status=201, data__ws_url=ABSENT)
start(
    "a connector has an owned room",
    {"openai_realtime_config": {"secret_id": NOBODY}},
    data__livekit_client_token=TEXT,
)

CLAIMS: dict[str, Any] = {
    "roomJoin": True,
    "room": ROOM["livekit_room"],
    "canPublish": True,
    "canSubscribe": True,
    "canPublishData": True,
}


def livekit_room(**changes: Any) -> dict[str, Any]:
    """An order with a room of the caller's own; a change to `None` leaves a claim out."""
    video = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return {"livekit_config": {**ROOM, "livekit_client_token": sign({"video": video}, b"the caller's")}}


start("an own room with all five claims", livekit_room(), status=201)
start("an own room's livekit_url is the caller's", livekit_room(), data__livekit_url=ROOM["livekit_url"])
for field in ("livekit_url", "livekit_client_token", "livekit_agent_token"):
    start(f"{field} is filled with an own room", livekit_room(), **{f"data__{field}": TEXT})
    start(
        f"{field} may be null with an own room",
        livekit_room(),
        {"byo_livekit_fields": "null"},
        **{f"data__{field}": None},
    )
    start(
        f"{field} may be missing with an own room",
        livekit_room(),
        {"byo_livekit_fields": "omitted"},
        **{f"data__{field}": ABSENT},
    )
    start(f"{field} is null with an Agora channel", {"agora_config": CHANNEL}, **{f"data__{field}": None})
start("ws_url comes with an own room", livekit_room(), data__ws_url=TEXT)
start("ws_url comes with an Agora channel", {"agora_config": CHANNEL}, data__ws_url=TEXT)
for claim in CLAIMS:
    table.answer(
        "2.2",
        f"without the claim {claim} the token is minted",
        lambda w, c=claim: w.mint(**livekit_room(**{c: None})),
        status=200,
    )
    start(f"without the claim {claim} start is a 500", livekit_room(**{claim: None}), status=500, code=500)
for claim in ("roomJoin", "canPublish", "canSubscribe", "canPublishData"):
    start(f"with {claim} false start is a 500", livekit_room(**{claim: False}), status=500)
start("a token for another room makes start a 500", livekit_room(room="desk-8"), status=500)
start(
    "a token that is none makes start a 500",
    {"livekit_config": {**ROOM, "livekit_client_token": "x.y.z"}},
    status=500,
)


async def _second_start(w: World) -> httpx.Response:
    token = await w.token()
    await w.start_with(token)
    return await w.start_with(token)


table.answer(
    "2.2",
    "a token starts once",
    _second_start,
    status=400,
    body={"code": 4000, "data": None, "message": "Session already started"},
)


async def _late_start(w: World, seconds: float) -> httpx.Response:
    token = await w.token()
    await w.advance(seconds)
    return await w.start_with(token)


table.answer("2.2", "a token can be started for five minutes", lambda w: _late_start(w, 299.999), status=201)
table.answer("2.2", "after that it is a 401", lambda w: _late_start(w, 300.001), status=401)


async def active_count(w: World) -> int:
    return int((await w.call("GET", "/sessions", params={"type": "active"})).json()["data"]["count"])


async def _after_500(w: World) -> tuple[int, str]:
    await w.start(**livekit_room(canPublishData=None))
    return await active_count(w), await w.credits()


table.add("2.2", "a start that fails takes no slot and no credit", _after_500, (0, "1000.00"))


async def _slot(w: World) -> int:
    await w.session()
    return await active_count(w)


table.add("2.2", "a slot is taken at start", _slot, 1)


async def _after_ambiguity(w: World) -> list[str]:
    token = await w.token()
    await w.fault("start", status=502, after_effect=True)
    lost = await w.start_with(token)
    return [str(lost.status_code), str(await active_count(w))]


table.add("2.2", "a lost answer may leave a session that the list shows", _after_ambiguity, ["502", "1"])

# -- 2.3: stop


async def _stop(w: World, **request: Any) -> httpx.Response:
    session = await w.session()
    return await w.call("POST", "/sessions/stop", key=None, bearer=session.token, **request)


table.answer("2.3", "stop answers with null", _stop, status=200, data=None)


def stopped(rule: str, field: str, wanted: Any, *, key: bool = False, **body: Any) -> None:
    async def see(w: World) -> Any:
        return (await w.stopped(key="emulator-key" if key else None, **body)).get(field, ABSENT)

    table.add("2.3", rule, see, wanted)


stopped("stop without a body is USER_CLOSED", "end_reason", "USER_CLOSED")
stopped("stop with a body that names no reason is UNKNOWN", "end_reason", "UNKNOWN", session_id=NOBODY)
for reason in (
    "USER_CLOSED",
    "USER_DISCONNECTED",
    "IDLE_TIMEOUT",
    "MAX_DURATION_REACHED",
    "NO_CREDITS",
    "ZOMBIE_SESSION_REAP",
    "AVATAR_DELETED",
    "SERVER_ERROR",
    "AGENT_HANG_UP",
    "DISPATCH_FAILED",
    "UNKNOWN",
):
    stopped(f"a caller may pass {reason}", "end_reason", reason, reason=reason)
table.answer("2.3", "no other reason", lambda w: _stop(w, json={"reason": "BORED"}), status=422)
table.answer("2.3", "session_id is a UUID", lambda w: _stop(w, json={"session_id": "mine"}), status=422)


async def _stop_by_key(w: World) -> Any:
    session = await w.session()
    await w.call("POST", "/sessions/stop", json={"session_id": session.id, "reason": "USER_DISCONNECTED"})
    return (await w.entry(session))["end_reason"]


table.add("2.3", "stop by key and session_id", _stop_by_key, "USER_DISCONNECTED")


async def _twice(w: World, path: str) -> httpx.Response:
    session = await w.session()
    await w.call("POST", "/sessions/stop", key=None, bearer=session.token)
    return await w.call("POST", path, key=None, bearer=session.token)


table.answer(
    "2.3",
    "stopping what is gone is a 404",
    lambda w: _twice(w, "/sessions/stop"),
    status=404,
    message="Session not found",
)


async def _old_token(w: World) -> httpx.Response:
    session = await w.session()
    await w.keep_for(session, 299)
    await w.call("POST", "/sessions/keep-alive", key=None, bearer=session.token)
    await w.keep_for(session, 60)
    return await w.call("POST", "/sessions/stop", key=None, bearer=session.token)


table.answer("2.3", "a session's token stops it also when it is too old to start", _old_token, status=200)


async def _delete(w: World) -> httpx.Response:
    session = await w.session()
    return await w.call("DELETE", "/sessions", key=None, bearer=session.token)


table.answer("2.3", "DELETE /v1/sessions is no way to stop", _delete, status=405, code=405, data=None)


async def _restart(w: World, seconds: float, **knobs: Any) -> httpx.Response:
    await w.knobs(concurrency=1, **knobs)
    session = await w.session()
    await w.call("POST", "/sessions/stop", key=None, bearer=session.token)
    await w.advance(seconds)
    return await w.start()


table.answer("2.3", "a stopped session frees its slot", lambda w: _restart(w, 0), status=201)
table.answer(
    "2.3", "or only within a second or so", lambda w: _restart(w, 0.9, slot_release_ms=1000), status=403, code=4032
)
table.answer("2.3", "and then it is free", lambda w: _restart(w, 1, slot_release_ms=1000), status=201)

# -- 2.4: keep-alive


async def _keep(w: World, *, by_key: bool = False, with_id: bool = False, **request: Any) -> httpx.Response:
    session = await w.session()
    if with_id:
        request["json"] = {"session_id": session.id}
    credential = {} if by_key else {"key": None, "bearer": session.token}
    return await w.call("POST", "/sessions/keep-alive", **credential, **request)


table.answer("2.4", "keep-alive without a body", _keep, status=200, data=None)
table.answer("2.4", "keep-alive with session_id and bearer", lambda w: _keep(w, with_id=True), status=200)
table.answer(
    "2.4", "keep-alive with session_id and key", lambda w: _keep(w, with_id=True, by_key=True), status=200
)
table.answer("2.4", "keep-alive with {}", lambda w: _keep(w, json={}), status=200)
table.answer("2.4", "session_id is a UUID", lambda w: _keep(w, json={"session_id": "x"}), status=422)
table.answer("2.4", "what is gone is a 404", lambda w: _twice(w, "/sessions/keep-alive"), status=404)


async def _kept(w: World, *, keep: bool) -> Any:
    session = await w.session()
    async with w.emulator.socket(session) as socket:
        await socket.until("session.state_updated")
        await w.advance(299)
        if keep:
            await w.call("POST", "/sessions/keep-alive", key=None, bearer=session.token)
        await w.advance(299)
    return (await w.entry(session)).get("end_reason", ABSENT)


table.add("2.4", "keep-alive resets the idle timer", lambda w: _kept(w, keep=True), ABSENT)
table.add("2.4", "without it the timer runs out", lambda w: _kept(w, keep=False), "IDLE_TIMEOUT")


async def _not_longer(w: World) -> tuple[Any, Any]:
    session = await w.session(max_session_duration=60)
    await w.keep_for(session, 59)
    await w.call("POST", "/sessions/keep-alive", key=None, bearer=session.token)
    await w.keep_for(session, 30)
    entry = await w.entry(session)
    return entry["end_reason"], entry["duration"]


table.add("2.4", "keep-alive does not lengthen a session", _not_longer, ("MAX_DURATION_REACHED", 60))
