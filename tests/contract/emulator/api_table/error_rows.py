"""Section 1.3: three shapes of errors, and every known error."""

from typing import Any

import httpx
from contract.emulator.api_table.table import ABSENT, AVATAR, FOREIGN, NOBODY, TEXT, WAYNE, Table, World

table = Table()

# -- the shapes


async def _no_credit(w: World) -> httpx.Response:
    return await w.start(knobs={"credits": 0})


table.answer(
    "1.3",
    "shape 1: code, null and a message",
    _no_credit,
    body={"code": 4033, "data": None, "message": "Insufficient credits for session"},
)
table.answer(
    "1.3",
    "shape 2: the field at fault in data",
    lambda w: w.mint(is_sandbox=True),
    body={
        "code": 4000,
        "data": [
            {
                "loc": ["avatar_id"],
                "message": "This avatar is not supported in sandbox mode",
                "params": {"avatar_id": AVATAR},
            }
        ],
        "message": "Bad request error",
    },
)
table.answer(
    "1.3",
    "shape 3: the framework's own, without an envelope",
    lambda w: w.call("POST", "/sessions/token", json={}),
    status=422,
    body={
        "detail": [{"type": "missing", "loc": ["body", "avatar_id"], "msg": "Field required", "input": {}}],
    },
)

# -- each known error

table.answer(
    "1.3",
    "400 sandbox with another avatar",
    lambda w: w.mint(is_sandbox=True),
    status=400,
    code=4000,
    data__0__message="This avatar is not supported in sandbox mode",
)
table.answer(
    "1.3",
    "400 sandbox for longer than its cap",
    lambda w: w.mint(is_sandbox=True, avatar_id=WAYNE, max_session_duration=600),
    status=400,
    code=4000,
    data__0__message="max_session_duration (600s) exceeds the maximum allowed (60s)",
)
table.answer(
    "1.3",
    "400 longer than the plan's cap, which the message names",
    lambda w: w.mint(max_session_duration=3601),
    status=400,
    code=4000,
    data__0__message="max_session_duration (3601s) exceeds the maximum allowed (3600s)",
)
table.answer(
    "1.3",
    "400 avatar of another account",
    lambda w: w.mint(avatar_id=FOREIGN),
    status=400,
    code=4000,
    data__0__message="You dont have access to this avatar",
)
table.answer(
    "1.3",
    "reading that avatar works all the same",
    lambda w: w.call("GET", f"/avatars/{FOREIGN}"),
    status=200,
    data__id=FOREIGN,
)


async def _empty_keep_alive(w: World, *, strict: bool) -> httpx.Response:
    session = await w.session()
    await w.knobs(strict=strict)
    return await w.call("POST", "/sessions/keep-alive", key=None, bearer=session.token, json={})


table.answer(
    "1.3", "400 keep-alive with {} in strict mode", lambda w: _empty_keep_alive(w, strict=True), status=400
)
table.answer(
    "1.3", "keep-alive with {} passes by default", lambda w: _empty_keep_alive(w, strict=False), status=200
)

for name, call in {
    "no key": {"key": None},
    "a wrong key": {"key": "wrong"},
    "a bearer where a key is needed": {"key": None, "bearer": "emulator-key"},
}.items():
    table.answer(
        "1.3",
        f"401 {name}",
        lambda w, call=call: w.call("GET", "/users/credits", **call),
        status=401,
        code=401,
        data=None,
        message=TEXT,
    )
table.answer(
    "1.3", "401 a key where a bearer is needed", lambda w: w.call("POST", "/sessions/start"), status=401, code=401
)
table.answer("1.3", "no credit is never a 402", _no_credit, status=403)
table.answer(
    "1.3",
    "403/4030 1080p, at token",
    lambda w: w.mint(video_settings={"quality": "very_high"}),
    status=403,
    body={"code": 4030, "data": None, "message": "1080p sessions require a Business or Enterprise plan"},
)


async def _one_too_many(w: World) -> httpx.Response:
    await w.knobs(concurrency=1)
    await w.session()
    return await w.start()


table.answer(
    "1.3",
    "403/4032 concurrency, at start",
    _one_too_many,
    status=403,
    body={"code": 4032, "data": None, "message": "Session concurrency limit reached"},
)


async def _older(w: World, endpoint: str, **words: Any) -> httpx.Response:
    token = await w.token()
    await w.fault(endpoint, **words)
    return await (w.start_with(token) if endpoint == "start" else w.mint())


table.answer(
    "1.3",
    "403/4003, the older code for concurrency, on request",
    lambda w: _older(w, "start", status=403, code=4003, message="Session concurrency limit reached"),
    status=403,
    body={"code": 4003, "data": None, "message": "Session concurrency limit reached"},
)
table.answer("1.3", "403/4033 credits, at start", _no_credit, status=403, code=4033)
table.answer(
    "1.3",
    "403/4033 in its older words, on request",
    lambda w: _older(w, "start", status=403, code=4033, message="No credits available for start session"),
    status=403,
    code=4033,
    message="No credits available for start session",
)
table.answer(
    "1.3",
    "403/4033 at token, on request",
    lambda w: _older(w, "token", status=403, code=4033, message="Insufficient credits for session"),
    status=403,
    code=4033,
)
for what, method, path in (
    ("stop", "POST", "/sessions/stop"),
    ("keep-alive", "POST", "/sessions/keep-alive"),
):
    table.answer(
        "1.3",
        f"404 {what} of an unknown session",
        lambda w, method=method, path=path: w.call(method, path, json={"session_id": NOBODY}),
        status=404,
        body={"code": 404, "data": None, "message": "Session not found"},
    )
table.answer(
    "1.3",
    "404 get of an unknown session",
    lambda w: w.call("GET", f"/sessions/{NOBODY}"),
    status=404,
    body={"code": 404, "data": None, "message": "Session not found"},
)
table.answer("1.3", "concurrency is never a 409", _one_too_many, status=403)
table.answer(
    "1.3",
    "409, which only stubs send, on request",
    lambda w: _older(w, "token", status=409),
    status=409,
    code=409,
)
table.answer(
    "1.3",
    "422 FULL without a persona",
    lambda w: w.mint(mode="FULL"),
    status=422,
    detail__0__loc=["body", "avatar_persona"],
    detail__0__type="missing",
)
table.answer(
    "1.3",
    "422 a body that is no JSON",
    lambda w: w.call("POST", "/sessions/token", content=b"{", headers={"Content-Type": "application/json"}),
    status=422,
    detail__0__type="json_invalid",
    code=ABSENT,
)
table.answer(
    "1.3",
    "422 a query that does not fit",
    lambda w: w.call("GET", "/sessions"),
    status=422,
    detail__0__loc=["query", "type"],
)


async def _too_many(w: World) -> httpx.Response:
    await w.knobs(rate=1)
    await w.call("GET", "/voices")
    return await w.call("GET", "/voices")


table.answer("1.3", "429 with Retry-After", _too_many, status=429, header_retry_after="1")
table.answer(
    "1.3",
    "500 is generic: envelope, code 500, no hint",
    lambda w: w.start(
        livekit_config={"livekit_url": "wss://x", "livekit_room": "r", "livekit_client_token": "not a token"}
    ),
    status=500,
    body={"code": 500, "data": None, "message": "Internal server error"},
)
for status in (500, 502, 503, 504):
    table.answer(
        "1.3",
        f"{status} on request",
        lambda w, status=status: _older(w, "token", status=status),
        status=status,
        code=status,
        data=None,
    )
table.answer(
    "1.3",
    "400 'Session start failed', the web SDK's fixture, on request",
    lambda w: _older(w, "start", status=400, code=4000, message="Session start failed"),
    status=400,
    body={"code": 4000, "data": None, "message": "Session start failed"},
)
table.answer(
    "1.3",
    "an `error` key instead of an envelope, on request",
    lambda w: _older(w, "start", status=500, body='{"error":"boom"}'),
    status=500,
    text='{"error":"boom"}',
    header_content_type="application/json",
)
table.answer(
    "1.3",
    "a `detail` text instead of a list, on request",
    lambda w: _older(w, "start", status=404, body='{"detail":"Not Found"}'),
    status=404,
    text='{"detail":"Not Found"}',
)
table.answer(
    "1.3",
    "an answer that is no JSON at all, on request",
    lambda w: _older(w, "start", status=502, body="<html>Bad Gateway</html>"),
    status=502,
    text="<html>Bad Gateway</html>",
)
