"""Packets of an utterance from their sending to their confirmation."""

from collections import deque
from dataclasses import dataclass

from liveavatar_gateway.core.messages import BYTE_RATE


@dataclass(frozen=True, slots=True)
class Sending:
    """Time and number of a sent command."""

    at_s: float
    """Monotonic time."""
    number: int = 0
    """Counts all packets, ends and interrupts of the session, in the order they went out."""


@dataclass(frozen=True, slots=True)
class Packet:
    """Audio that was sent, and that LiveAvatar may not have."""

    pcm: bytes
    upto: int
    """Its end position in the utterance, bytes of the caller's format."""
    ordinal: int
    """Counts the packets of the utterance from 1; the same when it is sent again."""
    sending: Sending


class Delivery:
    """Packets of one utterance, from their sending to the proof that LiveAvatar has them.

    Invariant: `unconfirmed` and behind it `again` are the packets after `confirmed`, in their order.
    """

    __slots__ = ("_count", "again", "confirmed", "confirmed_number", "unconfirmed")

    def __init__(self) -> None:
        self.confirmed = 0
        """Position up to which LiveAvatar is known to have it, bytes of the caller's format."""
        self.confirmed_number = 0
        """The number of the last packet that is."""
        self.unconfirmed: deque[Packet] = deque()
        """Sent on the current socket, not yet acknowledged."""
        self.again: deque[Packet] = deque()
        """Sent on a lost socket: these are sent first."""
        self._count = 0

    @property
    def taken(self) -> int:
        """Position up to which it was sent on the current socket or is confirmed, bytes of the caller's format."""
        return self.unconfirmed[-1].upto if self.unconfirmed else self.confirmed

    @property
    def unconfirmed_s(self) -> float:
        """Seconds of sound that LiveAvatar may not have."""
        return sum(len(packet.pcm) for packet in self.unconfirmed) / BYTE_RATE

    def send(self, pcm: bytes, upto: int, sending: Sending) -> None:
        """Note a new packet."""
        self._count += 1
        self.unconfirmed.append(Packet(pcm, upto, self._count, sending))

    def send_again(self, sending: Sending) -> bytes:
        """Take the first packet of `again`, which goes out now."""
        packet = self.again.popleft()
        self.unconfirmed.append(Packet(packet.pcm, packet.upto, packet.ordinal, sending))
        return packet.pcm

    def ack(self, ordinal: int) -> None:
        """Confirm all up to a packet that LiveAvatar took, counted from 1."""
        while self.unconfirmed and self.unconfirmed[0].ordinal <= ordinal:
            self._confirm()

    def read(self, number: int, *, sent_by_s: float) -> None:
        """LiveAvatar read all up to a number; this confirms what was sent by `sent_by_s`."""
        while self.unconfirmed:
            sending = self.unconfirmed[0].sending
            if sending.number > number or sending.at_s > sent_by_s:
                return
            self._confirm()

    def presume(self, *, sent_by_s: float) -> None:
        """Take for there what was sent by then: nothing will ever prove it."""
        while self.unconfirmed and self.unconfirmed[0].sending.at_s <= sent_by_s:
            self._confirm()

    def presume_all_but(self, seconds: float) -> None:
        """Take the oldest packets for there until at most so much is not."""
        while self.unconfirmed and self.unconfirmed_s > seconds:
            self._confirm()

    def confirm_all(self) -> None:
        """LiveAvatar has all that was sent."""
        while self.unconfirmed:
            self._confirm()

    def _confirm(self) -> None:
        packet = self.unconfirmed.popleft()
        self.confirmed = packet.upto
        self.confirmed_number = packet.sending.number

    def lose(self) -> int:
        """Move what is not confirmed to `again`, since the socket is lost, and return its size, PCM bytes."""
        size = sum(len(packet.pcm) for packet in self.unconfirmed)
        self.again.extendleft(reversed(self.unconfirmed))
        self.unconfirmed.clear()
        return size

    def forget(self) -> None:
        """Let all go."""
        self.unconfirmed.clear()
        self.again.clear()
