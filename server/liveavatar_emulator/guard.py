"""Guard of all paths outside `/v1`: they are for programs and for the emulator's own page alone.

A web page in the browser of somebody who runs an emulator must neither read it nor change it. Three ways lead
there: a request from a page of another origin (cross-site request forgery), a host name of the attacker's that
resolves to this machine (DNS rebinding), and an emulator that other machines reach.

Source: Fetch Standard (`Origin`), Fetch Metadata Request Headers (`Sec-Fetch-Site`), RFC 6750 (bearer tokens).
"""

import hmac
import ipaddress
import os
import secrets
from collections.abc import Collection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from liveavatar_emulator import errors
from liveavatar_emulator.config import InvalidSetting, ServerConfig
from liveavatar_emulator.routing import json_response

CONTROL_PREFIX: Final = "/_emulator"
_BODY_METHODS: Final = ("PATCH", "POST", "PUT")
_SCENARIO: Final = f"{CONTROL_PREFIX}/scenario"
_NO_HOST: Final = frozenset("@/\\?# ")
"""Characters of an address that are not part of its host; no browser sends them in `Host`."""
_TOKEN_BYTES: Final = 24
_MIN_TOKEN_CHARS: Final = 16
_WILDCARDS: Final = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound


class Guard:
    """ASGI middleware that refuses requests which a foreign web page or an unknown machine may have caused."""

    def __init__(self, application: ASGIApp, config: ServerConfig) -> None:
        self._application = application
        self._token = (config.control_token or "").encode()
        self._is_open = bool(config.control_token) or is_loopback(config.host)
        self._hosts = _known_hosts(config)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on an HTTP request, or refuse it."""
        refusal = self._refusal(scope, Headers(scope=scope))
        if refusal is None:
            await self._application(scope, receive, send)
        else:
            await json_response(refusal.body(), refusal.status, refusal.headers)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> errors.ApiError | None:
        if is_foreign(headers, scope["method"], scope.get("scheme", "http")):
            return _forbidden("Pages of other origins may call /v1 alone")
        is_control = scope["path"] == CONTROL_PREFIX or scope["path"].startswith(f"{CONTROL_PREFIX}/")
        if is_control and self._token:
            # Whoever has the token is no web page of a stranger, so the host name does not matter.
            if not self._has_token(headers):
                return errors.ApiError(
                    401,
                    401,
                    "The control API needs the header `Authorization: Bearer TOKEN` with the control token",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        elif is_control and not self._is_open:
            return _forbidden(
                "Other machines can reach this emulator, so its control API is closed; give it a token with "
                "--control-token-file or EMULATOR_CONTROL_TOKEN"
            )
        elif not is_known_host(headers.get("host", ""), self._hosts, scope):
            return _forbidden(
                "The header Host does not name this emulator; use its address, or the option --allowed-host"
            )
        return _wrong_type(scope, headers) if is_control else None

    def _has_token(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a listen address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_foreign(headers: Headers, method: str = "GET", scheme: str = "http") -> bool:
    """Return whether a request comes from a page of another origin than the request's own address.

    A request without `Origin` and `Sec-Fetch-Site` comes from a program. A link on another page may lead here, as
    long as it opens a page of its own, which the other page cannot read.
    """
    origin = headers.get("origin")
    if origin is not None:
        return origin.lower() != f"{scheme}://{headers.get('host', '')}".lower()
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return method != "GET" or not is_link


def is_known_host(value: str, hosts: Collection[str], scope: Scope) -> bool:
    """Return whether the header `Host` names this machine.

    An address of this machine cannot be a name that somebody else makes resolve to it, and a loopback address is
    always one of this machine.
    """
    if set(value) & _NO_HOST:
        return False
    try:
        name = (urlsplit(f"//{value}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if name in hosts or is_loopback(name):
        return True
    server = scope.get("server")
    return server is not None and name == server[0] and _is_address(name)


def read_or_make_token(path: Path) -> str:
    """Return the token in a file; without a file, make one that its owner alone can read.

    Raises:
        InvalidSetting: the file has no usable token, or can be neither read nor made.
    """
    try:
        if not path.exists():
            # Linked when it is complete: whoever waits for the file never reads half a token.
            draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    file.write(secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
                if not path.exists():
                    path.hardlink_to(draft)
            finally:
                draft.unlink()
        return require_token(path.read_text(encoding="ascii").strip(), "control_token_file")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting("control_token_file", f"{path} cannot be used: {error}") from error


def require_token(token: str, name: str) -> str:
    """Return a control token.

    Raises:
        InvalidSetting: it is too short, or cannot be sent in a header.
    """
    if len(token) < _MIN_TOKEN_CHARS or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidSetting(name, f"a control token has at least {_MIN_TOKEN_CHARS} visible ASCII characters")
    return token


def _known_hosts(config: ServerConfig) -> frozenset[str]:
    public = urlsplit(config.public_url).hostname if config.public_url else None
    own = None if config.host in _WILDCARDS else config.host
    return frozenset(name.lower().rstrip(".") for name in (*config.allowed_hosts, public, own) if name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _wrong_type(scope: Scope, headers: Headers) -> errors.ApiError | None:
    """Refuse a body of a type that a form of any page can send."""
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    given = headers.get("content-type", "").partition(";")[0].strip().lower()
    if scope["method"] not in _BODY_METHODS or not (has_body or given):
        return None
    wanted = "application/toml" if scope["path"] == _SCENARIO else "application/json"
    if given in (wanted, "application/json"):
        return None
    return errors.ApiError(415, 415, f"The body needs the header `Content-Type: {wanted}`")


def _forbidden(message: str) -> errors.ApiError:
    return errors.ApiError(403, 403, message)
