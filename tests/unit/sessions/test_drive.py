"""Who drives a session's socket: what fails while nobody waits for it any more is no fault."""

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

from liveavatar_gateway.core.errors import UpstreamUnreachable
from liveavatar_gateway.core.states import SessionState
from liveavatar_gateway.sessions.drive import Drive, ReconnectConfig
from liveavatar_gateway.sessions.signal import Signal


class Core:
    """A session whose socket is lost; its caller ends it at a moment of the test's choice."""

    id = "s-1"
    state = SessionState.RECONNECTING
    over = False
    deadline_s = None

    def tick(self, now_s: float) -> None: ...

    def next_command(self, now_s: float) -> None: ...

    def may_take_over(self, now_s: float) -> bool:
        return False


class GoneUpstream:
    """LiveAvatar has ended the session, which shows when the socket is to be opened again."""

    started = SimpleNamespace(session_id="up-1")

    def __init__(self, core: Core) -> None:
        self._core = core

    async def connect(self, _: Any) -> Any:
        raise UpstreamUnreachable("refused", facts={"http_status": "403"})

    async def fate(self) -> Any:
        self._core.over = True
        return SimpleNamespace(over=True, reason="NO_CREDITS")


async def test_a_try_that_fails_as_its_session_ends_leaves_nothing_unlooked_at():
    core, faults = Core(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["message"]))
    rotations = SimpleNamespace(take=lambda _: None, look=lambda _: None, close=lambda: None)
    config = ReconnectConfig(first_wait_s=0.01)
    drive = Drive(core, config, None, wake=Signal(), tell=lambda: None, rotations=rotations)
    async with asyncio.timeout(30):
        await drive.run(GoneUpstream(core))
    gc.collect()
    assert faults == []
