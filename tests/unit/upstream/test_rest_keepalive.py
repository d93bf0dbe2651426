"""Keep-alives by REST: bounded, with a deadline, repeated only where that may help."""

import asyncio

import pytest

from liveavatar_gateway.core.errors import UpstreamRateLimited, UpstreamUnauthenticated, UpstreamUnreachable
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream import rest_keepalive as module
from liveavatar_gateway.upstream.rest_keepalive import RestKeepAlives


class Call:
    """LiveAvatar, which answers as a test says."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked: list[str] = []

    async def keep_alive(self, session_id: str) -> None:
        self.asked.append(session_id)
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def call():
    return Call()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def keep_alives(call, metrics):
    return RestKeepAlives(call, metrics)


def count(metrics: Metrics, outcome: str) -> float:
    labels = {"way": "rest", "outcome": outcome}
    return metrics.registry.get_sample_value("gateway_upstream_keep_alives_total", labels) or 0.0


async def test_a_session_is_kept_alive_and_counted(keep_alives, call, metrics):
    assert await keep_alives.send("s-1")
    assert (call.asked, count(metrics, "sent")) == (["s-1"], 1)


async def test_one_too_many_at_once_is_postponed_and_not_queued(keep_alives, call, metrics):
    call.may_answer.clear()
    running = [asyncio.create_task(keep_alives.send(f"s-{number}")) for number in range(8)]
    while len(call.asked) < 8:
        await asyncio.sleep(0)
    assert not await keep_alives.send("s-9")
    assert count(metrics, "postponed") == 1
    call.may_answer.set()
    assert all(await asyncio.gather(*running))
    assert await keep_alives.send("s-9")


async def test_an_answer_that_does_not_come_is_not_waited_for(keep_alives, call, metrics, monkeypatch):
    monkeypatch.setattr(module, "_DEADLINE_S", 0.01)
    call.may_answer.clear()
    assert not await keep_alives.send("s-1")
    assert count(metrics, "failed") == 1


async def test_a_failure_is_repeated_and_a_rate_limit_is_respected(keep_alives, call, metrics):
    call.error = UpstreamUnreachable("a fault of LiveAvatar", retry_after_s=30.0)
    assert not await keep_alives.send("s-1")
    call.error = UpstreamRateLimited("too many calls", retry_after_s=30.0)
    assert not await keep_alives.send("s-1")
    call.error = None
    assert not await keep_alives.send("s-2"), "the whole account waits"
    assert (call.asked, count(metrics, "postponed")) == (["s-1", "s-1"], 1)


async def test_a_refusal_for_good_is_not_repeated(keep_alives, call, metrics):
    call.error = UpstreamUnauthenticated("the key was revoked")
    assert await keep_alives.send("s-1")
    assert count(metrics, "failed") == 1
