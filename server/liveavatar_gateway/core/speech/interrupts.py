"""Barge-in: what an interrupt cuts, what answers it, and what is spoken again after it."""

from dataclasses import dataclass

from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.messages import Interrupt, Refs
from liveavatar_gateway.core.speech.acks import AckTracker
from liveavatar_gateway.core.speech.delivery import Sending
from liveavatar_gateway.core.speech.queue import UtteranceQueue
from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.core.states import Outcome


@dataclass(slots=True)
class PendingInterrupt:
    """An interrupt on its way: what it cuts, and who wants to know."""

    command_id: str
    cut: list[Utterance]
    tickets: list[tuple[int, list[UtteranceEnded]]]
    """Each with the utterances that were waiting here and ended at once."""
    sent_at_s: float | None = None
    was_sent: bool = False
    """Whether it went out, be it over a socket that was lost: then it may have been carried out."""

    @property
    def is_void(self) -> bool:
        """Whether all that it was to cut ended before it went out."""
        all_over = all(utterance.outcome is not None for utterance in self.cut)
        return bool(self.cut) and all_over and not self.was_sent


class Interrupts:
    """Interrupts of one session, of which one at most is on its way: others that meet it share its command.

    While it is, no speech goes out and nothing is concluded: upstream drops all it has when it carries it out.
    What each has ended is in `answers` by ticket, for the owner to empty.
    """

    def __init__(self, line: UtteranceQueue, confirmation: AckTracker, *, timeout_s: float) -> None:
        self.answers: list[tuple[int, list[UtteranceEnded]]] = []
        self.pending: PendingInterrupt | None = None
        """The one on its way."""
        self._line = line
        self._confirmation = confirmation
        self._timeout_s = timeout_s
        self._tickets = 0

    # --- the caller's side

    def interrupt(self, utterance_id: str) -> int:
        """Cut an utterance, or all of them when no id is given; the answer comes under the returned ticket.

        What waits here is dropped at once. When some of it is upstream already, `agent.interrupt` is next in
        line, and new audio is held until it was carried out. An utterance that waits behind the named one is
        kept whole, even when its first packets must be sent again.

        Raises:
            UtteranceNotFound: this session never had it.
        """
        targets = self._line.meant_by(utterance_id)
        self._tickets += 1
        ticket = self._tickets
        if self.pending is not None:
            # It drops all that is upstream, and nothing follows before it is done: a second has nothing to cut.
            ended = self._end([one for one in targets if one not in self.pending.cut])
            waiting = self.answers if len(ended) == len(targets) else self.pending.tickets
            waiting.append((ticket, ended))
            return ticket
        upstream = [utterance for utterance in targets if utterance.is_upstream]
        if upstream:
            self._start(targets, upstream[-1], ticket)
        else:
            self.answers.append((ticket, self._end(targets)))
        return ticket

    def _start(self, targets: list[Utterance], last: Utterance, ticket: int) -> None:
        """Upstream drops all it has, so everything it has up to the last target is cut too."""
        active = self._line.active
        before = active[: active.index(last) + 1]
        cut = [one for one in active if one in targets or one in before or not one.rewindable]
        for utterance in cut:
            self._line.totals.dropped_bytes += utterance.interrupt()
        self._line.reckon_credit()
        self.pending = PendingInterrupt(self._line.new_id(), cut, [(ticket, [])])

    def _end(self, utterances: list[Utterance]) -> list[UtteranceEnded]:
        ended = [self._line.end(utterance, Outcome.INTERRUPTED, 0.0) for utterance in utterances]
        self._line.totals.interruption_count += bool(ended)
        return ended

    def speak_anew(self) -> None:
        """Cut what LiveAvatar has, and speak all of it again: no caller asked, so none is answered."""
        self.pending = PendingInterrupt(self._line.new_id(), [], [])

    def restore(self) -> None:
        """Interrupt again what was being cut when the process before was lost, and all else it left in line.

        Nobody has what is behind it in LiveAvatar any more.
        """
        if not any(utterance.interrupted for utterance in self._line.active):
            return
        cut = list(self._line.active)
        for utterance in cut:
            utterance.interrupt()
        self._line.reckon_credit()
        self.pending = PendingInterrupt(self._line.new_id(), cut, [], was_sent=True)

    # --- on its way

    def drop_void(self) -> None:
        """What the pending one was to cut may have ended meanwhile: then nothing upstream is to be dropped."""
        if self.pending is not None and self.pending.is_void:
            self.answers.extend(self.pending.tickets)
            self.pending = None

    def send(self, barge: PendingInterrupt, sending: Sending) -> Interrupt | None:
        """The command of the pending one, which goes out now; None when it did."""
        if barge.sent_at_s is not None:
            return None
        barge.sent_at_s = sending.at_s
        barge.was_sent = True
        self._confirmation.expect_cut(barge.command_id, sending)
        return Interrupt(barge.command_id)

    @property
    def deadline_s(self) -> float | None:
        """When the pending one is taken for carried out if nothing answers it."""
        if self.pending is None or self.pending.sent_at_s is None:
            return None
        return self.pending.sent_at_s + self._timeout_s

    def tick(self, now_s: float) -> None:
        """Take one that nothing answers for carried out."""
        deadline_s = self.deadline_s
        if deadline_s is not None and now_s >= deadline_s:
            self.finish(now_s)

    def lose(self, now_s: float) -> None:
        """The socket is gone, so the pending one goes out again.

        So does one that is lost, although an end that came by itself was taken for what it did: nothing that was
        sent behind it is confirmed, or it would be proven, so nothing but repeats can be cut.
        """
        if self.pending is None and (command_id := self._confirmation.lost_cut(now_s)) is not None:
            self.pending = PendingInterrupt(command_id, [], [], was_sent=True)
        if self.pending is not None:
            self.pending.sent_at_s = None
            for utterance in self.pending.cut:
                utterance.delivery.again.clear()

    def will_repeat(self, utterance: Utterance) -> bool:
        """Whether the pending one drops what is upstream of an utterance that it does not mean.

        It may start upstream just before that. It is spoken again from its beginning, so this start is not told,
        and its audio must be kept.
        """
        return self.pending is not None and utterance not in self.pending.cut

    # --- LiveAvatar's side

    def on_cleared(self, refs: Refs, now_s: float) -> None:
        """An interrupt was carried out."""
        self._confirmation.on_cleared(refs, now_s)
        barge = self.pending
        if barge is None or barge.sent_at_s is None:
            return
        if barge.command_id in refs.ids or not refs.ids or self._concerns(barge, refs):
            self.finish(now_s)

    def on_stopped(self, refs: Refs, now_s: float) -> bool:
        """An utterance was cut or ended; whether that shows that the pending one was carried out."""
        barge = self.pending
        if barge is None or barge.sent_at_s is None or not self._concerns(barge, refs):
            return False
        self.finish(now_s)
        return True

    def on_silent(self, now_s: float) -> bool:
        """The avatar stopped talking; whether that shows that the pending one was carried out."""
        if self.pending is None or self.pending.sent_at_s is None:
            return False
        self.finish(now_s)
        return True

    def _concerns(self, barge: PendingInterrupt, refs: Refs) -> bool:
        """Whether an event is about an utterance that is being cut; one without usable ids is."""
        if self._line.is_over(refs):
            return False
        utterance = self._line.named_by(refs)
        return utterance is None or utterance in barge.cut

    def finish(self, now_s: float) -> None:
        """Take the pending one, if any, for carried out: what it cut ends, what else was upstream waits again."""
        barge, self.pending = self.pending, None
        if barge is None:
            return
        line = self._line
        for utterance in barge.cut:
            line.infer_start(utterance, now_s)
            utterance.position_s(line.clock, now_s)
        line.clock.cut(now_s)
        self._confirmation.forget_ends()
        ended = self._end([one for one in barge.cut if one.outcome is None])
        line.rewind()
        self.answers.extend((ticket, ended + others) for ticket, others in barge.tickets)
