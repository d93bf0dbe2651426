"""Mapping of LiveKit rooms on servers of the callers', with the tokens that they bring."""

import time
from collections.abc import Callable
from typing import Final

from liveavatar.gateway.v1 import session_pb2
from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.rooms.access import BroughtRoom
from liveavatar_gateway.rpc.field_bounds import MAX_ROOM_URL_CHARS
from liveavatar_gateway.rpc.mapping import checked_id
from liveavatar_gateway.rpc.room_tokens import APPEARS, HEARS, JOINS, Wanted, identity_in

_TOKENS: Final = ("avatar_token", "listener_token", "viewer_token")
_SCHEMES: Final = ("ws://", "wss://")


def is_brought(message: session_pb2.SessionSpec) -> bool:
    """Return whether a spec has a LiveKit room on a server of the caller's."""
    return message.HasField("livekit_room") and bool(message.livekit_room.url)


def require_no_tokens(message: session_pb2.SessionSpec, field: str) -> None:
    """Refuse tokens for a room on a server of which the gateway has the key.

    Args:
        message: Spec of the session, whose room has no URL.
        field: Path of the spec in its request, for errors.

    Raises:
        InvalidField: there is a token.
    """
    for name in _TOKENS:
        if getattr(message.livekit_room, name):
            raise InvalidField(
                f"{field}.livekit_room.{name} needs livekit_room.url: the gateway issues the tokens of rooms on "
                "its own LiveKit server; set url to bring a room on a server of yours, or leave the token out",
                field=f"{field}.livekit_room.{name}",
            )


def brought_room(
    message: session_pb2.SessionSpec, field: str, *, may_use: Callable[[str], bool], now_s: float | None = None
) -> BroughtRoom:
    """Return the room of a spec for which `is_brought` is True.

    Args:
        message: Spec of the session.
        field: Path of the spec in its request, for errors.
        may_use: Returns whether avatars and the gateway may be sent to a URL.
        now_s: Present time, seconds since 1970; None reads the clock.

    Raises:
        InvalidField: a value is missing, out of its bounds or refused, or other fields exclude such a room.
    """
    _require_alone(message, field)
    own, field = message.livekit_room, f"{field}.livekit_room"
    now_s = time.time() if now_s is None else now_s
    name = checked_id(own.name, f"{field}.name", required=True)
    identity = checked_id(own.avatar_identity, f"{field}.avatar_identity", required=False)
    _require_url(own.url, f"{field}.url", may_use)
    avatar = Wanted(room=name, grants=APPEARS, identity=identity)
    if not own.avatar_token:
        raise InvalidField(
            f"{field}.avatar_token is required with url: the gateway has no key of that server; issue a token for "
            "the avatar",
            field=f"{field}.avatar_token",
        )
    identity = identity_in(own.avatar_token, avatar, field=f"{field}.avatar_token", now_s=now_s)
    others = {identity: "the avatar"}
    if own.listener_token:
        listener = Wanted(room=name, grants=HEARS, other_than=others)
        found = identity_in(own.listener_token, listener, field=f"{field}.listener_token", now_s=now_s)
        others[found] = "the listening gateway"
    if own.viewer_token:
        viewer = Wanted(room=name, grants=JOINS, other_than=others)
        identity_in(own.viewer_token, viewer, field=f"{field}.viewer_token", now_s=now_s)
    return BroughtRoom(
        url=own.url,
        name=name,
        identity=identity,
        avatar_token=own.avatar_token,
        listener_token=own.listener_token,
        viewer_token=own.viewer_token,
    )


def _require_alone(message: session_pb2.SessionSpec, field: str) -> None:
    """Refuse wishes that need the key of the room's server, or a second token for an avatar."""
    excluded = {
        "viewers": (bool(message.viewers), "issue tokens for the viewers yourself"),
        "viewer_absence_timeout": (
            message.HasField("viewer_absence_timeout"),
            "the gateway cannot look into that room; leave it out",
        ),
        "agent_seat": (
            message.agent_seat == session_pb2.AGENT_SEAT_CALLER,
            "issue the token of your agent yourself, and leave it out",
        ),
        "auto_rotate": (
            message.auto_rotate,
            "a fresh avatar would need a token of its own; leave it out, and open a new session before the limit",
        ),
    }
    for name, (is_set, remedy) in excluded.items():
        if is_set:
            raise InvalidField(f"{field}.{name} excludes livekit_room.url: {remedy}", field=f"{field}.{name}")


def _require_url(url: str, field: str, may_use: Callable[[str], bool]) -> None:
    if len(url) > MAX_ROOM_URL_CHARS:
        raise InvalidField(
            f"{field} must have at most {MAX_ROOM_URL_CHARS} characters", field=field, limit=MAX_ROOM_URL_CHARS
        )
    if not url.startswith(_SCHEMES) or not may_use(url):
        raise InvalidField(
            f"{field} must be wss:// with a public host that the operator of the gateway allows, and without "
            "credentials or fragment",
            field=field,
        )
