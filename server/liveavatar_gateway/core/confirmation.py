"""What LiveAvatar is known to have of what was sent: by acks, by pongs, or by nothing but the time that passed."""

from liveavatar_gateway.core.delivery import Sending
from liveavatar_gateway.core.line import Line
from liveavatar_gateway.core.messages import BYTE_RATE, Refs
from liveavatar_gateway.core.speech_config import SpeechConfig
from liveavatar_gateway.core.utterance import Utterance


class Confirmation:
    """Packets and ends of utterances, and the latest interrupt, from their sending to the proof that they arrived.

    Builds of LiveAvatar differ in what they confirm, so it is learned from what comes: acks prove most, a pong
    proves that what went out before its ping was read, and where neither means anything, time has to do.
    """

    def __init__(self, config: SpeechConfig, line: Line) -> None:
        self._config = config
        self._line = line
        self.acknowledges = False
        """Whether an ack ever came."""
        self._reads = False
        """Whether a pong ever came."""
        self._plays_unread = False
        """It was heard to play what no pong had confirmed: a missing pong proves nothing here."""
        self._unproven_cut: tuple[str, Sending] | None = None
        """The latest interrupt, while it may have been lost."""

    # --- LiveAvatar's side

    def on_appended(self, refs: Refs) -> bool:
        """A packet was accepted; True for the first sign of its utterance, after which a start may be due."""
        line = self._line
        if line.is_over(refs):
            return False
        self.acknowledges = True
        utterance = line.named_by(refs) or next((one for one in line.active if one.delivery.unconfirmed), None)
        if utterance is None:
            return False
        first = not utterance.signed
        utterance.signed = True
        utterance.delivery.ack()
        self._prove_cut(utterance.delivery.confirmed_number)
        self._confirm_before(utterance)
        return first

    def on_committed(self, refs: Refs) -> None:
        """An utterance is sealed upstream: all of it is there."""
        line = self._line
        if line.is_over(refs):
            return
        utterance = line.named_by(refs) or next(
            (one for one in line.active if one.end_sent and not one.committed), None
        )
        if utterance is not None and utterance.end_sent:
            utterance.confirm_all()
            self._confirm_before(utterance)

    def on_read(self, number: int, now_s: float) -> None:
        """All up to the `number`-th packet or end was read. Acks prove more: with them this counts later."""
        self._reads = True
        self._prove_cut(number)
        patience_s = self._config.presumed_taken_s if self.acknowledges else 0.0
        for utterance in self._line.active:
            utterance.read(number, sent_by_s=now_s - patience_s)

    def learn_from_start(self, utterance: Utterance) -> None:
        """What plays was read. After a loss it may have been read before that, so its new pongs may yet come."""
        if not (utterance.blind or utterance.delivery.confirmed):
            self._plays_unread = True

    def _confirm_before(self, utterance: Utterance) -> None:
        """All that was sent before an utterance is there when any of it is: the socket keeps the order."""
        active = self._line.active
        if utterance is not active[0]:
            for earlier in active[: active.index(utterance)]:
                earlier.confirm_all()

    # --- what is known

    @property
    def confirms(self) -> bool:
        """Whether LiveAvatar confirms what it reads, by acks or pongs; so what it did not confirm is missing."""
        return self.acknowledges or self._reads or not self._plays_unread

    def is_unproven(self, utterance: Utterance) -> bool:
        """Whether LiveAvatar, which confirms what it reads, may have read less than all of an utterance."""
        if not self.acknowledges and self._plays_unread:
            return False
        if utterance.delivery.unconfirmed or utterance.delivery.again:
            return True
        return self._reads and not self._plays_unread and utterance.end_sent and not utterance.committed

    def sent_bytes(self, utterance: Utterance) -> int:
        """Bytes of an utterance that LiveAvatar has: confirmed ones, or all sent where nothing ever confirms."""
        if self.acknowledges or self._reads or not utterance.started:
            return utterance.confirmed
        return utterance.cut

    def silent_at_s(self, *, is_cutting: bool) -> float | None:
        """When the socket is to be taken for dead unless LiveAvatar confirms something; None: nothing waits.

        Args:
            is_cutting: An interrupt is on its way, which decides what becomes of an utterance that is overdue.
        """
        line = self._line
        if not line.enabled:
            return None
        silent_at_s = None
        if self.acknowledges:
            oldest = next((one.delivery.unconfirmed[0] for one in line.active if one.delivery.unconfirmed), None)
            silent_at_s = None if oldest is None else oldest.sending.at_s + self._config.silence_timeout_s
        head = line.active[0] if line.active and not is_cutting else None
        if head is None or head.overdue_at_s is None or not self.is_unproven(head):
            return silent_at_s
        return head.overdue_at_s if silent_at_s is None else min(silent_at_s, head.overdue_at_s)

    def presume(self, utterance: Utterance, now_s: float) -> None:
        """Take what was sent long ago for there, where no ack ever comes: nothing else may ever let go of it."""
        config = self._config
        late_s = config.silence_timeout_s if self._reads else config.presumed_taken_s
        utterance.presume(sent_by_s=now_s - (late_s if self._plays_unread else config.unread_timeout_s))

    def lose(self, now_s: float) -> None:
        """The socket is gone: what LiveAvatar may not have is to go out again."""
        for utterance in self._line.active:
            if utterance.first_sent_at_s is None:
                continue
            if utterance.overdue_at_s is not None and now_s >= utterance.overdue_at_s:
                utterance.doubted = self.is_unproven(utterance)
            if not self.acknowledges:
                self.presume(utterance, now_s)
                # A start may have been told to the lost socket, and nothing else would ever prove it.
                utterance.signed = True
            self._line.clock.take_back(utterance.lose() / BYTE_RATE)

    # --- the latest interrupt

    def expect_cut(self, command_id: str, sending: Sending) -> None:
        """An interrupt went out; until its arrival is proven it may have to go out again."""
        self._unproven_cut = command_id, sending

    def on_cleared(self, refs: Refs) -> None:
        """An interrupt was carried out: this one, or one without usable ids."""
        if self._unproven_cut is not None and (not refs.ids or self._unproven_cut[0] in refs.ids):
            self._unproven_cut = None

    def forget_cut(self) -> None:
        """The latest interrupt need not be proven any more."""
        self._unproven_cut = None

    def lost_cut(self, now_s: float) -> str | None:
        """The id of the latest interrupt, if it must be taken for lost with its socket."""
        if self._unproven_cut is None:
            return None
        command_id, sending = self._unproven_cut
        if self.confirms or now_s < sending.at_s + self._config.presumed_taken_s:
            return command_id
        return None

    def _prove_cut(self, number: int) -> None:
        """All up to a number is there, so an interrupt before it was not lost."""
        if self._unproven_cut is not None and number >= self._unproven_cut[1].number:
            self._unproven_cut = None
