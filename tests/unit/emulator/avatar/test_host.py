"""Host of avatars: its log filter, and leaving without any avatar."""

import logging

from liveavatar_emulator.avatar.host import AvatarHost, _WithoutTokens
from liveavatar_emulator.config import LiveKitServer
from liveavatar_emulator.tokens import sign


def test_tokens_are_removed_from_the_sdks_log_lines():
    token = sign({"sub": "heygen"}, b"secret")
    record = logging.LogRecord("livekit", logging.ERROR, "", 0, "refused %s at %d", (token, 3), None)
    assert _WithoutTokens().filter(record)
    assert record.getMessage() == "refused (token) at 3"


async def test_a_host_without_avatars_is_cleared_at_once():
    host = AvatarHost(LiveKitServer(url="ws://rooms", api_key="k", api_secret="s"))
    await host.clear()
