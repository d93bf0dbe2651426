"""What is heard: starts and ends that LiveAvatar tells, and those it leaves out, concluded by time."""

from liveavatar_gateway.core.errors import UpstreamStalled
from liveavatar_gateway.core.messages import Refs
from liveavatar_gateway.core.speech.acks import AckTracker
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.speech.handover import Handover
from liveavatar_gateway.core.speech.interrupts import Interrupts
from liveavatar_gateway.core.speech.queue import UtteranceQueue
from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.core.states import Outcome

_LOOK_AGAIN_S = 0.5
"""How long after a look at an utterance whose end is overdue, and of which proof is missing, the next follows."""


class PlaybackTracker:
    """Decides when utterances in line start and end.

    Builds of LiveAvatar tell it by name, by pose, by both, or not at all. What comes first counts, and the rest
    changes nothing.
    """

    def __init__(
        self,
        config: SpeechConfig,
        line: UtteranceQueue,
        confirmation: AckTracker,
        interrupts: Interrupts,
        parting: Handover,
    ) -> None:
        self._config = config
        self._line = line
        self._confirmation = confirmation
        self._interrupts = interrupts
        self._parting = parting
        self._says_started = False
        """Whether a start was ever told by name."""
        self._is_stuck = False
        """True when the socket took nothing at that time."""
        self._looked_at_s = 0.0
        """Time of the latest `tick`."""
        self._talking = False
        """Whether the avatar has the pose of one that talks."""

    # --- LiveAvatar's side

    def on_started(self, refs: Refs, now_s: float) -> None:
        """The first sound of an utterance is out."""
        line = self._line
        line.tells_starts = self._says_started = True
        if line.is_over(refs):
            return
        utterance = line.named_by(refs) or self._next_heard()
        if utterance is not None and utterance.is_upstream:
            self._hear(utterance, now_s, is_named=utterance.upstream_id in refs.ids)

    def on_talking(self, now_s: float) -> None:
        """The avatar talks: the same as a start, unless the utterance that plays is known already."""
        self._line.tells_starts = self._talking = True
        utterance = self._next_heard()
        # Where nothing is confirmed, the pose may be of cut speech, which a start with a name could not be.
        is_in_doubt = self._says_started and not self._confirmation.has_confirmed
        if utterance is not None and not self._line.speaking and not is_in_doubt:
            self._hear(utterance, now_s, is_named=False)

    def _next_heard(self) -> Utterance | None:
        """The one that a start is about which names none, if any of it was sent."""
        for utterance in self._line.active:
            if not utterance.started:
                return utterance if utterance.is_upstream else None
            if utterance.delivery.again:
                # It is not all there, so what is behind it is not heard: its own start was concluded before.
                return None
        return None

    def _hear(self, utterance: Utterance, now_s: float, *, is_named: bool) -> None:
        if utterance.started or self._interrupts.will_repeat(utterance):
            return
        if not is_named and self._confirmation.may_precede_interrupt:
            return
        self._confirmation.learn_from_start(utterance)
        if self._interrupts.pending is None:
            # It was sent behind the last interrupt, for all before that is over. Kept as unproven, that one would
            # go out again behind a loss and cut what is heard here, whose audio is gone.
            self._confirmation.forget_interrupt()
        if not is_named and utterance.start_may_be_lost:
            # Its own start may have been told to the lost socket, so this may be of a later one, whose own start
            # will then not come. Where no acks come either, nothing else would ever be a sign of that one.
            for later in self._line.active[self._line.active.index(utterance) + 1 :]:
                later.miss_start(accepted=not self._confirmation.acknowledges)
        self._line.start(utterance, now_s)

    def on_ended(self, refs: Refs, now_s: float) -> None:
        """An utterance was played to its end. One that came after an interrupt is ignored."""
        line = self._line
        if self._interrupts.on_stopped(refs, now_s) or line.is_over(refs):
            return
        utterance = line.named_by(refs)
        if utterance is None and line.active and line.active[0].started:
            utterance = line.active[0]
        if utterance is not None and (utterance.end_sent or utterance is self._parting.utterance):
            self._hear_end(utterance, now_s)

    def on_silent(self, now_s: float) -> None:
        """The avatar stopped talking. It ends the utterance that plays, unless that one merely ran dry."""
        self._talking = False
        if self._interrupts.on_silent(now_s):
            return
        line = self._line
        head = line.active[0] if line.active else None
        if head is None or not head.started or not (head.end_sent or head is self._parting.utterance):
            return
        if head.sent_s - head.position_s(line.clock, now_s) > self._config.started_timeout_s:
            return
        if not self._confirmation.is_unproven(head):
            self._hear_end(head, now_s)

    def _hear_end(self, utterance: Utterance, now_s: float) -> None:
        if utterance is self._parting.utterance:
            self._parting.is_said = True
        else:
            self._confirmation.note_over(utterance)
            self._line.complete_through(utterance, now_s)

    def forget_pose(self) -> None:
        """Another avatar goes on, of which no pose is known."""
        self._talking = False

    # --- time

    @property
    def deadline_s(self) -> float | None:
        """When `tick` may have something to conclude."""
        if not self._line.active:
            return None
        if self._is_stuck:
            return self._looked_at_s + _LOOK_AGAIN_S
        head = self._line.active[0]
        overdue_at_s = self._conclude_at_s(head)
        if overdue_at_s is None and (overdue_at_s := self._overdue_at_s(head)) is not None:
            # Pongs and most acks wake nobody, and may have brought the proof that is waited for.
            overdue_at_s = max(overdue_at_s, self._looked_at_s + _LOOK_AGAIN_S)
        started_by_s = self._started_by_s(head) if head.accepted else None
        if started_by_s is None or overdue_at_s is None:
            return overdue_at_s if started_by_s is None else started_by_s
        return min(started_by_s, overdue_at_s)

    def tick(self, now_s: float, *, is_stuck: bool = False) -> None:
        """Conclude what LiveAvatar should have said by now about the first in line. There must be one.

        Nothing is concluded while the socket is stuck: what LiveAvatar did not take it cannot have played.
        """
        self._is_stuck = is_stuck
        self._looked_at_s = now_s
        self._line.note_turn(now_s)
        if is_stuck:
            return
        head = self._line.active[0]
        started_by_s = self._started_by_s(head)
        if started_by_s is not None and now_s >= started_by_s and head.accepted:
            if self._owes_a_start(head):
                self._revive(head)
                return
            self._line.start(head, now_s, inferred=True)
        conclude_at_s = self._conclude_at_s(head)
        if conclude_at_s is not None and now_s >= conclude_at_s:
            self._conclude(head)

    def _started_by_s(self, head: Utterance) -> float | None:
        if head.started or head.first_sent_at_s is None or (self._confirmation.confirms and not head.confirmed):
            return None
        if self._owes_a_start(head):
            return max(head.first_sent_at_s, self._line.turn_since_s) + self._config.never_started_s
        return head.first_sent_at_s + self._config.started_timeout_s

    def _conclude_at_s(self, head: Utterance) -> float | None:
        """Return when the head ends without LiveAvatar's word; None while another socket may still bring it.

        What is missing goes over another socket once, see `AckTracker.silent_at_s`. When that one brings no more
        proof, the utterance ends.
        """
        confirmation = self._confirmation
        if not head.still_unconfirmed:
            waits = (head.accepted or confirmation.reads) and confirmation.is_unproven(head)
            return None if waits else self._overdue_at_s(head)
        at_s, unheard_at_s = self._overdue_at_s(head), confirmation.unheard_at_s(head)
        if at_s is None or unheard_at_s is None:
            return unheard_at_s if at_s is None else at_s
        return min(at_s, unheard_at_s)

    def _overdue_at_s(self, head: Utterance) -> float | None:
        """When LiveAvatar should have said something about the head: that it ended, or that it has any of it."""
        if head.accepted and not head.started and self._owes_a_start(head):
            return None
        if head.accepted or head.first_sent_at_s is None or not self._line.enabled:
            return head.overdue_at_s
        confirms = self._confirmation.confirms
        if head.overdue_at_s is not None and confirms:
            return head.overdue_at_s
        # Where nothing is acknowledged, its start is the first sign of it, and that waits for all before it.
        since_s = max(head.first_sent_at_s, self._line.turn_since_s, self._confirmation.moved_at_s)
        # Where nothing is confirmed either, what was sent again may have been there, and is said first.
        repeated_s = 0.0 if confirms else self._line.repeated_s
        return max(head.overdue_at_s or 0.0, since_s + self._config.ended_grace_s) + repeated_s

    def _owes_a_start(self, head: Utterance) -> bool:
        """Whether silence about an utterance that LiveAvatar took means that it is not heard.

        Only where starts were told by name, since a pose need not change between two utterances.
        """
        tells = self._says_started and self._confirmation.acknowledges
        return tells and head.rewindable and not (head.start_may_be_lost or self._talking)

    def _revive(self, head: Utterance) -> None:
        """It was taken and is not heard: cut what LiveAvatar has, and speak it anew. The second time it fails."""
        if not head.retried:
            head.retry()
            self._interrupts.restart_speech()
            return
        self._fail(
            head,
            "LiveAvatar took this utterance twice and began to speak neither; speak it again, or in a new session",
        )

    def _conclude(self, head: Utterance) -> None:
        if head.still_unconfirmed and head.accepted and not self._confirmation.reads:
            # Its acks stopped, and pongs never came: silence proves nothing, so the playout clock decides.
            head.confirm_all()
            if not head.end_sent:
                return
        if head.accepted and not self._confirmation.is_unproven(head):
            self._line.end(head, Outcome.COMPLETED, head.sent_s, inferred=True)
            return
        self._fail(
            head,
            "LiveAvatar gave no sign of having taken all of this utterance; speak it again, or in a new session",
        )
        if self._confirmation.reads:
            # Whoever is told that it failed may say it again, so it must not be spoken when LiveAvatar reads on.
            self._interrupts.restart_speech()

    def _fail(self, head: Utterance, message: str) -> None:
        head.fail(UpstreamStalled(message, utterance_id=head.id))
        self._line.end(head, Outcome.FAILED, 0.0)
