"""The HTTP endpoints, without a socket: metrics, liveness and readiness."""

import asyncio
from collections import Counter

import httpx
import pytest

from liveavatar_gateway.telemetry.endpoint import Endpoint
from liveavatar_gateway.telemetry.metrics import Metrics, Snapshot


def client(*, draining: bool = False, refusal: str = "", metrics: Metrics | None = None) -> httpx.AsyncClient:
    snapshot = Snapshot(
        sessions=Counter(),
        tenants=Counter(),
        used_permits=2,
        permits=5,
        waiting=1,
        stops_pending=0,
        draining=draining,
        tasks=3,
    )
    endpoint = Endpoint(metrics or Metrics(), lambda: snapshot, lambda: refusal, host="127.0.0.1", port=0)
    transport = httpx.ASGITransport(app=endpoint._app())
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


async def test_metrics_have_the_values_of_the_moment():
    async with client() as http:
        text = (await http.get("/metrics")).text
    assert "gateway_permits_used 2.0" in text
    assert "gateway_permits_limit 5.0" in text
    assert "gateway_permits_waiting 1.0" in text


@pytest.mark.parametrize(
    ("path", "state", "expected"),
    [
        ("/healthz", {"draining": True, "refusal": "DRAINING"}, (200, "ok\n")),
        ("/readyz", {"refusal": "REGISTRY_UNAVAILABLE"}, (200, "ready\n")),
        ("/readyz", {"draining": True}, (503, "draining\n")),
        ("/readyz/create", {}, (200, "ready\n")),
        ("/readyz/create", {"refusal": "REGISTRY_UNAVAILABLE"}, (503, "REGISTRY_UNAVAILABLE\n")),
    ],
)
async def test_readiness_answers_its_own_question(path, state, expected):
    async with client(**state) as http:
        answer = await http.get(path)
    assert (answer.status_code, answer.text) == expected


async def test_scrapes_that_wait_together_share_one_rendering():
    renderings = 0

    class Counted(Metrics):
        def update(self, snapshot: Snapshot) -> None:
            nonlocal renderings
            renderings += 1
            super().update(snapshot)

    async with client(metrics=Counted()) as http:
        answers = await asyncio.gather(*[http.get("/metrics") for _ in range(20)])
    assert {answer.status_code for answer in answers} == {200}
    assert renderings < len(answers)
