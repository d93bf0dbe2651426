"""The avatars this account world knows.

Any other UUID is taken for an avatar of the caller's own, so clients can be tested with the ids they really
use.
"""

from typing import Any

SANDBOX_AVATARS = frozenset({"dd73ea75-1218-4ef3-92ce-606d5f7fbc0a", "65f9e3c9-d48b-4118-b73a-4ae2e3cbb8f0"})
"""Accepted with `is_sandbox`. Source: LiveAvatar API reference, sandbox: sources name both, the first one as
the rule."""

FOREIGN_AVATAR = "f0f0f0f0-0000-4000-8000-000000000403"
"""Belongs to somebody else: readable, but minting a session with it is refused."""


def _avatar(avatar_id: str, name: str, kind: str = "VIDEO", *, is_1080p: bool = False) -> dict[str, Any]:
    return {
        "id": avatar_id,
        "type": kind,
        "status": "ACTIVE",
        "name": name,
        "preview_url": None,
        "is_expired": False,
        "default_voice": {"id": "5a1b0c9e-2d3f-4e5a-8b7c-6d5e4f3a2b1c", "name": "Default"},
        "is_1080p": is_1080p,
        "created_at": "2026-01-15T09:00:00Z",
        "updated_at": "2026-01-15T09:00:00Z",
        "error_message": None,
    }


PUBLIC_AVATARS: tuple[dict[str, Any], ...] = (
    _avatar("dd73ea75-1218-4ef3-92ce-606d5f7fbc0a", "Wayne", is_1080p=True),
    _avatar("65f9e3c9-d48b-4118-b73a-4ae2e3cbb8f0", "Embed sandbox"),
    _avatar("0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11", "Ada", is_1080p=True),
    _avatar("3c2f8a10-9b7d-4c6e-8f5a-1d2e3c4b5a69", "Grace", "IMAGE"),
)

OWN_AVATARS: tuple[dict[str, Any], ...] = ()
"""An account without custom avatars, which is the normal case."""

_BY_ID = {avatar["id"]: avatar for avatar in (*PUBLIC_AVATARS, *OWN_AVATARS)}


def find(avatar_id: str) -> dict[str, Any] | None:
    """The avatar with this id, or None."""
    if avatar_id == FOREIGN_AVATAR:
        return _avatar(FOREIGN_AVATAR, "Somebody else's")
    return _BY_ID.get(avatar_id)
