"""What is heard: starts and ends that LiveAvatar tells, and those it leaves out, concluded by time."""

from liveavatar_gateway.core.confirmation import Confirmation
from liveavatar_gateway.core.errors import UpstreamStalled
from liveavatar_gateway.core.interrupts import Interrupts
from liveavatar_gateway.core.line import Line
from liveavatar_gateway.core.messages import Refs
from liveavatar_gateway.core.parting import Parting
from liveavatar_gateway.core.speech_config import SpeechConfig
from liveavatar_gateway.core.states import Outcome
from liveavatar_gateway.core.utterance import Utterance


class Hearing:
    """Decides when utterances in line start and end.

    Builds of LiveAvatar tell it by name, by pose, by both, or not at all. What comes first counts, and the rest
    changes nothing.
    """

    def __init__(
        self,
        config: SpeechConfig,
        line: Line,
        confirmation: Confirmation,
        interrupts: Interrupts,
        parting: Parting,
    ) -> None:
        self._config = config
        self._line = line
        self._confirmation = confirmation
        self._interrupts = interrupts
        self._parting = parting
        self._says_started = False
        """Whether a start was ever told by name."""
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
        if utterance is not None and utterance.first_sent_at_s is not None:
            self._hear(utterance, now_s)

    def on_talking(self, now_s: float) -> None:
        """The avatar talks: the same as a start, unless the utterance that plays is known already."""
        self._line.tells_starts = self._talking = True
        utterance = self._next_heard()
        if utterance is not None and not self._line.speaking:
            self._hear(utterance, now_s)

    def _next_heard(self) -> Utterance | None:
        """The one that a start is about which names none, if any of it was sent."""
        for utterance in self._line.active:
            if not utterance.started:
                return None if utterance.first_sent_at_s is None else utterance
            if utterance.delivery.again:
                # It is not all there, so what is behind it is not heard: its own start was concluded before.
                return None
        return None

    def _hear(self, utterance: Utterance, now_s: float) -> None:
        if utterance.started or self._interrupts.will_repeat(utterance):
            return
        self._confirmation.learn_from_start(utterance)
        if self._interrupts.pending is None:
            # It was sent behind the last interrupt, for all before that is over.
            self._confirmation.forget_cut()
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
        head = self._line.active[0]
        overdue_at_s = self._overdue_at_s(head)
        started_by_s = self._started_by_s(head) if head.signed else None
        if started_by_s is None or overdue_at_s is None:
            return overdue_at_s if started_by_s is None else started_by_s
        return min(started_by_s, overdue_at_s)

    def tick(self, now_s: float) -> None:
        """Conclude what LiveAvatar should have said by now about the first in line. There must be one."""
        self._line.note_turn(now_s)
        head = self._line.active[0]
        started_by_s = self._started_by_s(head)
        if started_by_s is not None and now_s >= started_by_s and head.signed:
            if self._owes_a_start(head):
                self._revive(head)
                return
            self._line.start(head, now_s, inferred=True)
        overdue_at_s = self._overdue_at_s(head)
        if overdue_at_s is not None and now_s >= overdue_at_s:
            if head.signed and self._confirmation.is_unproven(head) and not head.doubted:
                # Its socket is taken for dead now, see `Confirmation.silent_at_s`, and what is missing goes over
                # another.
                return
            self._conclude(head)

    def _started_by_s(self, head: Utterance) -> float | None:
        if head.started or head.first_sent_at_s is None or (self._confirmation.confirms and not head.confirmed):
            return None
        if self._owes_a_start(head):
            return max(head.first_sent_at_s, self._line.turn_since_s) + self._config.never_started_s
        return head.first_sent_at_s + self._config.started_timeout_s

    def _overdue_at_s(self, head: Utterance) -> float | None:
        """When LiveAvatar should have said something about the head: that it ended, or that it has any of it."""
        if head.signed and not head.started and self._owes_a_start(head):
            return None
        if head.overdue_at_s is not None or head.signed or head.first_sent_at_s is None or not self._line.enabled:
            return head.overdue_at_s
        # Where nothing is acknowledged, its start is the first sign of it, and that waits for all before it.
        return max(head.first_sent_at_s, self._line.turn_since_s) + self._config.ended_grace_s

    def _owes_a_start(self, head: Utterance) -> bool:
        """Whether silence about an utterance that LiveAvatar took means that it is not heard.

        Only where starts were told by name, since a pose need not change between two utterances.
        """
        tells = self._says_started and self._confirmation.acknowledges
        return tells and head.rewindable and not (head.blind or self._talking)

    def _revive(self, head: Utterance) -> None:
        """It was taken and is not heard: cut what LiveAvatar has, and speak it anew. The second time it fails."""
        if not head.revived:
            head.revived = True
            self._interrupts.speak_anew()
            return
        self._fail(
            head,
            "LiveAvatar took this utterance twice and began to speak neither; speak it again, or in a new session",
        )

    def _conclude(self, head: Utterance) -> None:
        if head.signed and not self._confirmation.is_unproven(head):
            self._line.end(head, Outcome.COMPLETED, head.sent_s, inferred=True)
            return
        self._fail(
            head,
            "LiveAvatar gave no sign of having taken all of this utterance; speak it again, or in a new session",
        )

    def _fail(self, head: Utterance, message: str) -> None:
        head.failure = head.failure or UpstreamStalled(message, utterance_id=head.id)
        self._line.end(head, Outcome.FAILED, 0.0)
