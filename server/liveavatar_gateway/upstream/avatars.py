"""Avatars in LiveAvatar's lists."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from liveavatar_gateway.upstream.bounds import bounded
from liveavatar_gateway.upstream.egress import Malformed, Reach, reach_of_host, read_target

SANDBOX_AVATAR_ID: Final = "dd73ea75-1218-4ef3-92ce-606d5f7fbc0a"
"""Only avatar of the sandbox, "Wayne". Source: LiveAvatar documentation, sandbox; the lists do not mark it."""
_SANDBOX_NAME: Final = "Wayne"
_ID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_MAX_NAME_BYTES: Final = 200
_MAX_PREVIEW_CHARS: Final = 2048
"""Limit of picture addresses: a page of 500 avatars must fit into a gRPC message of 4 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Avatar:
    """Avatar that sessions can use."""

    id: str
    name: str
    preview_url: str = ""
    """Address of a picture; empty without one."""
    is_1080p: bool = False
    sandbox: bool = False
    """True for the avatar of the sandbox."""
    tenants: frozenset[str] | None = None
    """Tenants that may use an account which has it; None if everybody may."""


def usable(entries: Iterable[object]) -> list[Avatar]:
    """Return the avatars of a list that sessions can use: deployed, and not expired.

    Args:
        entries: Entries of LiveAvatar's lists. Entries without a valid id are left out.
    """
    return [avatar for entry in entries if isinstance(entry, Mapping) and (avatar := _avatar(entry)) is not None]


def with_sandbox(avatars: Iterable[Avatar]) -> list[Avatar]:
    """Return avatars without repeated ids; the sandbox avatar is marked, and added if it is missing."""
    found = {SANDBOX_AVATAR_ID: Avatar(id=SANDBOX_AVATAR_ID, name=_SANDBOX_NAME)}
    listed = {avatar.id: avatar for avatar in reversed(list(avatars))}
    found |= listed
    found[SANDBOX_AVATAR_ID] = replace(found[SANDBOX_AVATAR_ID], sandbox=True)
    return list(found.values())


def _avatar(entry: Mapping[Any, Any]) -> Avatar | None:
    avatar_id = str(entry.get("id")).lower()
    if entry.get("status") != "ACTIVE" or entry.get("is_expired") is True or not _ID.fullmatch(avatar_id):
        return None
    name = entry.get("name")
    # JSON may hold halves of characters, which no message can.
    name = name.encode(errors="replace").decode() if isinstance(name, str) else ""
    return Avatar(
        id=avatar_id,
        name=bounded(name, _MAX_NAME_BYTES) or avatar_id,
        preview_url=_preview(entry.get("preview_url")),
        is_1080p=entry.get("is_1080p") is True,
    )


def _preview(value: object) -> str:
    """Return the address of a picture; empty for a value that a browser must not open, such as a script."""
    if not isinstance(value, str) or len(value) > _MAX_PREVIEW_CHARS:
        return ""
    try:
        target = read_target(value)
    except Malformed:
        return ""
    is_safe = target.scheme == "https" and reach_of_host(target.host) in (None, Reach.PUBLIC)
    return value if is_safe else ""
