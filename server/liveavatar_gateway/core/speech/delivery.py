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
    """Number among all packets, ends and interrupts of the session, in the order of sending, from 1."""


@dataclass(frozen=True, slots=True)
class Packet:
    """Audio that was sent and is not confirmed."""

    pcm: bytes
    upto: int
    """Position in the utterance at which the packet ends, bytes of the caller's format."""
    ordinal: int
    """Number among the packets of the utterance, from 1; the same when the packet is sent again."""
    sending: Sending


class Delivery:
    """Packets of one utterance, from their sending to their confirmation.

    Invariant: `unconfirmed` and behind it `again` are the packets after `confirmed`, in their order.
    """

    __slots__ = ("_count", "again", "confirmed", "confirmed_number", "unconfirmed")

    def __init__(self, at: int = 0) -> None:
        """Begin without packets.

        Args:
            at: Position of the first packet in the utterance, bytes of the caller's format.
        """
        self.confirmed = at
        """Position up to which LiveAvatar is known to have the utterance, bytes of the caller's format."""
        self.confirmed_number = 0
        """Number of the latest confirmed packet."""
        self.unconfirmed: deque[Packet] = deque()
        """Sent on the current socket, not yet acknowledged."""
        self.again: deque[Packet] = deque()
        """Sent on a lost socket: these packets are sent first."""
        self._count = 0

    @property
    def taken(self) -> int:
        """End of the audio that was sent on the current socket or is confirmed, bytes of the caller's format."""
        return self.unconfirmed[-1].upto if self.unconfirmed else self.confirmed

    @property
    def unconfirmed_s(self) -> float:
        """Seconds of audio that was sent on the current socket and is not confirmed."""
        return sum(len(packet.pcm) for packet in self.unconfirmed) / BYTE_RATE

    def send(self, pcm: bytes, upto: int, sending: Sending) -> None:
        """Record a new packet."""
        self._count += 1
        self.unconfirmed.append(Packet(pcm, upto, self._count, sending))

    def send_again(self, sending: Sending) -> bytes:
        """Move the first packet of `again` to `unconfirmed`, and return its audio, which is sent now."""
        packet = self.again.popleft()
        self.unconfirmed.append(Packet(packet.pcm, packet.upto, packet.ordinal, sending))
        return packet.pcm

    def ack(self, ordinal: int) -> None:
        """Confirm all packets up to the one with an ordinal."""
        while self.unconfirmed and self.unconfirmed[0].ordinal <= ordinal:
            self._confirm()

    def read(self, number: int, *, sent_by_s: float) -> None:
        """Confirm the packets up to a number, which LiveAvatar read, if they were sent by `sent_by_s`."""
        while self.unconfirmed:
            sending = self.unconfirmed[0].sending
            if sending.number > number or sending.at_s > sent_by_s:
                return
            self._confirm()

    def presume(self, *, sent_by_s: float) -> None:
        """Confirm the packets that were sent by a time, since nothing will ever prove their arrival."""
        while self.unconfirmed and self.unconfirmed[0].sending.at_s <= sent_by_s:
            self._confirm()

    def presume_all_but(self, seconds: float) -> None:
        """Confirm the oldest packets until at most `seconds` of audio are unconfirmed."""
        while self.unconfirmed and self.unconfirmed_s > seconds:
            self._confirm()

    def confirm_all(self) -> None:
        """Confirm all packets."""
        while self.unconfirmed:
            self._confirm()

    def _confirm(self) -> None:
        packet = self.unconfirmed.popleft()
        self.confirmed = packet.upto
        self.confirmed_number = packet.sending.number

    def lose(self) -> int:
        """Move the unconfirmed packets to `again`, since the socket is lost; return their size in PCM bytes."""
        size = sum(len(packet.pcm) for packet in self.unconfirmed)
        self.again.extendleft(reversed(self.unconfirmed))
        self.unconfirmed.clear()
        return size

    def forget(self) -> None:
        """Release all packets."""
        self.unconfirmed.clear()
        self.again.clear()
