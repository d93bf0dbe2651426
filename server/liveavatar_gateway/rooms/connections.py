"""HTTP connections to LiveKit servers, which may be tenants' own: answers are bounded, and lead nowhere else.

Import this module where a server is asked: aiohttp takes a while.
"""

from typing import Final

import aiohttp

_MAX_CONNECTIONS: Final = 16
_MAX_BODY_BYTES: Final = 4 * 2**20
"""Largest answer that is read; a participant takes less than a kilobyte."""


class _BoundedResponse(aiohttp.ClientResponse):
    """Response whose body is read up to a limit."""

    async def read(self) -> bytes:
        body = bytearray()
        async for part in self.content.iter_any():
            body += part
            if len(body) > _MAX_BODY_BYTES:
                self.close()
                raise aiohttp.ClientError(f"LiveKit's answer has more than {_MAX_BODY_BYTES} bytes")
        # The library's own methods, such as `json`, look for the body here.
        self._body = bytes(body)
        return self._body


def connections() -> aiohttp.ClientSession:
    """Return connections without a time-out, which callers add; the caller closes them."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_MAX_CONNECTIONS),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        # A small compressed answer could be a large one.
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
        middlewares=(_without_redirects,),
        response_class=_BoundedResponse,
    )


async def _without_redirects(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Refuse redirects, which could lead to hosts of the local network."""
    response = await handler(request)
    if response.status // 100 == 3:
        response.close()
        raise aiohttp.ClientError("LiveKit's answer is a redirect")
    return response
