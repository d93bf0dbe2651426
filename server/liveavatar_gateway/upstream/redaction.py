"""Removal of the gateway's own secrets from texts of LiveAvatar or of a proxy, which may repeat them."""

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

_HIDDEN: Final = "(hidden)"
_MIN_CHARS: Final = 8
"""Shorter secrets are those of tests, and would be found in other words."""
_SCHEME: Final = "Bearer "
_ROOM_TOKENS: Final = {"livekit_config": "livekit_client_token", "agora_config": "agora_token"}
"""Field with the token of each kind of room in the body of a request."""


class Redactor:
    """Secrets that texts must not repeat."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: dict[str, None] = {}
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Add secrets; earlier ones stay, since answers about them may still come."""
        self._secrets.update(dict.fromkeys(secret for secret in secrets if len(secret) >= _MIN_CHARS))

    def hide(self, text: str) -> str:
        """Return the text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text

    def with_request(self, arguments: Mapping[str, Any]) -> "Redactor":
        """Return a redactor that also knows the credentials in the arguments of a request."""
        body = arguments.get("json") or {}
        headers = (arguments.get("headers") or {}).values()
        tokens = [header.removeprefix(_SCHEME) for header in headers]
        tokens += [body.get(room, {}).get(token, "") for room, token in _ROOM_TOKENS.items()]
        return Redactor([*self._secrets, *tokens])


def proxy_secrets(url: str) -> list[str]:
    """Return the password in the address of a proxy, in the forms in which requests have it."""
    parts = urlsplit(url)
    if not parts.password:
        return []
    user, password = unquote(parts.username or ""), unquote(parts.password)
    return [password, parts.password, base64.b64encode(f"{user}:{password}".encode()).decode()]
