"""Playback: starts and ends that LiveAvatar reports, and those that are inferred from time."""

from liveavatar_gateway.core.errors import UpstreamStalled
from liveavatar_gateway.core.messages import Refs
from liveavatar_gateway.core.speech.acks import AckTracker
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.speech.handover import Handover
from liveavatar_gateway.core.speech.interrupts import Interrupts
from liveavatar_gateway.core.speech.queue import UtteranceQueue
from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.core.states import Outcome

_RECHECK_S = 0.5
"""Period of checks of an utterance whose end is overdue and not confirmed."""


class PlaybackTracker:
    """Starts and ends of queued utterances.

    Builds of LiveAvatar report a start or an end by name, by pose, by both, or not at all. The first report
    counts, and later ones change nothing.
    """

    def __init__(
        self,
        config: SpeechConfig,
        queue: UtteranceQueue,
        acks: AckTracker,
        interrupts: Interrupts,
        handover: Handover,
    ) -> None:
        self._config = config
        self._queue = queue
        self._acks = acks
        self._interrupts = interrupts
        self._handover = handover
        self._names_starts = False
        """True once a start was reported by name."""
        self._is_stuck = False
        """True when the socket stood still at the latest `tick`."""
        self._ticked_at_s = 0.0
        """Time of the latest `tick`."""
        self._talking = False
        """True while the avatar has the talking pose."""

    # --- LiveAvatar's side

    def on_started(self, refs: Refs, now_s: float) -> None:
        """Handle the start of an utterance."""
        queue = self._queue
        queue.reports_starts = self._names_starts = True
        if queue.is_over(refs):
            return
        utterance = queue.named_by(refs) or self._next_to_start()
        if utterance is not None and utterance.is_upstream:
            self._on_start(utterance, now_s, is_named=utterance.upstream_id in refs.ids)

    def on_talking(self, now_s: float) -> None:
        """Handle the talking pose as a start, unless an utterance is playing already."""
        self._queue.reports_starts = self._talking = True
        utterance = self._next_to_start()
        # Where nothing is confirmed, the pose may belong to interrupted speech; a start with a name cannot.
        is_in_doubt = self._names_starts and not self._acks.has_confirmed
        if utterance is not None and not self._queue.speaking and not is_in_doubt:
            self._on_start(utterance, now_s, is_named=False)

    def _next_to_start(self) -> Utterance | None:
        """Return the utterance that a start without a name is about; None when no audio of that one was sent."""
        for utterance in self._queue.active:
            if not utterance.started:
                return utterance if utterance.is_upstream else None
            if utterance.delivery.again:
                # LiveAvatar lacks a part of this one, so no later one plays, and its own start is recorded.
                return None
        return None

    def _on_start(self, utterance: Utterance, now_s: float, *, is_named: bool) -> None:
        if utterance.started or self._interrupts.will_repeat(utterance):
            return
        if not is_named and self._acks.may_precede_interrupt:
            return
        self._acks.observe_start(utterance)
        if self._interrupts.pending is None:
            # All utterances before the last interrupt have ended, so this start proves that the interrupt arrived.
            # Otherwise a loss would send it again, and it would cut this utterance, whose audio is released.
            self._acks.forget_interrupt()
        if not is_named and utterance.start_may_be_lost:
            # The lost socket may have had this start, so that the report belongs to a later utterance, whose own
            # start will then not come. Where no acks come either, the later one would have no other sign.
            for later in self._queue.active[self._queue.active.index(utterance) + 1 :]:
                later.miss_start(accepted=not self._acks.acknowledges)
        self._queue.start(utterance, now_s)

    def on_ended(self, refs: Refs, now_s: float) -> None:
        """Handle the end of an utterance; an event that comes after an interrupt is ignored."""
        queue = self._queue
        if self._interrupts.on_stopped(refs, now_s) or queue.is_over(refs):
            return
        utterance = queue.named_by(refs)
        if utterance is None and queue.active and queue.active[0].started:
            head = queue.active[0]
            # A build that acknowledges audio does so before it plays the audio, so an end without a name does not
            # belong to an utterance without any ack.
            utterance = head if head.confirmed or not self._acks.acknowledges else None
        if utterance is not None and (utterance.end_sent or utterance is self._handover.utterance):
            self._on_end(utterance, now_s)

    def on_silent(self, now_s: float) -> None:
        """End the playing utterance, since the avatar stopped talking, unless it merely ran dry."""
        self._talking = False
        if self._interrupts.on_silent(now_s):
            return
        queue = self._queue
        head = queue.active[0] if queue.active else None
        if head is None or not head.started or not (head.end_sent or head is self._handover.utterance):
            return
        if head.sent_s - head.position_s(queue.clock, now_s) > self._config.started_timeout_s:
            return
        if not self._acks.is_unproven(head):
            self._on_end(head, now_s)

    def _on_end(self, utterance: Utterance, now_s: float) -> None:
        if utterance is self._handover.utterance:
            self._handover.is_played = True
        else:
            self._acks.on_played(utterance)
            self._queue.complete_through(utterance, now_s)

    def forget_pose(self) -> None:
        """Forget the pose, since another avatar takes over."""
        self._talking = False

    # --- time

    @property
    def deadline_s(self) -> float | None:
        """Time at which `tick` may infer a start or an end."""
        if not self._queue.active:
            return None
        if self._is_stuck:
            return self._ticked_at_s + _RECHECK_S
        head = self._queue.active[0]
        overdue_at_s = self._conclude_at_s(head)
        if overdue_at_s is None and (overdue_at_s := self._overdue_at_s(head)) is not None:
            # Pongs and most acks do not lead to a `tick`, and may have brought the missing proof.
            overdue_at_s = max(overdue_at_s, self._ticked_at_s + _RECHECK_S)
        started_by_s = self._started_by_s(head) if head.accepted else None
        if started_by_s is None or overdue_at_s is None:
            return overdue_at_s if started_by_s is None else started_by_s
        return min(started_by_s, overdue_at_s)

    def tick(self, now_s: float, *, is_stuck: bool = False) -> None:
        """Infer overdue reports about the first utterance; the queue must not be empty.

        Nothing is inferred while the socket is stuck: LiveAvatar cannot have played audio that it did not read.
        """
        self._is_stuck = is_stuck
        self._ticked_at_s = now_s
        self._queue.update_head(now_s)
        if is_stuck:
            return
        head = self._queue.active[0]
        started_by_s = self._started_by_s(head)
        if started_by_s is not None and now_s >= started_by_s and head.accepted:
            if self._expects_start(head):
                self._retry(head)
                return
            self._queue.start(head, now_s, inferred=True)
        conclude_at_s = self._conclude_at_s(head)
        if conclude_at_s is not None and now_s >= conclude_at_s:
            self._conclude(head)

    def _started_by_s(self, head: Utterance) -> float | None:
        if head.started or head.first_sent_at_s is None or (self._acks.confirms and not head.confirmed):
            return None
        if self._expects_start(head):
            return max(head.first_sent_at_s, self._queue.head_since_s) + self._config.never_started_s
        return head.first_sent_at_s + self._config.started_timeout_s

    def _conclude_at_s(self, head: Utterance) -> float | None:
        """Return when the head ends without a report; None while another socket may still bring one.

        Missing audio is sent over another socket once, see `AckTracker.silent_at_s`. When that socket brings no
        proof either, the utterance ends.
        """
        acks = self._acks
        if not head.still_unconfirmed:
            waits = (head.accepted or acks.reads) and acks.is_unproven(head)
            return None if waits else self._overdue_at_s(head)
        at_s, unheard_at_s = self._overdue_at_s(head), acks.unheard_at_s(head)
        if at_s is None or unheard_at_s is None:
            return unheard_at_s if at_s is None else at_s
        return min(at_s, unheard_at_s)

    def _overdue_at_s(self, head: Utterance) -> float | None:
        """Return the time by which LiveAvatar should have reported the end of the head, or accepted any of it."""
        if head.accepted and not head.started and self._expects_start(head):
            return None
        if head.accepted or head.first_sent_at_s is None or not self._queue.enabled:
            return head.overdue_at_s
        confirms = self._acks.confirms
        if head.overdue_at_s is not None and confirms:
            return head.overdue_at_s
        # Without acks, a start is the first sign of an utterance, and comes after all earlier ones.
        since_s = max(head.first_sent_at_s, self._queue.head_since_s, self._acks.moved_at_s)
        # Without pongs too, repeated audio may have been there before, and is then played twice first.
        resent_s = 0.0 if confirms else self._queue.resent_s
        return max(head.overdue_at_s or 0.0, since_s + self._config.ended_grace_s) + resent_s

    def _expects_start(self, head: Utterance) -> bool:
        """Return True when a missing start means that an accepted utterance is not played.

        Only where starts were reported by name, since a pose need not change between two utterances.
        """
        tells = self._names_starts and self._acks.acknowledges
        return tells and head.rewindable and not (head.start_may_be_lost or self._talking)

    def _retry(self, head: Utterance) -> None:
        """Send an accepted utterance that is not played again, once; the second time the utterance fails."""
        if not head.retried:
            head.retry()
            self._interrupts.restart_speech()
            return
        self._fail(
            head,
            "LiveAvatar accepted this utterance twice and did not speak it; send it again, or in a new session",
        )

    def _conclude(self, head: Utterance) -> None:
        if head.still_unconfirmed and head.accepted and not self._acks.reads:
            # Acks stopped and pongs never came, so silence proves nothing and the playout clock decides.
            head.confirm_all()
            if not head.end_sent:
                return
        if head.accepted and not self._acks.is_unproven(head):
            self._queue.end(head, Outcome.COMPLETED, head.sent_s, inferred=True)
            return
        self._fail(
            head,
            "LiveAvatar did not confirm all of this utterance; send it again, or in a new session",
        )
        if self._acks.reads:
            # A caller that sees the failure may repeat the utterance, so LiveAvatar must not speak it later too.
            self._interrupts.restart_speech()

    def _fail(self, head: Utterance, message: str) -> None:
        head.fail(UpstreamStalled(message, utterance_id=head.id))
        self._queue.end(head, Outcome.FAILED, 0.0)
