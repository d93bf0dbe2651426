"""Cross-origin rules of the service's API, which any page may call. `guard` decides on all else.

Source: LiveAvatar API reference 3.11: the vendor's web SDK posts `start` and `stop` from the page with
credentials, so responses to preflights name the page's own origin and allow credentials.
"""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from liveavatar_emulator.config import ServerConfig
from liveavatar_emulator.guard import Guard

SERVICE_PREFIX = "/v1/"
EXPOSED_HEADERS = ("Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_METHODS = ("DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT")


class CrossOriginPolicy:
    """ASGI middleware that answers preflights for `/v1/*`, and guards everything else."""

    def __init__(self, application: ASGIApp, config: ServerConfig) -> None:
        self._guarded = Guard(application, config)
        self._shared = CORSMiddleware(
            application,
            allow_origin_regex=".*",
            allow_credentials=True,
            allow_methods=_METHODS,
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=EXPOSED_HEADERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an HTTP request by the rule for its path."""
        if scope["path"].startswith(SERVICE_PREFIX):
            await self._shared(scope, receive, send)
        else:
            await self._guarded(scope, receive, send)
