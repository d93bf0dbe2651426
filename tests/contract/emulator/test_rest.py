"""The REST API, as a client sees it."""

import asyncio

import httpx
import pytest

from liveavatar_emulator.tokens import sign

KEY = {"X-API-KEY": "emulator-key"}
WAYNE = "dd73ea75-1218-4ef3-92ce-606d5f7fbc0a"


async def test_token_then_start_gives_every_field(emulator):
    minted = await emulator.mint(max_session_duration=600)
    assert minted.status_code == 200
    assert minted.json()["code"] == 1000
    data = minted.json()["data"]
    started = await emulator.start_with(data["session_token"])
    assert started.status_code == 201
    answer = started.json()["data"]
    assert answer["session_id"] == data["session_id"]
    assert answer["max_session_duration"] == 600
    assert answer["ws_url"].startswith(emulator.url.replace("http", "ws") + "/ws/")
    assert all(answer[name] for name in ("livekit_url", "livekit_client_token", "livekit_agent_token"))


async def test_a_knob_switches_the_success_code(emulator):
    await emulator.knobs(success_code=100)
    assert (await emulator.mint()).json()["code"] == 100


async def test_an_idle_connection_outlives_those_that_http_clients_keep(emulator):
    """httpx and others use one again for 5 s: closed then, it takes a request with it now and then."""
    url = httpx.URL(emulator.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    for idle_s in (5.5, 0):
        writer.write(b"GET /v1/sessions?type=active HTTP/1.1\r\nHost: e\r\nX-API-KEY: emulator-key\r\n\r\n")
        assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 200 OK\r\n"
        await asyncio.sleep(idle_s)
        while (await reader.read(65536))[-1:] != b"}":
            pass
    writer.close()


@pytest.mark.parametrize("headers", [{}, {"X-API-KEY": "wrong"}, {"Authorization": "Bearer emulator-key"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/sessions/token"),
        ("GET", "/v1/sessions?type=active"),
        ("GET", "/v1/sessions/x"),
        ("GET", "/v1/sessions/x/transcript"),
        ("GET", "/v1/avatars"),
        ("GET", f"/v1/avatars/{WAYNE}"),
        ("GET", "/v1/users/credits"),
    ],
)
async def test_an_api_key_is_needed_for(emulator, method, path, headers):
    body = {"avatar_id": WAYNE} if method == "POST" else None
    answer = await emulator.http.request(method, path, headers=headers, json=body)
    assert answer.status_code == 401
    assert answer.json()["code"] == 401
    assert answer.json()["data"] is None


async def test_a_session_token_is_needed_to_start(emulator):
    for headers in ({}, KEY, {"Authorization": "Bearer junk"}):
        assert (await emulator.http.post("/v1/sessions/start", headers=headers)).status_code == 401


async def test_a_session_token_cannot_mint_another(emulator):
    session = await emulator.session()
    answer = await emulator.http.post("/v1/sessions/token", json={"avatar_id": WAYNE}, headers=session.bearer)
    assert answer.status_code == 401


async def test_start_takes_no_body_an_empty_one_or_the_session_id(emulator):
    for body in (None, {}, {"session_id": "whatever"}):
        token = (await emulator.mint()).json()["data"]["session_token"]
        headers = {"Authorization": f"Bearer {token}", **KEY}
        assert (await emulator.http.post("/v1/sessions/start", headers=headers, json=body)).status_code == 201


async def test_a_token_starts_only_once(emulator):
    session = await emulator.session()
    again = await emulator.start_with(session.token)
    assert (again.status_code, again.json()["code"]) == (400, 4000)
    assert again.json()["message"] == "Session already started"


async def test_a_token_expires(emulator):
    await emulator.knobs(token_ttl_s=0.05)
    token = (await emulator.mint()).json()["data"]["session_token"]
    await asyncio.sleep(0.06)
    late = await emulator.start_with(token)
    assert late.status_code == 401


async def test_schema_errors_come_in_the_frameworks_own_shape(emulator):
    answer = await emulator.http.post("/v1/sessions/token", json={}, headers=KEY)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "avatar_id"]
    assert answer.json()["detail"][0]["type"] == "missing"


async def test_the_shorthand_livekit_config_is_refused(emulator):
    answer = await emulator.mint(livekit_config={"url": "wss://x", "token": "y"})
    assert answer.status_code == 422
    assert [item["loc"][-1] for item in answer.json()["detail"]] == [
        "livekit_url",
        "livekit_room",
        "livekit_client_token",
    ]


async def test_the_plugins_top_level_video_quality_is_ignored(emulator):
    assert (await emulator.mint(video_quality="high")).status_code == 200


async def test_sandbox_refuses_other_avatars_with_field_detail(emulator):
    answer = await emulator.mint(is_sandbox=True)
    assert answer.status_code == 400
    body = answer.json()
    assert (body["code"], body["message"]) == (4000, "Bad request error")
    assert body["data"][0]["loc"] == ["avatar_id"]
    assert body["data"][0]["message"] == "This avatar is not supported in sandbox mode"


async def test_sandbox_refuses_more_than_a_minute(emulator):
    answer = await emulator.mint(is_sandbox=True, avatar_id=WAYNE, max_session_duration=600)
    assert answer.status_code == 400
    message = "max_session_duration (600s) exceeds the maximum allowed (60s)"
    assert answer.json()["data"][0]["message"] == message


async def test_a_sandbox_session_lasts_a_minute_at_most_and_is_free(emulator):
    await emulator.knobs(credits=0)
    session = await emulator.session(is_sandbox=True, avatar_id=WAYNE)
    assert (await emulator.recording(session))["max_session_duration"] == 60


async def test_somebody_elses_avatar_is_readable_but_not_usable(emulator):
    foreign = "f0f0f0f0-0000-4000-8000-000000000403"
    assert (await emulator.http.get(f"/v1/avatars/{foreign}", headers=KEY)).status_code == 200
    answer = await emulator.mint(avatar_id=foreign)
    assert answer.status_code == 400
    assert answer.json()["data"][0]["message"] == "You dont have access to this avatar"


async def test_1080p_needs_a_plan(emulator):
    answer = await emulator.mint(video_settings={"quality": "very_high"})
    assert (answer.status_code, answer.json()["code"]) == (403, 4030)
    await emulator.knobs(allow_1080p=True)
    assert (await emulator.mint(video_settings={"quality": "very_high"})).status_code == 200


async def test_the_concurrency_limit_is_per_account_and_counts_refusals(emulator):
    await emulator.knobs(concurrency=1)
    session = await emulator.session()
    token = (await emulator.mint()).json()["data"]["session_token"]
    refused = await emulator.start_with(token)
    assert (refused.status_code, refused.json()["code"]) == (403, 4032)
    assert refused.json()["message"] == "Session concurrency limit reached"
    assert (await emulator.state())["refusals"]["403/4032"] == 1
    other = await emulator.http.post(
        "/v1/sessions/token", json={"avatar_id": WAYNE}, headers={"X-API-KEY": "other-key"}
    )
    assert (await emulator.start_with(other.json()["data"]["session_token"])).status_code == 201
    await emulator.http.post("/v1/sessions/stop", headers=session.bearer)
    assert (await emulator.start_with(token)).status_code == 201


async def test_credits_run_out_at_start(emulator):
    await emulator.knobs(credits=1.5)
    await emulator.session()
    credit = await emulator.http.get("/v1/users/credits", headers=KEY)
    assert credit.json()["data"]["credits_left"] == "0.50"
    refused = await emulator.start_with((await emulator.mint()).json()["data"]["session_token"])
    assert (refused.status_code, refused.json()["code"]) == (403, 4033)


async def test_a_start_whose_avatar_cannot_join_its_room_costs_nothing(own_emulator):
    """Nobody listens at port 9 of this machine."""
    livekit = ("--livekit-url", "ws://127.0.0.1:9", "--livekit-key", "devkey", "--livekit-secret", "x" * 40)
    async with own_emulator(*livekit) as emulator:
        session = await emulator.session()
        entry = await emulator.historic(session)
        assert (entry["end_reason"], entry["credits_consumed"]) == ("SERVER_ERROR", 0)
        balance = await emulator.http.get("/v1/users/credits", headers=KEY)
        assert balance.json()["data"]["credits_left"] == "1000.00"


async def test_stop_works_with_bearer_alone_or_with_key_and_id(emulator):
    one, two = await emulator.session(), await emulator.session()
    assert (await emulator.http.post("/v1/sessions/stop", headers=one.bearer)).status_code == 200
    body = {"session_id": two.id, "reason": "USER_DISCONNECTED"}
    assert (await emulator.http.post("/v1/sessions/stop", headers=KEY, json=body)).status_code == 200
    assert (await emulator.historic(one))["end_reason"] == "USER_CLOSED"
    assert (await emulator.historic(two))["end_reason"] == "USER_DISCONNECTED"


async def test_stop_with_both_credentials_follows_the_bearer(emulator):
    session = await emulator.session()
    headers = {**KEY, **session.bearer}
    answer = await emulator.http.post("/v1/sessions/stop", headers=headers, json={"session_id": WAYNE})
    assert answer.status_code == 200
    assert answer.json() == {"code": 1000, "data": None, "message": "Success"}


async def test_a_gone_session_is_not_found(emulator):
    session = await emulator.session()
    await emulator.http.post("/v1/sessions/stop", headers=session.bearer)
    for path in ("stop", "keep-alive"):
        answer = await emulator.http.post(f"/v1/sessions/{path}", headers=session.bearer)
        assert (answer.status_code, answer.json()["message"]) == (404, "Session not found")
    assert (await emulator.http.get("/v1/sessions/nope", headers=KEY)).status_code == 404


async def test_another_accounts_session_is_not_found(emulator):
    session = await emulator.session()
    body, headers = {"session_id": session.id}, {"X-API-KEY": "other-key"}
    assert (await emulator.http.post("/v1/sessions/stop", headers=headers, json=body)).status_code == 404
    assert (await emulator.http.get(f"/v1/sessions/{session.id}", headers=headers)).status_code == 404


async def test_stop_with_a_key_alone_needs_the_id(emulator):
    answer = await emulator.http.post("/v1/sessions/stop", headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (400, 4000)


async def test_delete_on_sessions_is_not_a_way_to_stop(emulator):
    session = await emulator.session()
    answer = await emulator.http.delete("/v1/sessions", headers=session.bearer)
    assert answer.status_code in (404, 405)


async def test_keep_alive_takes_no_body_and_refuses_an_empty_one_only_in_strict_mode(emulator):
    session = await emulator.session()
    path = "/v1/sessions/keep-alive"
    assert (await emulator.http.post(path, headers=session.bearer)).status_code == 200
    assert (await emulator.http.post(path, headers=session.bearer, json={})).status_code == 200
    await emulator.knobs(strict=True)
    assert (await emulator.http.post(path, headers=session.bearer, json={})).status_code == 400
    assert (await emulator.http.post(path, headers=session.bearer)).status_code == 200
    assert (await emulator.http.post(path, headers=KEY, json={"session_id": session.id})).status_code == 200
    assert [entry["via"] for entry in (await emulator.recording(session))["keepalives"]] == ["rest"] * 4


async def test_sessions_are_listed_by_kind_and_page(emulator):
    sessions = [await emulator.session() for _ in range(3)]
    await emulator.http.post("/v1/sessions/stop", headers=sessions[0].bearer)
    query = {"type": "active", "page_size": 1}
    first = (await emulator.http.get("/v1/sessions", params=query, headers=KEY)).json()["data"]
    assert first["count"] == 2
    assert first["previous"] is None
    second = (await emulator.http.get(first["next"], headers=KEY)).json()["data"]
    assert second["next"] is None
    listed = {entry["id"] for entry in (*first["results"], *second["results"])}
    assert listed == {session.id for session in sessions[1:]}
    entry = first["results"][0]
    assert (entry["mode"], entry["source"], entry["is_sandbox"]) == ("LITE", "API", False)
    assert "end_reason" not in entry
    assert (await emulator.historic(sessions[0]))["credits_consumed"] == 1


async def test_listing_needs_a_type_and_a_sane_page(emulator):
    for query in ({}, {"type": "all"}, {"type": "active", "page_size": 101}, {"type": "active", "page": 0}):
        assert (await emulator.http.get("/v1/sessions", params=query, headers=KEY)).status_code == 422


async def test_the_transcript_is_empty(emulator):
    session = await emulator.session()
    answer = await emulator.http.get(f"/v1/sessions/{session.id}/transcript", headers=KEY)
    assert answer.json()["data"] == {"session_active": True, "next_timestamp": None, "transcript_data": []}


async def test_public_avatars_need_no_credential(emulator):
    data = (await emulator.http.get("/v1/avatars/public")).json()["data"]
    assert WAYNE in [avatar["id"] for avatar in data["results"]]
    assert (await emulator.http.get("/v1/avatars", headers=KEY)).json()["data"]["count"] == 0


async def test_an_livekit_room_without_a_data_grant_passes_token_and_fails_start(emulator):
    video = {"roomJoin": True, "room": "desk-7", "canPublish": True, "canSubscribe": True}
    room = {"livekit_url": "wss://rooms.example.com", "livekit_room": "desk-7"}
    poor = await emulator.mint(livekit_config={**room, "livekit_client_token": sign({"video": video}, b"x")})
    assert poor.status_code == 200
    assert (await emulator.start_with(poor.json()["data"]["session_token"])).status_code == 500
    video["canPublishData"] = True
    rich = await emulator.mint(livekit_config={**room, "livekit_client_token": sign({"video": video}, b"x")})
    started = await emulator.start_with(rich.json()["data"]["session_token"])
    assert started.status_code == 201
    assert started.json()["data"]["livekit_url"] == "wss://rooms.example.com"


@pytest.mark.parametrize(("mode", "expected"), [("null", {None}), ("omitted", {"absent"})])
async def test_room_fields_of_an_livekit_room_can_be_null_or_missing(emulator, mode, expected):
    await emulator.knobs(byo_livekit_fields=mode)
    video = dict.fromkeys(("roomJoin", "canPublish", "canSubscribe", "canPublishData"), True) | {"room": "r"}
    room = {"livekit_url": "wss://x", "livekit_room": "r", "livekit_client_token": sign({"video": video}, b"x")}
    minted = await emulator.mint(livekit_config=room)
    data = (await emulator.start_with(minted.json()["data"]["session_token"])).json()["data"]
    fields = ("livekit_url", "livekit_client_token", "livekit_agent_token")
    assert {data.get(field, "absent") for field in fields} == expected


async def test_calls_beyond_the_rate_are_told_when_to_come_back(emulator):
    await emulator.knobs(rate=3)
    answers = await asyncio.gather(*(emulator.http.get("/v1/users/credits", headers=KEY) for _ in range(12)))
    rejected = [answer for answer in answers if answer.status_code == 429]
    assert rejected
    assert rejected[0].headers["Retry-After"] == "1"
    assert rejected[0].json()["code"] == 4290
    for answer in answers:
        assert answer.headers["X-RateLimit-Limit"] == "3"
        assert answer.headers["X-RateLimit-Remaining"]
        assert answer.headers["X-RateLimit-Reset"] == "1"


async def test_rate_headers_are_on_refusals_too(emulator):
    await emulator.knobs(rate=50)
    for answer in (
        await emulator.http.get("/v1/users/credits"),
        await emulator.http.get("/v1/sessions", headers=KEY),
    ):
        assert answer.status_code in (401, 422)
        assert "X-RateLimit-Remaining" in answer.headers


async def test_a_fault_hits_the_next_calls_and_then_the_truth_returns(emulator):
    await emulator.fault("token", times=2, status=503, message="down", retry_after_s=3)
    for _ in range(2):
        answer = await emulator.mint()
        assert answer.status_code == 503
        assert answer.json() == {"code": 503, "data": None, "message": "down"}
        assert answer.headers["Retry-After"] == "3"
    assert (await emulator.mint()).status_code == 200


async def test_a_fault_can_answer_with_html(emulator):
    await emulator.fault("credits", body="<html>Bad Gateway</html>")
    answer = await emulator.http.get("/v1/users/credits", headers=KEY)
    assert (answer.status_code, answer.text) == (502, "<html>Bad Gateway</html>")
    assert answer.headers["Content-Type"].startswith("text/html")


async def test_a_fault_can_lose_the_answer_after_the_effect(emulator):
    await emulator.fault("start", status=500, after_effect=True)
    token = (await emulator.mint()).json()["data"]["session_token"]
    assert (await emulator.start_with(token)).status_code == 500
    assert (await emulator.state())["sessions"]["active"] == 1
    assert (await emulator.start_with(token)).json()["message"] == "Session already started"


async def test_a_fault_can_hang(emulator):
    await emulator.fault("stop", hang=True)
    session = await emulator.session()
    with pytest.raises(httpx.ReadTimeout):
        await emulator.http.post("/v1/sessions/stop", headers=session.bearer, timeout=0.2)
    assert (await emulator.state())["sessions"]["active"] == 1


async def test_a_fault_can_only_delay(emulator):
    await emulator.fault("list", delay_s=0.05)
    answer = await emulator.http.get("/v1/sessions", params={"type": "active"}, headers=KEY)
    assert answer.status_code == 200


async def test_faults_can_be_listed_and_disarmed(emulator):
    await emulator.fault("token", status=500)
    assert [fault["endpoint"] for fault in (await emulator.http.get("/_emulator/faults")).json()] == ["token"]
    assert (await emulator.http.delete("/_emulator/faults")).status_code == 204
    assert (await emulator.mint()).status_code == 200
