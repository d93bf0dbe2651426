"""Tokens for LiveKit rooms whose signature nobody checks, with any claims."""

import base64
import json
from collections.abc import Mapping
from typing import Final

AVATAR_GRANTS: Final = {"roomJoin": True, "canPublish": True, "canSubscribe": True, "canPublishData": True}


def part(value: object) -> str:
    """Return a JSON value as a part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def unsigned(now_s: float, *, room: str = "desk-7", video: object = None, **claims: object) -> str:
    """Return a token of an avatar "ada" for an hour, unless the claims say otherwise; Ellipsis leaves one out."""
    grants: object = {"room": room, **AVATAR_GRANTS} if video is None else video
    whole: Mapping[str, object] = {
        "iss": "key",
        "sub": "ada",
        "nbf": now_s - 5,
        "exp": now_s + 3600,
        "video": grants,
        **claims,
    }
    kept = {name: value for name, value in whole.items() if value is not ...}
    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(kept)}.c2lnbmF0dXJl"
