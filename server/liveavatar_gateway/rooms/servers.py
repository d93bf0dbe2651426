"""LiveKit servers of the callers' own rooms: one for everybody, and those of tenants that bring their own."""

from collections.abc import Callable

from liveavatar_gateway.rooms.tokens import LiveKitConfig, LiveKitRooms

ConfigOf = Callable[[str], LiveKitConfig | None]
"""Returns the present LiveKit server of a tenant; None for a tenant without its own."""
Allows = Callable[[str, str], bool]
"""Returns whether a tenant may use a room now: a session may be older than the file of tenants."""


class RoomServers:
    """Signers of tokens for rooms, by tenant."""

    def __init__(
        self,
        common: LiveKitRooms | None,
        config_of: ConfigOf = lambda _: None,
        *,
        allows: Allows = lambda _tenant, _room: True,
    ) -> None:
        """Prepare.

        Args:
            common: Server for tenants without their own; None without one.
            config_of: Servers of tenants.
            allows: Rooms of tenants.
        """
        self._common = common
        self._config_of = config_of
        self._allows = allows
        self._own: dict[str, tuple[LiveKitConfig, LiveKitRooms]] = {}

    def of_room(self, room: str, *, tenant: str) -> LiveKitRooms | None:
        """Return the signer for a room; None if there is no server for it, or the room is the tenant's no more."""
        return self.of(tenant) if self._allows(tenant, room) else None

    def of(self, tenant: str) -> LiveKitRooms | None:
        """Return the signer for the rooms of a tenant; None if there is no server for it."""
        config = self._config_of(tenant)
        if config is None:
            self._own.pop(tenant, None)
            return self._common
        known = self._own.get(tenant)
        if known is None or known[0] != config:
            known = self._own[tenant] = config, LiveKitRooms(config)
        return known[1]
