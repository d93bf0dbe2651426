"""Credentials of a caller."""

import pytest


async def test_a_bearer_token_wins_over_a_key(service, http):
    _, token = service.mint()
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await http.post("/v1/sessions/start", headers=bearer)).status_code == 201
    assert (await http.post("/v1/sessions/keep-alive", headers=bearer)).status_code == 200
    invalid = {"Authorization": "Bearer x"}
    assert (await http.post("/v1/sessions/keep-alive", headers=invalid)).status_code == 401


@pytest.mark.parametrize(
    ("headers", "message"),
    [({"X-API-KEY": "wrong"}, "Invalid API key"), ({"X-API-KEY": ""}, "Invalid API key")],
)
async def test_a_wrong_key_is_refused(http, headers, message):
    refused = await http.get("/v1/users/credits", headers=headers)
    assert (refused.status_code, refused.json()["message"]) == (401, message)


async def test_a_key_does_not_start_a_session(http):
    refused = await http.post("/v1/sessions/start")
    assert (refused.status_code, refused.json()["message"]) == (401, "Session token is missing")
