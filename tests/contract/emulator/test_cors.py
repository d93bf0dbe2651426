"""Cross-origin rules: `/v1` is open to every page, all else to none."""

import pytest

PAGE = "http://shop.example:3000"
SERVICE_PATHS = (
    "/v1/sessions/token",
    "/v1/sessions/start",
    "/v1/sessions/stop",
    "/v1/sessions",
    "/v1/avatars/public",
)
OWN_PATHS = ("/_emulator/state", "/_emulator/sessions", "/_emulator/reset", "/viewer")


@pytest.mark.parametrize("path", SERVICE_PATHS)
@pytest.mark.parametrize("origin", [PAGE, "https://shop.example", "null"])
async def test_a_preflight_for_the_service_is_answered_with_the_pages_own_origin(emulator, path, origin):
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    answer = await emulator.http.options(path, headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    assert "Origin" in answer.headers["vary"]


async def test_a_page_may_read_answers_and_refusals_alike(emulator):
    headers = {"Origin": PAGE}
    for answer in (
        await emulator.http.get("/v1/avatars/public", headers=headers),
        await emulator.http.post("/v1/sessions/start", headers=headers),
        await emulator.http.get("/v1/nowhere", headers=headers),
    ):
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert "Retry-After" in answer.headers["access-control-expose-headers"]


async def test_a_preflight_takes_nothing_from_the_rate_limit(emulator):
    await emulator.knobs(rate=1)
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "GET"}
    for _ in range(3):
        assert (await emulator.http.options("/v1/avatars/public", headers=asked)).status_code == 200
    assert (await emulator.http.get("/v1/avatars/public")).status_code == 200


@pytest.mark.parametrize("path", OWN_PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("origin", [PAGE, "null"])
async def test_the_control_api_is_closed_to_pages_of_other_origins(emulator, path, method, origin):
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    answer = await emulator.http.request(method, path, headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


async def test_the_control_api_is_open_to_the_emulators_own_page_and_to_programs(emulator):
    assert (await emulator.http.get("/_emulator/state", headers={"Origin": emulator.url})).status_code == 200
    assert (await emulator.http.get("/_emulator/state")).status_code == 200
