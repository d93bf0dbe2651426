"""Wishes of a tenant for a session, within its quotas, rooms and avatars."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Final, Protocol

from liveavatar.gateway.v1 import session_pb2
from liveavatar_gateway.auth.auth_file import Rooms
from liveavatar_gateway.auth.quotas import Quotas
from liveavatar_gateway.core.errors import AvatarNotAllowed, QuotaExceeded, RoomNotAllowed
from liveavatar_gateway.rooms.access import BroughtRoom
from liveavatar_gateway.rpc import brought_rooms, connectors, mapping, room_events
from liveavatar_gateway.rpc import rooms as own_rooms
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.upstream.avatars import Avatar

AVATAR_IDENTITY: Final = "avatar"
"""Begin of every avatar's identity in a tenant's room: a caller cannot name its avatar like another participant,
whom LiveKit would then disconnect."""


class Tenants(Protocol):
    """Tenants, as the file of tenants has them now."""

    def quotas(self, tenant: str, /) -> Quotas | None:
        """Return the quotas of a tenant; None for a tenant without limits."""

    def rooms(self, tenant: str, /) -> Rooms | None:
        """Return the rooms that a tenant may use; None for a tenant that may use every room."""

    def may_use_room(self, tenant: str, room: str, /) -> bool:
        """Return whether a room is one of a tenant's."""

    def avatars(self, tenant: str, /) -> Collection[str] | None:
        """Return the ids of the avatars that a tenant may use; None for a tenant that may use every avatar."""


class Wishes:
    """Reader of the specs that callers send."""

    def __init__(self, config: RpcConfig, tenants: Tenants, *, may_use_room_url: Callable[[str], bool]) -> None:
        """Prepare.

        Args:
            config: Defaults and limits.
            tenants: Limits of the tenants.
            may_use_room_url: Returns whether avatars may be sent to a LiveKit server of a caller.
        """
        self._config = config
        self._tenants = tenants
        self._may_use_room_url = may_use_room_url

    def spec_of(self, message: session_pb2.SessionSpec, *, field: str, tenant: str) -> SessionSpec:
        """Return the spec of a session.

        Values that the caller leaves out are the defaults, or less if a quota is lower.

        Args:
            message: The caller's message.
            field: Path of the message in its request, for errors.
            tenant: Tenant of the caller.

        Raises:
            InvalidField: a field is missing or out of its range.
            QuotaExceeded: a field is above a quota.
            RoomNotAllowed: the room is not one of the tenant's.
            AvatarNotAllowed: the avatar is not one of the tenant's.
            AgentSeatTaken: events of the room need the agent's seat, which is the caller's.
        """
        quotas, rooms = self._tenants.quotas(tenant), self._tenants.rooms(tenant)
        grace_s = self._config.detach_grace_s
        if quotas is not None:
            grace_s = min(grace_s, quotas.max_detach_grace_s)
        brought = self._brought_room(message, field)
        if brought is not None:
            message = _without_room(message)
        elif rooms is not None and message.HasField("livekit_room"):
            message = _with_fixed_identity(message)
        has_server = self._config.livekit_rooms or (rooms is not None and rooms.server is not None)
        spec = mapping.spec_of(
            message,
            field=field,
            default_detach_grace_s=grace_s,
            default_viewer_absence_s=self._config.viewer_absence_s,
            livekit_rooms=has_server,
        )
        if quotas is not None:
            _require_within(spec, quotas, field=field, tenant=tenant)
        if rooms is not None and spec.livekit_room is not None:
            self._require_room(spec.livekit_room.name, rooms, field=f"{field}.livekit_room.name", tenant=tenant)
            spec = replace(spec, livekit_room=replace(spec.livekit_room, tenant=tenant))
        seat = own_rooms.agent_seat(message, field)
        spec = replace(
            spec,
            agent_seat=seat,
            agora_room=own_rooms.agora_room(message, field),
            brought_room=brought,
            viewers=own_rooms.viewers_of_spec(message, spec.livekit_room, field=field),
            room_events=room_events.wish_of(message, seat, field),
            connector=connectors.connector(message, field),
        )
        allowed = self._tenants.avatars(tenant)
        if allowed is not None and spec.avatar.avatar_id not in allowed:
            raise AvatarNotAllowed(spec.avatar.avatar_id, tenant, field=f"{field}.avatar_id")
        return spec

    def _brought_room(self, message: session_pb2.SessionSpec, field: str) -> BroughtRoom | None:
        if brought_rooms.is_brought(message):
            if message.HasField("agora_room"):
                # An avatar is in one room, as the mapping of the channel says.
                own_rooms.agora_room(message, field)
            return brought_rooms.brought_room(message, field, may_use=self._may_use_room_url)
        if message.HasField("livekit_room"):
            brought_rooms.require_no_tokens(message, field)
        return None

    def _require_room(self, room: str, rooms: Rooms, *, field: str, tenant: str) -> None:
        if self._tenants.may_use_room(tenant, room):
            return
        prefix = rooms.prefix_of(tenant)
        allowed = [f"names that begin with {prefix!r} and are no other tenant's"] if prefix else []
        allowed += [repr(name) for name in rooms.names[:10]]
        raise RoomNotAllowed(room, " or ".join(allowed), field=field)

    def avatars(self, listed: Iterable[Avatar], *, tenant: str) -> list[Avatar]:
        """Return the avatars that a tenant may use."""
        allowed = self._tenants.avatars(tenant)
        return [
            avatar
            for avatar in listed
            if (allowed is None or avatar.id in allowed) and (avatar.tenants is None or tenant in avatar.tenants)
        ]


def _require_within(spec: SessionSpec, quotas: Quotas, *, field: str, tenant: str) -> None:
    if (spec.avatar.max_duration_s or 0) > quotas.max_session_s:
        raise QuotaExceeded(tenant, "max_session_s", limit=quotas.max_session_s, field=f"{field}.max_duration")
    if spec.detach_grace_s > quotas.max_detach_grace_s:
        raise QuotaExceeded(
            tenant, "max_detach_grace_s", limit=quotas.max_detach_grace_s, field=f"{field}.detach_grace"
        )


def _without_room(message: session_pb2.SessionSpec) -> session_pb2.SessionSpec:
    rest = session_pb2.SessionSpec()
    rest.CopyFrom(message)
    rest.ClearField("livekit_room")
    return rest


def _with_fixed_identity(message: session_pb2.SessionSpec) -> session_pb2.SessionSpec:
    identity = message.livekit_room.avatar_identity
    if not identity or identity == AVATAR_IDENTITY or identity.startswith(f"{AVATAR_IDENTITY}-"):
        return message
    fixed = session_pb2.SessionSpec()
    fixed.CopyFrom(message)
    fixed.livekit_room.avatar_identity = f"{AVATAR_IDENTITY}-{identity}"
    return fixed
