"""Sections 1, 1.1, 1.2 and 1.4: where the API is, who may call what, the envelope, and rate limits."""

from typing import Any

import httpx
from contract.emulator.api_table.table import AVATAR, KEY, SECRET, TEXT, WAYNE, Table, World

table = Table()

# -- 1: where the API is

table.answer("1", "the API lies under /v1", lambda w: w.http.get("/avatars/public"), status=404)
for tail in ("token", "start", "stop"):
    table.answer(
        "1",
        f"the plugin's base of /v1/sessions leads to /{tail}",
        lambda w, tail=tail: w.call("POST", f"/sessions/{tail}", key=None),
        status=401,
    )
table.answer(
    "1", "keys of heygen.com do not work", lambda w: w.call("GET", "/users/credits", key="heygen-key"), status=401
)

# -- 1.1: the matrix, each cell of it

ENDPOINTS = {
    "POST /v1/sessions/token": "key",
    "POST /v1/sessions/start": "bearer",
    "POST /v1/sessions/stop": "both",
    "POST /v1/sessions/keep-alive": "both",
    "GET /v1/sessions": "key",
    "GET /v1/sessions/{id}": "key",
    "GET /v1/sessions/{id}/transcript": "key",
    "DELETE /v1/sessions/{id}/events": "both",
    "GET /v1/avatars": "key",
    "GET /v1/avatars/{avatar}": "key",
    "PATCH /v1/avatars/{own}": "key",
    "DELETE /v1/avatars/{own}": "key",
    "GET /v1/voices": "key",
    "GET /v1/contexts": "key",
    "GET /v1/users/credits": "key",
    "GET /v1/secrets": "key",
    "POST /v1/secrets": "key",
    "DELETE /v1/secrets/{secret}": "key",
    "GET /v1/avatars/public": "none",
}
"""Credential of each endpoint; `both` accepts either."""

CREDENTIALS = ("key", "bearer", "none", "wrong key", "wrong bearer", "dashboard cookie")


def _status(endpoint: str, needs: str, given: str) -> int:
    good = {"key": ("key",), "bearer": ("bearer",), "both": ("key", "bearer"), "none": CREDENTIALS}[needs]
    if given not in good:
        return 401
    return 201 if endpoint.endswith("/start") else 200


async def _knock(world: World, endpoint: str, given: str) -> int:
    """Call an endpoint in a way that can only fail for its credentials, and return the status."""
    method, _, path = endpoint.partition(" /v1")
    token = await world.token()
    session_id = ""
    if not path.endswith(("/start", "/token")):
        started = await world.start_with(token)
        session_id = started.json()["data"]["session_id"]
    own = (await world.own_avatar())["id"]
    secret_id = (await world.secret()).json()["data"]["id"]
    path = path.format(id=session_id, avatar=WAYNE, own=own, secret=secret_id)
    request: dict[str, Any] = {}
    if method == "PATCH":
        request["json"] = {"name": "Renamed"}
    if endpoint == "POST /v1/secrets":
        request["json"] = SECRET
    if path.endswith("/token"):
        request["json"] = {"avatar_id": AVATAR}
    if path.endswith(("/stop", "/keep-alive")):
        request["json"] = {"session_id": session_id}
    if path == "/sessions":
        request["params"] = {"type": "active"}
    if given == "dashboard cookie":
        request["headers"] = {"Cookie": "la_session=abc"}
    key = {"key": KEY, "wrong key": "not-a-key"}.get(given)
    bearer = {"bearer": token, "wrong bearer": "not.a.token"}.get(given)
    return (await world.call(method, path, key=key, bearer=bearer, **request)).status_code


for endpoint, needs in ENDPOINTS.items():
    for given in CREDENTIALS:
        table.add(
            "1.1",
            f"{endpoint} with {given}",
            lambda w, endpoint=endpoint, given=given: _knock(w, endpoint, given),
            _status(endpoint, needs, given),
        )


async def _start_with_both(w: World) -> httpx.Response:
    return await w.call("POST", "/sessions/start", bearer=await w.token())


table.answer("1.1", "start takes a key beside the bearer", _start_with_both, status=201)


async def _stop_with_key_alone(w: World) -> httpx.Response:
    await w.session()
    return await w.call("POST", "/sessions/stop")


table.answer("1.1", "stop with a key needs session_id", _stop_with_key_alone, status=400, code=4000)


async def _keep_alive_with_key_alone(w: World) -> httpx.Response:
    await w.session()
    return await w.call("POST", "/sessions/keep-alive", json={})


table.answer("1.1", "keep-alive with a key needs session_id", _keep_alive_with_key_alone, status=400, code=4000)


async def _foreign_session(w: World, method: str, path: str, **request: Any) -> httpx.Response:
    session = await w.session()
    return await w.call(method, path.format(session.id), key="other-key", **request)


for method, path in (
    ("GET", "/sessions/{}"),
    ("GET", "/sessions/{}/transcript"),
    ("DELETE", "/sessions/{}/events"),
):
    table.answer(
        "1.1",
        f"another account's key does not reach {method} {path}",
        lambda w, method=method, path=path: _foreign_session(w, method, path),
        status=404,
    )


async def _foreign_events(w: World) -> httpx.Response:
    one, other = await w.session(), await w.session()
    return await w.call("DELETE", f"/sessions/{one.id}/events", key=None, bearer=other.token)


table.answer("1.1", "a bearer token erases its own session's events only", _foreign_events, status=404)


async def _bearer_wins(w: World) -> list[str]:
    one, other = await w.session(), await w.session()
    await w.call("POST", "/sessions/stop", bearer=one.token, json={"session_id": other.id})
    listed = await w.call("GET", "/sessions", params={"type": "active"})
    return [entry["id"] == other.id for entry in listed.json()["data"]["results"]]


table.add("1.1", "a bearer wins over the session_id that came with a key", _bearer_wins, [True])

# -- 1.2: the envelope

table.answer("1.2", "success is 1000", lambda w: w.mint(), code=1000)


async def _code_100(w: World) -> httpx.Response:
    await w.knobs(success_code=100)
    return await w.mint()


table.answer("1.2", "a knob makes it the documented 100", _code_100, code=100)
table.answer("1.2", "code, data, message and nothing else", lambda w: w.mint(), keys=["code", "data", "message"])
table.answer("1.2", "message is a text", lambda w: w.mint(), message=TEXT)
table.answer("1.2", "answers are JSON", lambda w: w.mint(), header_content_type="application/json")


async def _stop(w: World) -> httpx.Response:
    session = await w.session()
    return await w.call("POST", "/sessions/stop", key=None, bearer=session.token)


table.answer("1.2", "data may be null", _stop, body={"code": 1000, "data": None, "message": "Success"})

# -- 1.4: rate limits


async def _burst(w: World, count: int, **call: Any) -> list[httpx.Response]:
    await w.knobs(rate=10)
    return [await w.call("GET", "/users/credits", **call) for _ in range(count)]


def _from_burst(rule: str, count: int, **wanted: Any) -> None:
    async def last(w: World) -> httpx.Response:
        return (await _burst(w, count))[-1]

    table.answer("1.4", rule, last, **wanted)


_from_burst("ten a second pass", 10, status=200)
_from_burst("the eleventh is a 429", 11, status=429)
_from_burst("a 429 is in the envelope with our own code 4290", 11, code=4290, data=None, message=TEXT)
_from_burst("a 429 says when to come back", 11, header_retry_after="1")
_from_burst("X-RateLimit-Limit is the budget", 1, header_x_ratelimit_limit="10")
_from_burst("X-RateLimit-Remaining counts down", 3, header_x_ratelimit_remaining="7")
_from_burst("X-RateLimit-Remaining stops at none", 11, header_x_ratelimit_remaining="0")
_from_burst("X-RateLimit-Reset is the seconds left in the window", 1, header_x_ratelimit_reset="1")


async def _next_window(w: World) -> httpx.Response:
    await _burst(w, 11)
    await w.advance(1)
    return await w.call("GET", "/users/credits")


table.answer("1.4", "the next window starts afresh", _next_window, status=200, header_x_ratelimit_remaining="9")


async def _another(w: World, path: str, **call: Any) -> httpx.Response:
    await _burst(w, 11)
    return await w.call("GET", path, **call)


table.answer("1.4", "each endpoint has its own counter", lambda w: _another(w, "/voices"), status=200)
table.answer(
    "1.4",
    "another key has its own counter",
    lambda w: _another(w, "/users/credits", key="other-key"),
    status=200,
)


async def _twin_keys(w: World) -> httpx.Response:
    await _burst(w, 11, key="twin-key-1")
    return await w.call("GET", "/users/credits", key="twin-key-2")


table.answer("1.4", "two keys of one account have independent budgets", _twin_keys, status=200)


async def _one_session_each(w: World) -> list[int]:
    one, other = await w.session(), await w.session()
    await w.knobs(rate=1)
    callers = (one, other, one)
    return [
        (await w.call("POST", "/sessions/keep-alive", key=None, bearer=session.token)).status_code
        for session in callers
    ]


table.add("1.4", "calls with a bearer token count per session", _one_session_each, [200, 200, 429])


async def _path_parameters(w: World) -> list[int]:
    one, other = await w.session(), await w.session()
    await w.knobs(rate=1)
    return [(await w.call("GET", f"/sessions/{session.id}")).status_code for session in (one, other)]


table.add("1.4", "path parameters are no part of the endpoint", _path_parameters, [200, 429])


async def _by_address(w: World) -> list[int]:
    await w.knobs(rate=1)
    return [(await w.call("GET", "/avatars/public", key=None)).status_code for _ in range(2)]


table.add("1.4", "callers without credentials are counted by address", _by_address, [200, 429])


async def _with_rate(w: World, method: str, path: str, **call: Any) -> httpx.Response:
    await w.knobs(rate=10)
    return await w.call(method, path, **call)


for what, method, path, call, status in (
    ("a success", "GET", "/users/credits", {}, 200),
    ("a 401", "GET", "/users/credits", {"key": None}, 401),
    ("a 400", "POST", "/sessions/token", {"json": {"avatar_id": AVATAR, "is_sandbox": True}}, 400),
    ("a 404", "GET", "/sessions/none", {}, 404),
    ("a 422", "GET", "/sessions", {}, 422),
    ("an unknown path", "GET", "/nothing", {}, 404),
    ("a wrong method", "DELETE", "/sessions", {}, 405),
):
    table.answer(
        "1.4",
        f"{what} carries the headers",
        lambda w, method=method, path=path, call=call: _with_rate(w, method, path, **call),
        status=status,
        header_x_ratelimit_remaining="9",
    )


async def _unlimited(w: World) -> httpx.Response:
    await w.knobs(rate=0)
    return [await w.call("GET", "/users/credits") for _ in range(20)][-1]


table.answer("1.4", "rate 0 switches the limit off", _unlimited, status=200, header_x_ratelimit_limit="(absent)")
