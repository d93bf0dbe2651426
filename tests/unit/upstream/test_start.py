"""A start that fails in a way that nobody foresaw costs no place and leaves nothing running.

What LiveAvatar does is tested against the emulator; these are faults of the library beneath, which come by chance.
"""

import contextlib

import httpx
import pytest

from liveavatar_gateway.core.errors import UpstreamTimeout, UpstreamUnreachable
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.model import AvatarRequest, Started
from liveavatar_gateway.upstream.permits import PermitsConfig
from liveavatar_gateway.upstream.pool import Pool, PoolConfig
from liveavatar_gateway.upstream.rest import Rest, RestConfig

REQUEST = AvatarRequest(avatar_id="avatar", sandbox=False, quality="high", encoding="H264")


class Ledger:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.running: set[str] = set()

    async def minted(self, upstream_session_id: str) -> None:
        self.running.add(upstream_session_id)

    async def started(self, started: Started) -> None:
        raise AssertionError(f"{started.session_id} never started")

    async def stopped(self, upstream_session_id: str) -> None:
        self.running.discard(upstream_session_id)


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (AttributeError("'NoneType' object has no attribute 'getpeername'"), UpstreamUnreachable),
        (RuntimeError("of a library"), RuntimeError),
        (TimeoutError(), UpstreamTimeout),
    ],
    ids=["reset while connecting", "anything", "no answer in time"],
)
async def test_what_may_have_been_started_is_stopped_and_its_place_is_free_again(monkeypatch, fault, raised):
    asked = []

    @contextlib.asynccontextmanager
    async def answer(_: httpx.AsyncClient, method: str, path: str, **arguments: object):
        asked.append(path)
        if path.endswith("/start"):
            raise fault
        data = {"session_id": "upstream", "session_token": "token"}
        yield httpx.Response(200, json={"code": 1000, "data": data, "message": "Success"})

    monkeypatch.setattr(httpx.AsyncClient, "stream", answer)
    metrics, ledger = Metrics(), Ledger()
    rest = Rest(RestConfig(backoff_s=0.01), "key", metrics=metrics)
    pool = Pool(PoolConfig(places=PermitsConfig(limit=1, settle_s=0)), rest, metrics)
    for _ in range(2):
        with pytest.raises(raised):
            await pool.start(REQUEST, ledger, wait_s=1)
    # The stop goes on behind: its place is free when that is done.
    await pool.close(5)
    assert asked.count("/v1/sessions/stop") == 2
    assert ledger.running == set()
    assert pool.held == set()
    await rest.aclose()
