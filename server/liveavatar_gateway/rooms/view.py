"""View of a room that the gateway has joined, and those who follow it."""

from collections.abc import Sequence
from typing import Protocol

from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.core.room_events import RoomLossCause, RoomParticipant


class RoomFollower(Protocol):
    """Receiver of what happens in a room, on the loop."""

    def is_avatar(self, identity: str) -> bool:
        """Return True for the identity of an avatar of the session."""

    def room_changed(self) -> None:
        """Take note that participants or their tracks have changed."""

    def room_interrupted(self) -> None:
        """Take note that the connection is lost, and the SDK tries to bring it back."""

    def room_restored(self) -> None:
        """Take note that the connection is back."""

    def wants(self, topic: str) -> bool:
        """Return True if data of a topic is wanted. Also called from a thread of the SDK."""

    def data_received(self, identity: str, topic: str, payload: bytes) -> None:
        """Take a data message of a topic that is wanted."""

    def data_dropped(self, count: int) -> None:
        """Take note that data messages of wanted topics were dropped."""


class RoomView(Protocol):
    """Participants of a room that was joined, and the way to send them data; see `RoomObserver`."""

    @property
    def may_send(self) -> bool:
        """True if the token allows data."""

    def follow(self, follower: RoomFollower) -> None:
        """Report to a follower from now on."""

    def participants(self) -> Sequence[RoomParticipant]:
        """Return the participants, the gateway left out."""

    def has_viewer(self) -> bool:
        """Return True if a participant may see the avatar."""

    def absent(self, identities: Sequence[str]) -> str:
        """Return an identity that is not in the room; empty if all are."""

    async def send(self, payload: bytes, topic: str, identities: Sequence[str], *, timeout_s: float) -> None:
        """Send data reliably, to everybody if `identities` is empty; raises `RoomUnreachable`."""


class RoomGuest(Protocol):
    """Part of a session that needs the connection to its room, besides those who hear its users."""

    def entered(self, view: RoomView) -> None:
        """Take note that the gateway is in the room."""

    def left(self, cause: RoomLossCause | None) -> None:
        """Take note that the gateway is not in the room any more; None if it left for another room or for good."""

    def refused(self, error: GatewayError) -> None:
        """Take note that the room cannot be joined; also again, while that goes on."""
