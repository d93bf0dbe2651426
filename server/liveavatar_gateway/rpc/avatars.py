"""Avatars that the caller's tenant may use."""

import base64
import binascii
import bisect
from collections.abc import Iterable, Sequence
from typing import Final

from liveavatar_gateway.core.errors import AvatarNotAllowed, InvalidField
from liveavatar_gateway.rpc.interceptors.authentication import current_principal
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.upstream.avatars import Avatar

_SEPARATOR: Final = "\0"
_MAX_TOKEN_CHARS: Final = 2000
_Key = tuple[str, str]


def require_allowed(spec: SessionSpec, *, field: str) -> None:
    """Refuse a spec with an avatar that the caller's tenant may not use.

    Args:
        spec: Spec of a session.
        field: Path of the spec in its request, for the error.

    Raises:
        AvatarNotAllowed: the operator does not allow the avatar to the tenant.
    """
    principal = current_principal()
    if not principal.may_use(spec.avatar.avatar_id):
        raise AvatarNotAllowed(spec.avatar.avatar_id, principal.tenant, field=f"{field}.avatar_id")


def allowed(avatars: Iterable[Avatar]) -> list[Avatar]:
    """Return the avatars that the caller's tenant may use, sorted by name."""
    principal = current_principal()
    return sorted((avatar for avatar in avatars if principal.may_use(avatar.id)), key=_key_of)


def page(avatars: Sequence[Avatar], token: str, size: int) -> tuple[Sequence[Avatar], str]:
    """Return a page of sorted avatars, and the token of the next page.

    A token is the place of the page's last avatar, so it is valid in a list that has changed since.

    Raises:
        InvalidField: the token is no token.
    """
    start = bisect.bisect_right(avatars, _key_in(token), key=_key_of) if token else 0
    entries = avatars[start : start + size]
    return entries, _token_of(entries[-1]) if start + size < len(avatars) else ""


def _key_of(avatar: Avatar) -> _Key:
    return avatar.name.casefold(), avatar.id


def _token_of(avatar: Avatar) -> str:
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
