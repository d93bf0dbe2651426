"""Request of a caller that mints a session, and its checks. Pure.

Source: LiveAvatar API reference, token: sandbox rules, the plan's limits, avatars of other accounts. Messages that
are not known from the service (unusable avatars, 1080p avatars, types of secrets) are the emulator's own.
"""

from dataclasses import dataclass
from typing import Any

from liveavatar_emulator import catalog, errors, rooms
from liveavatar_emulator.account import Account
from liveavatar_emulator.config import Settings


@dataclass(frozen=True, slots=True)
class Connector:
    """Hosted agent that drives the avatar: the field that requested it, and its whole configuration."""

    field: str
    config: dict[str, Any]

    @property
    def context_id(self) -> str | None:
        """Context that instructs the agent, if any."""
        return self.config.get("context_id")


SECRET_TYPE_OF = {
    "elevenlabs_agent_config": "ELEVENLABS_API_KEY",
    "openai_realtime_config": "OPENAI_API_KEY",
    "gemini_realtime_config": "GEMINI_API_KEY",
    "cartesia_agent_config": "CARTESIA_API_KEY",
}
"""Type of secret that each connector names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """Parameters of a session, fixed when it is minted."""

    avatar_id: str
    is_sandbox: bool
    quality: str
    encoding: str
    max_session_duration: int
    livekit_room: rooms.LiveKitRoom | None
    agora_room: rooms.AgoraRoom | None = None
    """Agora channel that the caller brought; None without one."""
    connector: Connector | None = None


def readable_avatar(account: Account, avatar_id: str, settings: Settings) -> dict[str, Any] | None:
    """Return the avatar that an account reads under this id: stock, own or foreign."""
    return account.avatars.find(avatar_id, settings.own_avatars) or catalog.find(avatar_id)


def own_avatar(account: Account, avatar_id: str, settings: Settings) -> dict[str, Any]:
    """Return an avatar that the account may change.

    Raises:
        ApiError: 404 for an avatar that the account cannot read, 400 for an avatar that it can only read.
    """
    own = account.avatars.find(avatar_id, settings.own_avatars)
    if own is not None:
        return own
    if catalog.find(avatar_id) is None:
        raise errors.not_found("Avatar")
    raise no_access(avatar_id)


def no_access(avatar_id: str) -> errors.ApiError:
    """Return a 400 for an avatar that the caller may not use."""
    return errors.FieldError("avatar_id", "You dont have access to this avatar", avatar_id)


def check(request: SessionRequest, account: Account, settings: Settings) -> None:
    """Refuse a request that cannot become a session.

    Raises:
        ApiError: 400 for the avatar, the duration or a secret, 403/4030 for the quality.
    """
    avatar = readable_avatar(account, request.avatar_id, settings)
    if request.avatar_id == catalog.FOREIGN_AVATAR or request.avatar_id in account.avatars.deleted:
        raise no_access(request.avatar_id)
    if avatar is not None and not catalog.usable(avatar):
        raise errors.FieldError("avatar_id", "This avatar is not available", request.avatar_id)
    if request.is_sandbox and request.avatar_id not in catalog.SANDBOX_AVATARS:
        raise errors.FieldError("avatar_id", "This avatar is not supported in sandbox mode", request.avatar_id)
    cap_s = settings.sandbox_s if request.is_sandbox else settings.max_duration_s
    asked_s = request.max_session_duration
    if asked_s > cap_s:
        message = f"max_session_duration ({asked_s}s) exceeds the maximum allowed ({cap_s}s)"
        raise errors.FieldError("max_session_duration", message, asked_s)
    if request.quality == "very_high":
        _check_1080p(request, avatar, settings)
    if request.connector is not None:
        _check_secret(request.connector, account, settings)


def _check_1080p(request: SessionRequest, avatar: dict[str, Any] | None, settings: Settings) -> None:
    if not settings.allow_1080p:
        message = "1080p sessions require a Business or Enterprise plan"
        raise errors.ApiError(403, errors.NEEDS_PLAN, message)
    if avatar is not None and not avatar["is_1080p"]:
        raise errors.FieldError("avatar_id", "This avatar does not support 1080p", request.avatar_id)


def _check_secret(connector: Connector, account: Account, settings: Settings) -> None:
    secret_id = connector.config["secret_id"]
    secret = account.secrets.get(secret_id)
    if secret is None and settings.strict:
        raise errors.FieldError("secret_id", f"Secret with id '{secret_id}' not found in your space", secret_id)
    # Otherwise an unknown id is taken for a secret of the real service, as with avatars.
    if secret is not None and secret.type != SECRET_TYPE_OF[connector.field]:
        raise errors.FieldError("secret_id", f"A secret of type {secret.type} does not fit", secret_id)
