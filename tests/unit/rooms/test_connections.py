"""Connections to LiveKit servers: bounded answers, and no redirects."""

import aiohttp
import pytest

from liveavatar_gateway.rooms.connections import connections
from testkit.answering import answering, http


async def test_an_answer_is_read_as_text_and_as_json():
    async with answering() as server, connections() as session:
        server.answers["/"] = http(200, {"ok": True}, Content_Type="application/json")
        async with session.post(server.url) as response:
            assert await response.json() == {"ok": True}
            assert await response.text() == '{"ok": true}'


async def test_an_answer_that_is_too_large_is_not_read():
    async with answering() as server, connections() as session:
        server.answers["/"] = http(200, bytes(5 * 2**20))
        async with session.post(server.url) as response:
            with pytest.raises(aiohttp.ClientError, match="more than"):
                await response.read()


@pytest.mark.parametrize("status", [301, 307])
async def test_a_redirect_is_not_followed(status):
    async with answering() as server, connections() as session:
        server.answers["/"] = http(status, b"", Location=f"{server.url}/elsewhere")
        with pytest.raises(aiohttp.ClientError, match="redirect"):
            await session.post(server.url)
        assert server.asked == ["/"]
