"""Cross-origin rules: any page may call the service's API, no foreign page may call the control API.

Source: LiveAvatar API reference 3.11: the vendor's web SDK posts `start` and `stop` from the page with
credentials, so responses to preflights name the page's own origin and allow credentials.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from liveavatar_emulator import errors
from liveavatar_emulator.routing import json_response

SERVICE_PREFIX = "/v1/"
EXPOSED_HEADERS = ("Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_METHODS = ("DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT")


class CrossOriginPolicy:
    """ASGI middleware that answers preflights for `/v1/*` and refuses foreign pages everywhere else.

    A foreign page is one whose `Origin` is not the address that the request was sent to. Calls without an `Origin`
    come from programs, not from pages, and pass.
    """

    def __init__(self, application: ASGIApp) -> None:
        self._application = application
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
        elif is_foreign(Headers(scope=scope)):
            refusal = errors.ApiError(403, 403, "Pages of other origins may call /v1 alone")
            await json_response(refusal.body(), refusal.status)(scope, receive, send)
        else:
            await self._application(scope, receive, send)


def is_foreign(headers: Headers) -> bool:
    """Return whether a request comes from a page of another origin than the request's own address."""
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host", "")
