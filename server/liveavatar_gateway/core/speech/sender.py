"""Sender: the next command of speech, and the time of the next check."""

from liveavatar_gateway.core.messages import BYTE_RATE, Command, Interrupt, Probe, Speak, SpeakEnd
from liveavatar_gateway.core.speech.acks import AckTracker
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.speech.delivery import Sending
from liveavatar_gateway.core.speech.handover import Handover, SendGate
from liveavatar_gateway.core.speech.interrupts import Interrupts, PendingInterrupt
from liveavatar_gateway.core.speech.pauses import Pauses
from liveavatar_gateway.core.speech.queue import UtteranceQueue
from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.core.states import Outcome

_NEVER_BYTES = 1 << 62


class Sender:
    """Maker of commands from the queue.

    Invariant: bytes of an utterance are sent once and in order, after those of the utterance before it. After a
    loss, unconfirmed audio is sent first. No audio is sent while an interrupt is pending or speech is paused.
    """

    def __init__(
        self,
        config: SpeechConfig,
        queue: UtteranceQueue,
        acks: AckTracker,
        interrupts: Interrupts,
        handover: Handover,
        *,
        pauses: Pauses,
    ) -> None:
        self.deadline_s: float | None = None
        """Time of the next call of `next_command` if no input comes before."""
        self.wake_bytes = 0
        """Buffered bytes of the current utterance at which `next_command` is to be called earlier."""
        self.waits_for_proof = False
        """True when audio waits until LiveAvatar has confirmed earlier audio."""
        self.sent_count = 0
        """Number of the latest packet, end or interrupt."""
        self._config = config
        self._queue = queue
        self._acks = acks
        self._interrupts = interrupts
        self._pauses = pauses
        self._handover = handover

    def next_command(self, now_s: float) -> Command | None:
        """Return the command that is due now; without one, set `deadline_s` and `wake_bytes` and return None."""
        self.deadline_s = None
        self.wake_bytes = _NEVER_BYTES
        self.waits_for_proof = False
        if self._interrupts.pending is not None:
            self._interrupts.drop_void()
        if self._interrupts.pending is not None:
            return self._interrupt(self._interrupts.pending, now_s)
        if not self._queue.enabled or self._pauses.is_paused:
            return None
        if self._handover.gate is SendGate.ALL:
            return self._end_for_handover() or self._probe(now_s)
        return self._end_again(now_s) or self._speak(now_s) or self._probe(now_s)

    def _probe(self, now_s: float) -> Probe | None:
        at_s = self._acks.probe_at_s
        if at_s is None:
            return None
        if now_s < at_s:
            self._wake_by(at_s)
            return None
        self._acks.note_probe(self.sent_count)
        return Probe()

    def _wake_by(self, at_s: float) -> None:
        self.deadline_s = at_s if self.deadline_s is None else min(self.deadline_s, at_s)

    def _sending(self, now_s: float) -> Sending:
        return Sending(now_s, self.sent_count + 1)

    def _interrupt(self, pending: PendingInterrupt, now_s: float) -> Interrupt | None:
        if not self._queue.enabled:
            return None
        command = self._interrupts.send(pending, self._sending(now_s))
        if command is None:
            self.deadline_s = self._interrupts.deadline_s
        else:
            self.sent_count += 1
        return command

    def _end_for_handover(self) -> SpeakEnd | None:
        command = self._handover.next_command()
        if command is not None:
            self.sent_count += 1
            self._acks.expect_end(command.event_id, self.sent_count)
        return command

    def _speak(self, now_s: float) -> Command | None:
        while (utterance := self._to_send(now_s)) is not None:
            if utterance.delivery.again:
                pcm = utterance.delivery.send_again(self._sending(now_s))
                return self._speak_packet(utterance, pcm, now_s)
            if utterance.sealed and utterance.buffered == 0:
                if utterance.has_tail and (speak := self._take(utterance, 0, now_s)):
                    return speak
                if not utterance.is_upstream:
                    self._queue.end(utterance, Outcome.COMPLETED, 0.0)
                    continue
                return self._seal(utterance, now_s)
            command = self._cut(utterance, now_s)
            if command is not None or utterance.buffered:
                return command
            if not utterance.sealed:
                return None
        return None

    def _to_send(self, now_s: float) -> Utterance | None:
        utterance = next((utterance for utterance in self._queue.active if not utterance.end_sent), None)
        if utterance is None or utterance.is_upstream:
            return utterance
        if self._handover.gate is SendGate.NEXT:
            return None
        return utterance if self._may_begin(utterance, now_s) else None

    def _may_begin(self, utterance: Utterance, now_s: float) -> bool:
        if not utterance.received:
            return True
        at_s = self._acks.may_follow_at_s(utterance)
        if at_s is not None and now_s >= at_s:
            return True
        self.waits_for_proof = True
        if at_s is not None:
            self.deadline_s = at_s
        return False

    def _seal(self, utterance: Utterance, now_s: float) -> SpeakEnd:
        due_at_s = now_s + self._queue.clock.lead_s(now_s) + self._config.ended_grace_s
        utterance.send_end(self._sending(now_s), due_at_s=due_at_s)
        return self._end(utterance.upstream_id)

    def _end_again(self, now_s: float) -> SpeakEnd | None:
        upstream_id = self._acks.take_owed_end(self._sending(now_s))
        return None if upstream_id is None else self._end(upstream_id)

    def _end(self, upstream_id: str) -> SpeakEnd:
        self.sent_count += 1
        self._acks.expect_end(upstream_id, self.sent_count)
        return SpeakEnd(upstream_id)

    def _cut(self, utterance: Utterance, now_s: float) -> Speak | None:
        if self._acks.is_full(utterance, self._config.scheduler.max_packet_s):
            self.waits_for_proof = True
            return None
        lead_s = self._queue.clock.lead_s(now_s)
        if not utterance.is_upstream:
            queue_lead_s = self._config.scheduler.queue_lead_s
            if self._queue.active[0] is not utterance and lead_s > queue_lead_s:
                self.deadline_s = now_s + lead_s - queue_lead_s
                return None
            lead_s = 0.0
        while True:
            decision = utterance.scheduler.decide(
                buffered=utterance.buffered,
                sealed=utterance.sealed,
                lead_s=lead_s,
                quiet_s=now_s - utterance.last_chunk_at_s,
            )
            if not decision.cut_bytes:
                self.wake_bytes = decision.wake_bytes
                if decision.wake_in_s is not None:
                    self.deadline_s = now_s + decision.wake_in_s
                return None
            if speak := self._take(utterance, decision.cut_bytes, now_s):
                return speak

    def _take(self, utterance: Utterance, size: int, now_s: float) -> Speak | None:
        # The audio that was heard more than a second ago is released.
        utterance.position_s(self._queue.clock, now_s)
        pcm = utterance.take_packet(size, self._sending(now_s))
        self._queue.share_credit()
        return self._speak_packet(utterance, pcm, now_s) if pcm else None

    def _speak_packet(self, utterance: Utterance, pcm: bytes, now_s: float) -> Speak:
        self.sent_count += 1
        self._acks.expect_packet(utterance, self.sent_count)
        if not self._acks.acknowledges:
            self._acks.presume(utterance, now_s)
        self._note_sent(utterance, len(pcm) / BYTE_RATE, now_s)
        self._queue.totals.upstream_bytes += len(pcm)
        return Speak(utterance.upstream_id, pcm)

    def _note_sent(self, utterance: Utterance, seconds: float, now_s: float) -> None:
        clock = self._queue.clock
        if not utterance.is_upstream:
            utterance.begin_sending(clock.sent_s, now_s)
        ran_dry = utterance.started and clock.lead_s(now_s) <= 0.0
        clock.send(seconds, now_s)
        if ran_dry:
            clock.resume()
