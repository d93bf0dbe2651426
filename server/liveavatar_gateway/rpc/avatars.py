"""Pages of the list of avatars."""

import base64
import binascii
import bisect
from collections.abc import Iterable
from typing import Final

from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.upstream.avatars import Avatar

_SEPARATOR: Final = "\0"
_MAX_TOKEN_CHARS: Final = 2000
_Key = tuple[str, str]


def page(avatars: Iterable[Avatar], token: str, size: int) -> tuple[list[Avatar], str]:
    """Return a page of avatars, sorted by name, and the token of the next page.

    A token is the place of the page's last avatar, so it is valid in a list that has changed since.

    Raises:
        InvalidField: the token is no token.
    """
    ordered = sorted(avatars, key=_key_of)
    start = bisect.bisect_right(ordered, _key_in(token), key=_key_of) if token else 0
    entries = ordered[start : start + size]
    return entries, token_of(entries[-1]) if start + size < len(ordered) else ""


def _key_of(avatar: Avatar) -> _Key:
    return avatar.name.casefold(), avatar.id


def token_of(avatar: Avatar) -> str:
    """Return the token of the page behind an avatar."""
    return base64.urlsafe_b64encode(_SEPARATOR.join(_key_of(avatar)).encode()).decode()


def _key_in(token: str) -> _Key:
    try:
        text = base64.b64decode(token[:_MAX_TOKEN_CHARS], altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    name, separator, avatar_id = text.rpartition(_SEPARATOR)
    if not separator or len(token) > _MAX_TOKEN_CHARS:
        raise InvalidField("page_token is unknown; list from the start", field="page_token")
    return name, avatar_id
