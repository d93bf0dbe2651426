"""Interrupts: their targets, their answers, and the speech that is sent again after them."""

from dataclasses import dataclass

from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.messages import Interrupt, Refs
from liveavatar_gateway.core.outputs import Answer
from liveavatar_gateway.core.speech.acks import AckTracker
from liveavatar_gateway.core.speech.delivery import Sending
from liveavatar_gateway.core.speech.queue import UtteranceQueue
from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.core.states import Outcome


@dataclass(slots=True)
class PendingInterrupt:
    """Interrupt that LiveAvatar has not confirmed yet, with the callers' interrupts that it answers."""

    command_id: str
    targets: list[Utterance]
    """Utterances that the interrupt ends."""
    calls: list[Answer]
    """Callers' interrupts to answer, each with its utterances that waited here and ended at once."""
    sent_at_s: float | None = None
    """Time at which the command was sent on the current socket; None while it is to be sent."""
    was_sent: bool = False
    """True once the command was sent on any socket: then LiveAvatar may have carried it out."""
    is_pause: bool = False
    """True for a pause, which keeps the utterance that is playing."""

    @property
    def is_void(self) -> bool:
        """True when all targets ended before the command was sent."""
        all_over = all(utterance.outcome is not None for utterance in self.targets)
        return bool(self.targets) and all_over and not self.was_sent


class Interrupts:
    """Interrupts of one session, of which at most one is pending: later ones share its command.

    While an interrupt is pending, no speech is sent and no end is inferred, because LiveAvatar drops all its audio
    when it carries the interrupt out. Each caller's interrupt is answered in the queue's `reports`.
    """

    def __init__(self, queue: UtteranceQueue, acks: AckTracker, *, timeout_s: float) -> None:
        self.pending: PendingInterrupt | None = None
        self._queue = queue
        self._acks = acks
        self._timeout_s = timeout_s
        self._call_count = 0

    # --- the caller's side

    def interrupt(self, utterance_id: str) -> int:
        """Interrupt an utterance, or all of them without an id; return the id of the `Answer` that follows.

        Audio of the targets that waits here is dropped at once. When LiveAvatar has audio of a target,
        `agent.interrupt` is the next command, and new audio waits until LiveAvatar has carried it out. Utterances
        behind the named one stay whole, even when their first packets must be sent again.

        Raises:
            UtteranceNotFound: The session never had this utterance.
        """
        targets = self._queue.meant_by(utterance_id)
        interrupt_id = self.next_call_id()
        if self.pending is not None:
            # The pending command drops all audio upstream, and no audio is sent before that: a second one is
            # useless.
            self._join(self.pending, targets)
            ended = self._end([one for one in targets if one not in self.pending.targets])
            answer = Answer(interrupt_id, ended)
            if len(ended) == len(targets):
                self._queue.reports.append(answer)
            else:
                self.pending.calls.append(answer)
            return interrupt_id
        upstream = [utterance for utterance in targets if utterance.is_upstream]
        if upstream:
            self._start(targets, upstream[-1], interrupt_id)
        else:
            self._queue.reports.append(Answer(interrupt_id, self._end(targets)))
        return interrupt_id

    def next_call_id(self) -> int:
        """Return the id of a call of a caller, to match its answer."""
        self._call_count += 1
        return self._call_count

    def _join(self, pending: PendingInterrupt, targets: list[Utterance]) -> None:
        """Make utterances that are playing, which a pause is about to keep, end with the pending command."""
        for utterance in targets:
            if utterance.started and utterance not in pending.targets:
                self._queue.totals.dropped_bytes += utterance.interrupt()
                pending.targets.append(utterance)
        self._queue.share_credit()

    def _start(self, targets: list[Utterance], last: Utterance, interrupt_id: int) -> None:
        """Interrupt all utterances that LiveAvatar has up to the last target, since it drops their audio too."""
        active = self._queue.active
        before = active[: active.index(last) + 1]
        ended = [one for one in active if one in targets or one in before or not one.rewindable]
        for utterance in ended:
            self._queue.totals.dropped_bytes += utterance.interrupt()
        self._queue.share_credit()
        self.pending = PendingInterrupt(self._queue.new_id(), ended, [Answer(interrupt_id, [])])

    def _end(self, utterances: list[Utterance]) -> list[UtteranceEnded]:
        ended = [self._queue.end(utterance, Outcome.INTERRUPTED, 0.0) for utterance in utterances]
        self._queue.totals.interruption_count += bool(ended)
        return ended

    def restart_speech(self) -> None:
        """Interrupt all speech upstream and send it again, without a caller to answer."""
        self.pending = PendingInterrupt(self._queue.new_id(), [], [])

    def pause(self) -> None:
        """Interrupt all speech upstream, to send it again after a pause; shares the command of a pending one."""
        if self.pending is None:
            self.pending = PendingInterrupt(self._queue.new_id(), [], [], is_pause=True)

    def restore(self) -> None:
        """Repeat an interrupt that was pending when the previous process was lost.

        All utterances end, since the audio of those behind the interrupted one was lost with that process.
        """
        if not any(utterance.interrupted for utterance in self._queue.active):
            return
        targets = list(self._queue.active)
        for utterance in targets:
            utterance.interrupt()
        self._queue.share_credit()
        self.pending = PendingInterrupt(self._queue.new_id(), targets, [], was_sent=True)

    # --- sending and loss

    def drop_void(self) -> None:
        """Resolve a pending interrupt whose targets have all ended before it was sent."""
        if self.pending is not None and self.pending.is_void:
            self._queue.reports.extend(self.pending.calls)
            self.pending = None

    def send(self, pending: PendingInterrupt, sending: Sending) -> Interrupt | None:
        """Return the command of the pending interrupt, to send now; None when it was sent before."""
        if pending.sent_at_s is not None:
            return None
        pending.sent_at_s = sending.at_s
        pending.was_sent = True
        self._acks.expect_interrupt(pending.command_id, sending)
        return Interrupt(pending.command_id)

    @property
    def deadline_s(self) -> float | None:
        """Time at which a sent interrupt counts as carried out without an answer; None when none is pending."""
        if self.pending is None or self.pending.sent_at_s is None:
            return None
        return self.pending.sent_at_s + self._timeout_s

    def tick(self, now_s: float) -> None:
        """Count a pending interrupt as carried out after its deadline."""
        deadline_s = self.deadline_s
        if deadline_s is not None and now_s >= deadline_s:
            self.finish(now_s)

    def lose(self, now_s: float) -> None:
        """Send the pending interrupt again, since the socket is lost.

        The latest interrupt is sent again too if it may be lost, even when an end that LiveAvatar reported by
        itself was taken for its effect. Audio that was sent after it is not confirmed, or the interrupt would be
        proven, so it drops only audio that is sent again anyway.
        """
        if self.pending is None and (command_id := self._acks.lost_interrupt(now_s)) is not None:
            self.pending = PendingInterrupt(command_id, [], [], was_sent=True)
        if self.pending is not None:
            self.pending.sent_at_s = None
            for utterance in self.pending.targets:
                utterance.delivery.again.clear()

    def will_repeat(self, utterance: Utterance) -> bool:
        """Return True when the pending interrupt drops the audio of an utterance that is not its target.

        That utterance may start upstream just before the drop. It is sent again from its beginning, so this start
        is not reported, and its audio must be kept.
        """
        return self.pending is not None and utterance not in self.pending.targets

    # --- LiveAvatar's side

    def on_cleared(self, refs: Refs, now_s: float) -> None:
        """Handle LiveAvatar's report that an interrupt was carried out."""
        self._acks.on_cleared(refs, now_s)
        pending = self.pending
        if pending is None or pending.sent_at_s is None:
            return
        if pending.command_id in refs.ids or not refs.ids or self._concerns(pending, refs):
            self.finish(now_s)

    def on_stopped(self, refs: Refs, now_s: float) -> bool:
        """Handle the end of an utterance; return True when it proves the pending interrupt was carried out."""
        pending = self.pending
        if pending is None or pending.sent_at_s is None or not self._concerns(pending, refs):
            return False
        self.finish(now_s)
        return True

    def on_interrupted(self, refs: Refs, now_s: float) -> None:
        """Handle the interruption of an utterance, which proves that the pending interrupt was carried out."""
        pending = self.pending
        if pending is not None and pending.sent_at_s is not None and not self._queue.is_over(refs):
            self.finish(now_s)

    def on_silent(self, now_s: float) -> bool:
        """Handle the end of talking; return True when it proves that the pending interrupt was carried out."""
        if self.pending is None or self.pending.sent_at_s is None:
            return False
        self.finish(now_s)
        return True

    def _concerns(self, pending: PendingInterrupt, refs: Refs) -> bool:
        """Return True when an event is about a target of the interrupt, or names no known utterance."""
        if self._queue.is_over(refs):
            return False
        utterance = self._queue.named_by(refs)
        return utterance is None or utterance in pending.targets

    def finish(self, now_s: float) -> None:
        """Finish the pending interrupt, if any: its targets end, and all other speech upstream waits again."""
        pending, self.pending = self.pending, None
        if pending is None:
            return
        queue = self._queue
        for utterance in [*queue.active] if pending.is_pause else pending.targets:
            queue.infer_start(utterance, now_s)
            utterance.position_s(queue.clock, now_s)
        queue.clock.cut(now_s)
        self._acks.forget_ends()
        ended = self._end([one for one in pending.targets if one.outcome is None])
        queue.rewind()
        queue.reports.extend(Answer(call.interrupt_id, [*ended, *call.ended]) for call in pending.calls)
