"""Record of a warm session in the registry, by which another process tells it from a session of a caller."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from liveavatar_gateway.registry.base import Payload, StoredSession
from liveavatar_gateway.upstream.model import AvatarRequest

_KEY: Final = "warm"
SAME_AVATAR: Final = ("avatar_id", "quality", "encoding", "sandbox")
"""Properties that LiveAvatar fixes when a token is minted: a session is only of use for the same."""


def warm_payload(request: AvatarRequest, *, profile: str = "", expires_at: datetime | None = None) -> Payload:
    """Return the record of a warm session.

    Args:
        request: Its avatar.
        profile: Profile for which it is kept; empty for a reservation.
        expires_at: End of its reservation; None without one.
    """
    values: dict[str, Any] = asdict(request)
    avatar = {name: values[name] for name in SAME_AVATAR}
    expires = "" if expires_at is None else expires_at.astimezone(UTC).isoformat()
    return {_KEY: {"profile": profile, "avatar": avatar, "expires_at": expires}}


def is_warm(stored: StoredSession) -> bool:
    """Return whether a stored session is a warm one, which no caller knows."""
    return isinstance(stored.payload.get(_KEY), dict)


def expiry_of(stored: StoredSession) -> datetime | None:
    """Return the end of a stored reservation; None for any other session."""
    warm = stored.payload.get(_KEY)
    text = warm.get("expires_at") if isinstance(warm, dict) else None
    try:
        expires_at = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return expires_at if expires_at is not None and expires_at.tzinfo is not None else None


def difference(request: AvatarRequest, other: AvatarRequest) -> str:
    """Return the name of a property in which two avatars differ; empty for the same avatar."""
    return next((name for name in SAME_AVATAR if getattr(request, name) != getattr(other, name)), "")


def stored_difference(stored: StoredSession, request: AvatarRequest) -> str:
    """Return the name of a property in which a stored warm session differs from a request; empty for the same."""
    warm = stored.payload.get(_KEY)
    avatar = warm.get("avatar") if isinstance(warm, dict) else None
    known: dict[str, Any] = avatar if isinstance(avatar, dict) else {}
    return next((name for name in SAME_AVATAR if known.get(name) != getattr(request, name)), "")
