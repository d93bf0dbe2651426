"""Catalog of avatars and voices.

Any other UUID is taken for an avatar of the caller's own when a session is minted, so that clients can be tested
with their real ids.
"""

import uuid
from datetime import datetime
from typing import Any

SANDBOX_AVATARS = frozenset({"dd73ea75-1218-4ef3-92ce-606d5f7fbc0a", "65f9e3c9-d48b-4118-b73a-4ae2e3cbb8f0"})
"""Accepted with `is_sandbox`. Source: LiveAvatar API reference, sandbox: sources name both, the first one as
the rule."""

FOREIGN_AVATAR = "f0f0f0f0-0000-4000-8000-000000000403"
"""Avatar of another account: readable, but minting a session with this avatar is refused."""


_CREATED_AT = "2026-01-15T09:00:00Z"


def _voice(voice_id: str, name: str, language: str, gender: str) -> dict[str, Any]:
    return {
        "id": voice_id,
        "name": name,
        "description": None,
        "language": language,
        "gender": gender,
        "created_at": _CREATED_AT,
        "updated_at": _CREATED_AT,
        "tags": [],
    }


VOICES: tuple[dict[str, Any], ...] = (
    _voice("5a1b0c9e-2d3f-4e5a-8b7c-6d5e4f3a2b1c", "Default", "en", "female"),
    _voice("7c2d1e0f-4a5b-4c6d-9e8f-1a2b3c4d5e6f", "Deep", "en", "male"),
    _voice("9e4f3a2b-6c7d-4e8f-a1b2-3c4d5e6f7a8b", "Klar", "de", "female"),
)


def voice(voice_id: str) -> dict[str, Any] | None:
    """Return the stock voice with this id, or None."""
    return next((found for found in VOICES if found["id"] == voice_id), None)


def _avatar(
    avatar_id: str,
    name: str,
    kind: str = "VIDEO",
    *,
    is_1080p: bool = False,
    status: str = "ACTIVE",
    is_expired: bool = False,
) -> dict[str, Any]:
    return {
        "id": avatar_id,
        "type": kind,
        "status": status,
        "name": name,
        "preview_url": None,
        "is_expired": is_expired,
        "default_voice": {key: VOICES[0][key] for key in ("id", "name")},
        "is_1080p": is_1080p,
        "created_at": _CREATED_AT,
        "updated_at": _CREATED_AT,
        "error_message": None,
    }


PUBLIC_AVATARS: tuple[dict[str, Any], ...] = (
    _avatar("dd73ea75-1218-4ef3-92ce-606d5f7fbc0a", "Wayne", is_1080p=True),
    _avatar("65f9e3c9-d48b-4118-b73a-4ae2e3cbb8f0", "Embed sandbox"),
    _avatar("0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11", "Ada", is_1080p=True),
    _avatar("3c2f8a10-9b7d-4c6e-8f5a-1d2e3c4b5a69", "Grace", "IMAGE"),
)

_PUBLIC_BY_ID = {avatar["id"]: avatar for avatar in PUBLIC_AVATARS}


def find(avatar_id: str) -> dict[str, Any] | None:
    """Return the stock avatar or the foreign avatar with this id; None for any other id."""
    if avatar_id == FOREIGN_AVATAR:
        return _avatar(FOREIGN_AVATAR, "Somebody else's")
    return _PUBLIC_BY_ID.get(avatar_id)


def usable(avatar: dict[str, Any]) -> bool:
    """Return whether a session can use this avatar: deployed, and not expired."""
    return avatar["status"] == "ACTIVE" and not avatar["is_expired"]


_OWN_NAMESPACE = uuid.UUID("1f8c6f0e-6f5e-4c55-9f0a-0d1b5a1c7e21")


class OwnAvatars:
    """Custom avatars of one account: the n-th always has the same id, and changes to it persist.

    The second avatar is still deploying and the third has expired, so that tests can see a client avoid both.
    """

    def __init__(self, account: str) -> None:
        self._account = account
        self._changes: dict[str, dict[str, Any]] = {}
        self.deleted: set[str] = set()

    def rows(self, count: int) -> list[dict[str, Any]]:
        """Return the first `count` avatars without the deleted ones."""
        rows = (self._row(number) for number in range(1, count + 1))
        return [row for row in rows if row["id"] not in self.deleted]

    def find(self, avatar_id: str, count: int) -> dict[str, Any] | None:
        """Return the avatar with this id, if it is among those of `rows`."""
        return next((row for row in self.rows(count) if row["id"] == avatar_id), None)

    def change(
        self, avatar: dict[str, Any], *, name: str | None, voice: dict[str, Any] | None, now: datetime
    ) -> dict[str, Any]:
        """Change the given fields of an avatar, and return it with the time of the change."""
        change = self._changes.setdefault(avatar["id"], {})
        if name is not None:
            change["name"] = name
        if voice is not None:
            change["default_voice"] = {key: voice[key] for key in ("id", "name")}
        change["updated_at"] = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {**avatar, **change}

    def _row(self, number: int) -> dict[str, Any]:
        avatar_id = str(uuid.uuid5(_OWN_NAMESPACE, f"{self._account}/{number}"))
        row = _avatar(
            avatar_id,
            f"Custom {number}",
            is_1080p=number == 1,
            status="DEPLOYING" if number == 2 else "ACTIVE",
            is_expired=number == 3,
        )
        return {**row, **self._changes.get(avatar_id, {})}
