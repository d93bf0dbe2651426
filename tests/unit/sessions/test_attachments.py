"""Who holds a session, and when nobody has for too long."""

import asyncio
import time

from liveavatar_gateway.sessions.attachments import Attachments


async def test_a_session_is_not_abandoned_before_those_are_heard_who_came_while_the_process_stood_still():
    abandoned: list[None] = []
    holds = Attachments("s", grace_s=0.05, abandon=lambda: abandoned.append(None), changed=lambda: None)
    holds.expect_somebody(0.05)
    time.sleep(0.7)  # noqa: ASYNC251 - a suspended process
    await asyncio.sleep(0.01)
    assert not abandoned
    assert holds.detached_until_s is not None
    async with asyncio.timeout(5):
        while not abandoned:
            await asyncio.sleep(0.02)
