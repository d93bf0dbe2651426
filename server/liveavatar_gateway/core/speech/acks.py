"""Confirmation of sent commands: by acks, by pongs, or by the time that has passed."""

from collections import deque

from liveavatar_gateway.core.messages import BYTE_RATE, Refs
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.speech.delivery import Sending
from liveavatar_gateway.core.speech.pending_acks import Kind, PendingAck, PendingAcks
from liveavatar_gateway.core.speech.queue import UtteranceQueue
from liveavatar_gateway.core.speech.utterance import Utterance

_MAX_OWED_ENDS = 64
"""Largest number of ends that are kept where LiveAvatar confirms nothing."""


class AckTracker:
    """Confirmation of packets, ends of utterances and the latest interrupt.

    Builds of LiveAvatar differ in the confirmations that they send, so the tracker learns from those that come. An
    ack proves most. A pong proves that all commands before its ping were read. Where LiveAvatar sends neither, a
    command counts as received after some time.
    """

    def __init__(self, config: SpeechConfig, queue: UtteranceQueue) -> None:
        self._config = config
        self._queue = queue
        self.moved_at_s = 0.0
        """Latest time at which the socket was seen to stand still."""
        self.acknowledges = False
        """True once an ack came."""
        self._reads = False
        """True once a pong came."""
        self._plays_without_pong = False
        """True once audio was played before its pong arrived, so that a missing pong proves nothing."""
        self._probed_number = 0
        """Number of the latest packet or end that a probe was sent after."""
        self._awaited = PendingAcks(config.presumed_taken_s)
        self._unproven_interrupt: tuple[str, Sending] | None = None
        """Command id and sending of the latest interrupt, while it may have been lost."""
        self._unproven_ends: deque[tuple[str, Sending]] = deque(maxlen=_MAX_OWED_ENDS)
        """Ends of utterances that have ended here and were sent again, while these ends may be lost."""
        self._owed_ends: deque[str] = deque(maxlen=_MAX_OWED_ENDS)
        """Upstream ids of such utterances whose ends were lost, so that they are sent again."""

    # --- sending

    def expect_packet(self, utterance: Utterance, number: int) -> None:
        """Await the ack of the newest packet of an utterance."""
        ordinal = utterance.delivery.unconfirmed[-1].ordinal
        self._awaited.add(PendingAck(Kind.PACKET, utterance.upstream_id, number, ordinal))

    def expect_end(self, upstream_id: str, number: int) -> None:
        """Await the ack of an utterance's end."""
        self._awaited.add(PendingAck(Kind.END, upstream_id, number))

    def expect_cleared(self, command_id: str, number: int) -> None:
        """Await the answer to an interrupt."""
        self._awaited.add(PendingAck(Kind.INTERRUPT, command_id, number))

    # --- LiveAvatar's side

    def on_appended(self, refs: Refs, now_s: float) -> bool:
        """Confirm a packet; return True for the first ack of its utterance, after which a start may be due."""
        queue = self._queue
        awaited = self._awaited.take(Kind.PACKET, queue.upstream_id_of(refs), now_s)
        if queue.is_over(refs):
            return False
        self.acknowledges = True
        utterance = queue.named_by(refs)
        if awaited is not None:
            utterance = utterance or queue.find(awaited.event_id)
            self._prove_interrupt(awaited.number)
        if utterance is None:
            return False
        is_first = utterance.accept()
        if awaited is not None:
            utterance.delivery.ack(awaited.ordinal)
        self._prove_interrupt(utterance.delivery.confirmed_number)
        self._confirm_before(utterance)
        return is_first

    def on_committed(self, refs: Refs, now_s: float) -> None:
        """Confirm all of an utterance whose end LiveAvatar acknowledged."""
        queue = self._queue
        awaited = self._awaited.take(Kind.END, queue.upstream_id_of(refs), now_s)
        if awaited is not None:
            self._prove_ends(awaited.number)
        if queue.is_over(refs):
            return
        utterance = queue.named_by(refs)
        if utterance is None and awaited is not None:
            utterance = queue.find(awaited.event_id)
        if utterance is not None and utterance.end_sent:
            utterance.accept()
            utterance.confirm_all()
            self._confirm_before(utterance)

    def on_read(self, number: int, now_s: float) -> None:
        """Confirm commands up to the `number`-th; where acks come, only those older than `presumed_taken_s`."""
        self._reads = True
        self._prove_interrupt(number)
        self._prove_ends(number)
        patience_s = self._config.presumed_taken_s if self.acknowledges else 0.0
        for utterance in self._queue.active:
            utterance.read(number, sent_by_s=now_s - patience_s)

    def observe_start(self, utterance: Utterance) -> None:
        """Learn from a start without a pong that a missing pong proves nothing.

        A start after a loss teaches nothing: the audio may have been read before the loss, so the pongs of the new
        socket may still come.
        """
        if not (utterance.start_may_be_lost or utterance.delivery.confirmed):
            self._plays_without_pong = True

    def _confirm_before(self, utterance: Utterance) -> None:
        """Confirm all utterances before one that LiveAvatar has any of, since the socket keeps the order."""
        active = self._queue.active
        if utterance is not active[0]:
            for earlier in active[: active.index(utterance)]:
                earlier.confirm_all()

    # --- confirmation

    @property
    def confirms(self) -> bool:
        """True when LiveAvatar confirms what it reads, by acks or pongs, so that unconfirmed audio is missing."""
        return self.acknowledges or self._reads or not self._plays_without_pong

    @property
    def has_confirmed(self) -> bool:
        """True when LiveAvatar has confirmed anything, so that a missing confirmation is significant."""
        return self.acknowledges or self.reads

    @property
    def reads(self) -> bool:
        """True when LiveAvatar answers pings in time, so that audio without a pong was not read."""
        return self._reads and not self._plays_without_pong

    def may_follow_at_s(self, utterance: Utterance) -> float | None:
        """Return the time from which an utterance may begin; None while only a confirmation can decide it.

        Audio that is sent again must not come behind a later utterance, so an utterance waits until all audio
        before it is confirmed. Where LiveAvatar confirms nothing, an utterance does not wait; where it has
        confirmed nothing so far, an utterance waits a moment.
        """
        active = self._queue.active
        missing = [
            one.delivery
            for one in active[: active.index(utterance)]
            if one.delivery.unconfirmed or one.delivery.again
        ]
        if not missing or (self._plays_without_pong and not self.acknowledges):
            return 0.0
        if self.acknowledges or self._reads or not missing[-1].unconfirmed:
            return None
        return missing[-1].unconfirmed[-1].sending.at_s + self._config.presumed_taken_s

    def is_full(self, utterance: Utterance, packet_s: float) -> bool:
        """Return True when too much of an utterance is unconfirmed for another packet of `packet_s`."""
        if not self.has_confirmed:
            return False
        return utterance.delivery.unconfirmed_s + packet_s > self._config.max_unconfirmed_s

    @property
    def probe_at_s(self) -> float | None:
        """Time of the next probe for the latest packet or end; None when no probe is needed.

        Where acks come, a pong counts only for commands that are older than a second, and no command follows the
        last packet whose ping would prove it.
        """
        if not (self.acknowledges and self._queue.enabled):
            return None
        sendings = [one.delivery.unconfirmed[-1].sending for one in self._queue.active if one.delivery.unconfirmed]
        sendings += [one.unconfirmed_end for one in self._queue.active if one.unconfirmed_end is not None]
        newest = max(sendings, key=lambda sending: sending.number, default=None)
        if newest is None or newest.number <= self._probed_number:
            return None
        return newest.at_s + self._config.presumed_taken_s

    def note_probe(self, number: int) -> None:
        """Record that a probe was sent after the `number`-th packet or end."""
        self._probed_number = number

    def unheard_at_s(self, utterance: Utterance) -> float | None:
        """Return the time at which the confirmation of sent audio of an utterance is overdue; None without one.

        Where LiveAvatar sends no acks, its pongs may be late under load. Then a confirmation is overdue only when
        no more audio may be sent before it comes, and when all sent audio must have been played.
        """
        if not (utterance.delivery.unconfirmed and self.has_confirmed):
            return None
        at_s = utterance.delivery.unconfirmed[0].sending.at_s + self._config.silence_timeout_s
        if self.acknowledges:
            return at_s
        if not self.is_full(utterance, self._config.scheduler.max_packet_s):
            return None
        return max(at_s, max(self.moved_at_s, self._queue.clock.dry_at_s) + self._config.ended_grace_s)

    def is_unproven(self, utterance: Utterance) -> bool:
        """Return True when LiveAvatar, which confirms what it reads, may not have read all of an utterance."""
        if not self.acknowledges and self._plays_without_pong:
            return False
        if utterance.delivery.unconfirmed or utterance.delivery.again:
            return True
        return self._reads and not self._plays_without_pong and utterance.unconfirmed_end is not None

    def confirmed_bytes(self, utterance: Utterance) -> int:
        """Return how many bytes LiveAvatar has of an utterance: all sent ones where it never confirms anything."""
        if self.acknowledges or self._reads or not utterance.started:
            return utterance.confirmed
        return utterance.cut

    def silent_at_s(self, *, is_cutting: bool) -> float | None:
        """Return the time at which the socket counts as dead unless a confirmation comes; None without one.

        Args:
            is_cutting: True while an interrupt is pending, which decides about an overdue utterance.
        """
        queue = self._queue
        if not queue.enabled:
            return None
        unheard = [self.unheard_at_s(one) for one in queue.active if not one.still_unconfirmed]
        silent_at_s = min((at_s for at_s in unheard if at_s is not None), default=None)
        head = queue.active[0] if queue.active and not is_cutting else None
        if head is None or head.overdue_at_s is None or head.still_unconfirmed or not self.is_unproven(head):
            return silent_at_s
        return head.overdue_at_s if silent_at_s is None else min(silent_at_s, head.overdue_at_s)

    def presume(self, utterance: Utterance, now_s: float) -> None:
        """Confirm old audio of an utterance, where no ack comes and nothing else would release the audio."""
        config = self._config
        late_s = config.silence_timeout_s if self._reads else config.presumed_taken_s
        utterance.presume(sent_by_s=now_s - (late_s if self._plays_without_pong else config.unread_timeout_s))

    def lose(self, now_s: float) -> None:
        """Queue unconfirmed audio and ends again, since the socket is lost."""
        self._awaited.clear()
        self._lose_ends(now_s)
        for utterance in self._queue.active:
            if not utterance.is_upstream:
                continue
            if self._was_silent_about(utterance, now_s):
                utterance.suspect()
            if not self.acknowledges:
                self.presume(utterance, now_s)
                if self._plays_without_pong:
                    self._conclude_before_loss(utterance)
                # LiveAvatar may have reported a start on the lost socket, and nothing else would prove it.
                utterance.accept()
            self._queue.clock.take_back(utterance.lose() / BYTE_RATE)

    def _was_silent_about(self, utterance: Utterance, now_s: float) -> bool:
        """Return True when the lost socket counted as dead because an utterance was not confirmed."""
        unheard_at_s = self.unheard_at_s(utterance)
        if unheard_at_s is not None and now_s >= unheard_at_s:
            return True
        is_overdue = utterance.overdue_at_s is not None and now_s >= utterance.overdue_at_s
        return is_overdue and self.is_unproven(utterance)

    def _conclude_before_loss(self, utterance: Utterance) -> None:
        """Confirm audio that must not be sent again: too long, or followed by audio of a later utterance."""
        utterance.delivery.presume_all_but(self._config.max_unconfirmed_s)
        active = self._queue.active
        if any(one.is_upstream for one in active[active.index(utterance) + 1 :]):
            # The end may be missing too and is sent again: an avatar that waits for it would fall silent.
            utterance.delivery.confirm_all()

    # --- ends of played utterances

    def on_played(self, utterance: Utterance) -> None:
        """Keep the end of a played utterance until the end is confirmed: repeated audio waits for it."""
        end = utterance.unconfirmed_end
        if self._queue.resent_s and end is not None:
            self._unproven_ends.append((utterance.upstream_id, end))

    def take_owed_end(self, sending: Sending) -> str | None:
        """Return the upstream id of the next lost end, to send now; None when no end was lost."""
        if not self._owed_ends:
            return None
        upstream_id = self._owed_ends.popleft()
        self._unproven_ends.append((upstream_id, sending))
        return upstream_id

    def forget_ends(self) -> None:
        """Drop all ends, since LiveAvatar has no audio left that waits for an end."""
        self._unproven_ends.clear()
        self._owed_ends.clear()

    def _prove_ends(self, number: int) -> None:
        while self._unproven_ends and self._unproven_ends[0][1].number <= number:
            self._unproven_ends.popleft()

    def _lose_ends(self, now_s: float) -> None:
        since_s = now_s - self._config.presumed_taken_s
        lost = [one for one, sending in self._unproven_ends if self.confirms or sending.at_s > since_s]
        self._unproven_ends.clear()
        self._owed_ends.extendleft(reversed(lost))

    # --- the latest interrupt

    def expect_interrupt(self, command_id: str, sending: Sending) -> None:
        """Await the proof that an interrupt arrived; without proof, it is sent again after a loss."""
        self._unproven_interrupt = command_id, sending
        self.expect_cleared(command_id, sending.number)

    def on_cleared(self, refs: Refs, now_s: float) -> None:
        """Confirm an interrupt: the one that the event names, else the oldest without an answer."""
        command_id = next((one for one in refs.ids if self._awaited.has(Kind.INTERRUPT, one)), "")
        awaited = self._awaited.take(Kind.INTERRUPT, command_id, now_s)
        if awaited is not None:
            self._prove_interrupt(awaited.number)

    @property
    def may_precede_interrupt(self) -> bool:
        """True when a start without a name may belong to speech before the latest interrupt, not read yet.

        Where LiveAvatar confirms nothing, every start would be in doubt, so no start is.
        """
        return self._unproven_interrupt is not None and (self.acknowledges or self._reads)

    def forget_interrupt(self) -> None:
        """Stop waiting for the proof that the latest interrupt arrived."""
        self._unproven_interrupt = None

    def lost_interrupt(self, now_s: float) -> str | None:
        """Return the id of the latest interrupt if it may be lost with its socket, else None."""
        if self._unproven_interrupt is None:
            return None
        command_id, sending = self._unproven_interrupt
        if self.confirms or now_s < sending.at_s + self._config.presumed_taken_s:
            return command_id
        return None

    def _prove_interrupt(self, number: int) -> None:
        """Record that all commands up to a number arrived, the latest interrupt perhaps among them."""
        if self._unproven_interrupt is not None and number >= self._unproven_interrupt[1].number:
            self._unproven_interrupt = None
