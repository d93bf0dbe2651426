"""Rate limit, faults and log of a REST call."""

import orjson
import pytest

from liveavatar_emulator.faults import RestFault


def calls(service) -> list[dict]:
    lines = map(orjson.loads, service.emulator.log.lines().splitlines())
    return [line for line in lines if line["what"] == "rest"]


async def test_a_call_beyond_the_rate_is_refused_and_counted(service, http):
    service.emulator.change_settings({"rate": 1})
    first, second = [await http.get("/v1/users/credits") for _ in range(2)]
    assert (first.status_code, first.headers["X-RateLimit-Remaining"]) == (200, "0")
    assert (second.status_code, second.json()["code"]) == (429, 4290)
    assert "Retry-After" in second.headers
    assert service.emulator.refusals["429/4290"] == 1


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        ({"status": 503}, 503, b'"code":503'),
        ({"body": "<html>"}, 502, b"<html>"),
        ({"truncate": True}, 200, b'{"code":1000,"data":{"cr'),
    ],
)
async def test_a_fault_changes_the_response_once(service, http, fault, status, text):
    service.emulator.faults.arm(RestFault(endpoint="credits", **fault))
    response = await http.get("/v1/users/credits")
    assert response.status_code == status
    assert response.content.startswith(text) or text in response.content
    assert (await http.get("/v1/users/credits")).json()["code"] == 1000


async def test_an_executed_call_may_lose_its_response(service, http):
    service.emulator.faults.arm(RestFault(endpoint="secrets", status=500, after_effect=True))
    body = {"secret_type": "OPENAI_API_KEY", "secret_value": "hidden", "secret_name": "n"}
    assert (await http.post("/v1/secrets", json=body)).status_code == 500
    assert len(service.account.secrets) == 1


async def test_an_unknown_path_has_the_envelope_and_a_secret_stays_out_of_errors(service, http):
    assert (await http.get("/v1/nowhere")).json() == {"code": 404, "data": None, "message": "Not Found"}
    refused = await http.post(
        "/v1/secrets", json={"secret_type": "x", "secret_value": "hidden", "secret_name": "n"}
    )
    assert refused.status_code == 422
    assert "hidden" not in refused.text
    assert [line["status"] for line in calls(service)] == [404, 422]
