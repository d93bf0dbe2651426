"""Opening of a command socket: a standstill of the process costs no session, and no budget costs it at once."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from liveavatar_gateway.core.errors import UpstreamUnreachable
from liveavatar_gateway.core.states import SessionState
from liveavatar_gateway.sessions.reconnector import ReconnectConfig, Reconnector, SessionGone
from liveavatar_gateway.upstream.socket import SocketClosed


async def confirmed() -> None:
    """Find that the process still has its lease."""


class Upstream:
    """Refuses its socket a number of times, the first time while the process stands still."""

    started = SimpleNamespace(session_id="up-1", max_duration_s=60)

    def __init__(self, *, refusals: float, suspended_s: float = 0.0, http_status: str = "") -> None:
        self.tries = 0
        self.closed = False
        self._refusals = refusals
        self._suspended_s = suspended_s
        self._http_status = http_status

    async def connect(self, _: Any) -> Any:
        self.tries += 1
        if self.tries == 1 and self._suspended_s:
            await asyncio.sleep(0)
            time.sleep(self._suspended_s)  # noqa: ASYNC251 - a suspended process
        if self.tries <= self._refusals:
            raise UpstreamUnreachable("refused", values={"http_status": self._http_status})
        return self

    async def remote_status(self) -> Any:
        return SimpleNamespace(over=True, reason="NO_CREDITS")


class Avatars:
    """The avatar that speaks, and the one that replaces it."""

    def __init__(self, upstream: Upstream, replacement: Upstream | None = None) -> None:
        self.current = upstream
        self.are_replaceable = replacement is not None
        self.expires_at = None
        self.replaced = 0
        self._replacement = replacement

    async def replace(self) -> Upstream:
        self.replaced += 1
        self.current = self._replacement
        return self.current


def reconnector(avatars: Avatars, **config: float) -> Reconnector:
    core = SimpleNamespace(id="s-1", state=SessionState.RECONNECTING, replaced=lambda **_: None)
    return Reconnector(
        core,
        ReconnectConfig(first_wait_s=0.01, max_wait_s=0.02, **config),
        journal=SimpleNamespace(confirm_lease=confirmed),
        avatars=avatars,
        standbys=SimpleNamespace(close=lambda: None),
    )


async def opened(found: Reconnector, lost: SocketClosed | None = None) -> tuple[Any, int]:
    async with asyncio.timeout(30):
        return await found.open(lambda _: lambda _: None, lost)


async def test_a_socket_is_opened_within_the_budget_and_its_tries_are_counted():
    upstream = Upstream(refusals=2)
    assert await opened(reconnector(Avatars(upstream), budget_s=30)) == (upstream, 3)


async def test_an_avatar_is_tried_once_more_when_the_process_stood_still_until_the_budget_was_over():
    upstream = Upstream(refusals=1, suspended_s=0.3)
    found = reconnector(Avatars(upstream), budget_s=0.1)
    opening = asyncio.create_task(opened(found))
    while not upstream.tries:
        await asyncio.sleep(0)
    found.note_standstill()
    assert await opening == (upstream, 2)


async def test_without_a_budget_nothing_is_tried_whatever_the_process_did():
    upstream = Upstream(refusals=0)
    found = reconnector(Avatars(upstream), budget_s=0.0)
    found.note_standstill()
    with pytest.raises(UpstreamUnreachable):
        await opened(found)
    assert upstream.tries == 0


async def test_the_error_names_the_loss_and_the_tries_of_the_whole_budget():
    upstream = Upstream(refusals=float("inf"))
    with pytest.raises(UpstreamUnreachable) as caught:
        await opened(reconnector(Avatars(upstream), budget_s=0.1), SocketClosed(1011, "a fault upstream"))
    assert caught.value.metadata["close_code"] == "1011"
    assert caught.value.metadata["attempt_count"] == str(upstream.tries)


async def test_a_refusal_of_an_avatar_that_liveavatar_has_ended_ends_the_tries():
    upstream = Upstream(refusals=float("inf"), http_status="403")
    with pytest.raises(SessionGone) as caught:
        await opened(reconnector(Avatars(upstream), budget_s=30))
    assert caught.value.upstream_reason == "NO_CREDITS"
    assert upstream.tries == 1


async def test_an_avatar_out_of_reach_is_replaced_once():
    avatars = Avatars(Upstream(refusals=float("inf")), Upstream(refusals=1))
    found = reconnector(avatars, budget_s=0.1)
    assert await opened(found) == (avatars.current, 2)
    avatars.current = Upstream(refusals=float("inf"))
    with pytest.raises(UpstreamUnreachable):
        await opened(found)
    assert avatars.replaced == 1


async def test_a_replacement_that_lasted_may_be_replaced_as_well():
    avatars = Avatars(Upstream(refusals=float("inf")), Upstream(refusals=0))
    found = reconnector(avatars, budget_s=0.1)
    await opened(found)
    now_s = time.monotonic()
    found.note_lost(opened_s=now_s - 60, ready_s=now_s - 60, now_s=now_s)
    avatars.current = Upstream(refusals=float("inf"))
    await opened(found)
    assert avatars.replaced == 2
