"""Check of LiveKit tokens that callers bring for rooms on their own servers, as far as it goes without the key."""

import base64
import binascii
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.rpc.field_bounds import MAX_ROOM_TOKEN_CHARS

JOINS: Final = ("roomJoin",)
HEARS: Final = ("roomJoin", "canSubscribe")
APPEARS: Final = ("roomJoin", "canPublish", "canSubscribe", "canPublishData")
"""Grants of the avatar's token. LiveKit treats an omitted one as given, but LiveAvatar's start then fails with a
bare HTTP 500."""
_SEGMENT: Final = r"[A-Za-z0-9_-]+"
_JWT: Final = re.compile(rf"({_SEGMENT})\.({_SEGMENT})\.{_SEGMENT}")
_LEAST_LIFE_S: Final = 60.0
"""Time for which a token must still be valid: the avatar joins seconds after the request."""
_CLOCK_SKEW_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Properties that a token must have."""

    room: str
    grants: Collection[str]
    identity: str = ""
    """Identity of the holder; empty for any."""
    other_than: Mapping[str, str] = field(default_factory=dict)
    """Identities that the holder must not have, each with the name of its owner for the error."""


def identity_in(token: str, wanted: Wanted, *, field: str, now_s: float) -> str:
    """Return the identity of a token's holder, after checking the token.

    The signature cannot be checked: only the room's server has the key. No error has any part of the token.

    Args:
        token: JWT for LiveKit.
        wanted: Properties that it must have.
        field: Path of the token in its request, for errors.
        now_s: Present time, seconds since 1970.

    Raises:
        InvalidField: it is no token, or not one with these properties.
    """
    claims = _claims(token, field)
    _require_valid(claims, field, now_s)
    identity = claims.get("sub")
    if not isinstance(identity, str) or not identity:
        _refuse(field, "names no participant; issue it with an identity")
    if wanted.identity and identity != wanted.identity:
        _refuse(field, f"is for another participant than {wanted.identity!r}; issue it for that identity")
    if identity in wanted.other_than:
        _refuse(
            field,
            f"has the identity of {wanted.other_than[identity]}, and LiveKit disconnects the earlier of two "
            "participants with the same identity; issue it for an identity of its own",
        )
    _require_grants(claims.get("video"), wanted, field)
    return identity


def _claims(token: str, field: str) -> Mapping[str, Any]:
    if len(token) > MAX_ROOM_TOKEN_CHARS:
        raise InvalidField(
            f"{field} must have at most {MAX_ROOM_TOKEN_CHARS} characters", field=field, limit=MAX_ROOM_TOKEN_CHARS
        )
    found = _JWT.fullmatch(token)
    header = None if found is None else _decoded(found[1])
    claims = None if found is None else _decoded(found[2])
    if not isinstance(header, dict) or not isinstance(claims, dict):
        _refuse(field, "is no JWT; issue it with LiveKit's SDK, and pass it on unchanged")
    return claims


def _decoded(segment: str) -> Any:
    """Return the JSON value of a part of a token; None if there is none."""
    try:
        return json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None


def _require_valid(claims: Mapping[str, Any], field: str, now_s: float) -> None:
    expires_s: Any = claims.get("exp")
    begins_s: Any = claims.get("nbf", 0)
    if not _is_time(expires_s) or not _is_time(begins_s):
        _refuse(field, "has no time of expiry; issue it with one")
    if expires_s < now_s + _LEAST_LIFE_S:
        _refuse(field, f"has expired, or expires within {_LEAST_LIFE_S:g} s; issue a fresh one")
    if begins_s > now_s + _CLOCK_SKEW_S:
        _refuse(field, "is not valid yet; compare the clocks of its issuer and of this gateway")


def _is_time(value: object) -> bool:
    if isinstance(value, float):
        # JSON of Python knows infinity, and values that are no number.
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _require_grants(video: object, wanted: Wanted, field: str) -> None:
    grants = video if isinstance(video, dict) else {}
    if grants.get("room") != wanted.room:
        _refuse(field, f"is for another room than {wanted.room!r}; issue it with that room")
    missing = [grant for grant in wanted.grants if grants.get(grant) is not True]
    if missing:
        _refuse(field, f"lacks the grants {', '.join(missing)}; issue it with each of them set to true")


def _refuse(field: str, problem: str) -> NoReturn:
    raise InvalidField(f"{field} {problem}", field=field)
