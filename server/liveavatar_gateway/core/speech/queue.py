"""Queue of a session's utterances, with their starts, ends and totals."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    GatewayError,
    InvalidField,
    UtteranceIdReused,
    UtteranceNotFound,
)
from liveavatar_gateway.core.events import SessionEvent, UtteranceEnded, UtteranceStarted
from liveavatar_gateway.core.messages import Refs
from liveavatar_gateway.core.outputs import Answer
from liveavatar_gateway.core.snapshot import SessionSnapshot, UtteranceSnapshot
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.speech.correlation import Correlator, forget_oldest
from liveavatar_gateway.core.speech.credit import Credit
from liveavatar_gateway.core.speech.delivery import Sending
from liveavatar_gateway.core.speech.playout import PlayoutClock
from liveavatar_gateway.core.speech.scheduler import PacketScheduler
from liveavatar_gateway.core.speech.utterance import AudioInput, Utterance
from liveavatar_gateway.core.states import Outcome


@dataclass(slots=True)
class SpeechTotals:
    """Totals over all utterances of a session."""

    utterance_count: int = 0
    received_bytes: int = 0
    """In the callers' formats, without what came twice."""
    dropped_bytes: int = 0
    """The same, of what was never sent."""
    upstream_bytes: int = 0
    """PCM that went up, again what was sent again."""
    played_s: float = 0.0
    """Seconds heard of utterances that ended."""
    interruption_count: int = 0
    """Interrupts that cut something."""


class UtteranceQueue:
    """Utterances in the order they were begun, and what the other parts of speech share: clock, credit, totals.

    It carries out starts and ends. When one is due is for others to say.

    Invariant: at most one start and exactly one end for each utterance, in `reports`, which the owner empties.
    """

    def __init__(self, config: SpeechConfig, new_id: Callable[[], str]) -> None:
        self.active: list[Utterance] = []
        self.reports: list[SessionEvent | Answer] = []
        """Events and answers, for the owner to empty."""
        self.totals = SpeechTotals()
        self.clock = PlayoutClock(start_delay_s=config.start_delay_s)
        self.new_id = new_id
        self.enabled = False
        """True while there is a ready socket."""
        self.reports_starts = False
        """True once LiveAvatar reported a start, by name or by pose."""
        self.head_since_s = 0.0
        """Time since which the first utterance is first, or of the latest end of any."""
        self.resent_s = 0.0
        """Seconds of audio that were sent again, so that the avatar may play them twice before the queue."""
        self._config = config
        self._credit = Credit(config.max_buffered_s)
        self._correlator = Correlator(config.remembered_utterances)
        self._ended: OrderedDict[str, UtteranceEnded] = OrderedDict()
        self._head: Utterance | None = None

    @property
    def speaking(self) -> bool:
        """True while an utterance is playing."""
        return any(utterance.started for utterance in self.active)

    # --- the caller's side

    def begin(self, utterance_id: str, intake: AudioInput) -> Utterance:
        """Open an utterance at the end of the queue.

        Raises:
            UtteranceIdReused: the id was used before in this session.
            CapacityExhausted: too many utterances are queued.
        """
        if utterance_id in self._ended or any(utterance.id == utterance_id for utterance in self.active):
            raise UtteranceIdReused(utterance_id)
        if len(self.active) >= self._config.max_utterances:
            raise CapacityExhausted(
                f"{len(self.active)} utterances are queued; wait until one has ended",
                scope="session",
                retry_after_s=1.0,
                facts={"limit": self._config.max_utterances},
            )
        utterance = self._utterance(utterance_id or self.new_id(), self.new_id(), intake)
        self.active.append(utterance)
        self.totals.utterance_count += 1
        self.share_credit()
        return utterance

    def take_up(self, utterance_id: str, intake: AudioInput) -> Utterance | UtteranceEnded | None:
        """Find an utterance for a stream that goes on with it, or how it ended; None when it never was.

        Raises:
            InvalidField: it was begun in another format.
        """
        utterance = next((one for one in self.active if one.id == utterance_id), None)
        if utterance is None:
            return self._ended.get(utterance_id)
        if utterance.intake.format != intake.format:
            raise InvalidField(
                f"utterance {utterance_id!r} is {utterance.intake.format}, this stream {intake.format}; go on in "
                "the format it was begun in",
                field="header.format",
                utterance_id=utterance_id,
                format=intake.format,
                begun_format=utterance.intake.format,
            )
        return utterance

    def meant_by(self, utterance_id: str) -> list[Utterance]:
        """Return the targets of an interrupt: all without an id, none when the named utterance has ended.

        Raises:
            UtteranceNotFound: this session never had it.
        """
        if not utterance_id:
            return list(self.active)
        found = [utterance for utterance in self.active if utterance.id == utterance_id]
        if not found and utterance_id not in self._ended:
            raise UtteranceNotFound(utterance_id)
        return found

    def _utterance(self, utterance_id: str, upstream_id: str, intake: AudioInput) -> Utterance:
        scheduler = PacketScheduler(
            self._config.scheduler, byte_rate=intake.byte_rate, frame_bytes=intake.frame_bytes
        )
        return Utterance(utterance_id, upstream_id, intake, scheduler)

    # --- credit

    def credit_bytes(self, intake: AudioInput) -> int:
        """Bytes of a format that may come beyond what was received, whole samples."""
        return self._credit.left_bytes(self.active, intake)

    def share_credit(self) -> None:
        """Share the credit anew: something was begun, cut, dropped or ended."""
        self._credit.share(self.active)

    # --- which utterance an event is about

    def find(self, upstream_id: str) -> Utterance | None:
        """Return the active utterance with an upstream id, if any."""
        return next((one for one in self.active if one.upstream_id == upstream_id), None)

    def named_by(self, refs: Refs) -> Utterance | None:
        """Return the active utterance that an event names, if any."""
        return self._correlator.find(refs, self.active)

    def upstream_id_of(self, refs: Refs) -> str:
        """Return the upstream id that an event names; "" when it names no utterance that is known."""
        return self._correlator.upstream_id_of(refs, self.active)

    def is_over(self, refs: Refs) -> bool:
        """Return True when an event is about an ended utterance: it came late and is ignored."""
        return self._correlator.names_ended(refs, self.active)

    # --- starts and ends

    def update_head(self, now_s: float) -> None:
        """Note since when it is the first one's turn. There must be one."""
        head = self.active[0]
        if head is not self._head:
            self._head, self.head_since_s = head, now_s

    def start(self, utterance: Utterance, now_s: float, *, inferred: bool = False) -> None:
        """Start an utterance that has not started. With `inferred`, LiveAvatar did not report it."""
        if utterance.started:
            return
        # What plays now was preceded by all before it: those ended without a word.
        for earlier in self.active[: self.active.index(utterance)]:
            self.end(earlier, Outcome.COMPLETED, earlier.sent_s, inferred=True)
        utterance.start(end_due_at_s=now_s + utterance.sent_s + self._config.ended_grace_s)
        if not inferred:
            self.clock.confirm(utterance.start_s, now_s)
        self.reports.append(UtteranceStarted(utterance.id, inferred))

    def infer_start(self, utterance: Utterance, now_s: float) -> None:
        """Infer the start of an utterance that should be playing, where LiveAvatar reports no starts."""
        if self.reports_starts or utterance.outcome is not None:
            return
        if not utterance.accepted or not utterance.is_upstream:
            return
        if not all(earlier.end_sent for earlier in self.active[: self.active.index(utterance)]):
            # The process that had the rest of that one is gone.
            return
        if self.clock.heard_s(now_s) > utterance.start_s:
            self.start(utterance, now_s, inferred=True)

    def end(
        self, utterance: Utterance, outcome: Outcome, played_s: float, *, inferred: bool = False
    ) -> UtteranceEnded:
        """Remove an utterance from the queue; with a failure it ends as FAILED, whatever the outcome."""
        if utterance.failure is not None:
            outcome = Outcome.FAILED
        self.totals.dropped_bytes += utterance.finish(outcome, played_s, inferred=inferred)
        self.totals.played_s += utterance.played_s
        self.active.remove(utterance)
        self._head = None
        if not self.active:
            self.resent_s = 0.0
        ended = UtteranceEnded(
            utterance.id,
            outcome,
            utterance.played_s,
            utterance.failure,
            inferred,
            utterance.dropped_tail_bytes,
        )
        self._ended[utterance.id] = ended
        forget_oldest(self._ended, self._config.remembered_utterances)
        self._correlator.remember_ended(utterance.upstream_id)
        self.reports.append(ended)
        self.share_credit()
        return ended

    def complete_through(self, utterance: Utterance, now_s: float) -> None:
        """Complete an utterance and all before it."""
        for one in self.active[: self.active.index(utterance) + 1]:
            self.start(one, now_s, inferred=True)
            self.end(one, Outcome.COMPLETED, one.sent_s)

    def rewind(self) -> None:
        """Make all that is upstream wait again, from the beginning and under fresh ids: it was dropped there."""
        self.resent_s = 0.0
        for utterance in self.active:
            if utterance.is_upstream:
                self._correlator.remember_ended(utterance.upstream_id)
                utterance.rewind(self.new_id())
        self.share_credit()

    def close(self, error: GatewayError, now_s: float) -> None:
        """End all with an error, and with what was heard until now."""
        for utterance in list(self.active):
            self.infer_start(utterance, now_s)
            utterance.position_s(self.clock, now_s)
            utterance.fail(error)
            self.end(utterance, Outcome.FAILED, 0.0)

    # --- another process's session

    def restore(self, past: SessionSnapshot, now_s: float) -> None:
        """Continue the queue of another process; only for an empty queue."""
        self.totals.received_bytes = past.received_bytes
        self.totals.dropped_bytes = past.dropped_bytes
        self.totals.upstream_bytes = past.upstream_bytes
        self.totals.played_s = past.played_s
        self.totals.utterance_count = past.utterance_count
        self.totals.interruption_count = past.interruption_count
        self._ended.update((ended.utterance_id, ended) for ended in past.ended_utterances)
        for one in past.utterances:
            self.active.append(self._restored(one, now_s))
        self.share_credit()

    def _restored(self, past: UtteranceSnapshot, now_s: float) -> Utterance:
        utterance = self._utterance(past.id, past.upstream_id, past.intake)
        utterance.restore(
            past.taken_bytes,
            past.sent_s,
            self.clock.sent_s,
            now_s,
            started=past.started,
            interrupted=past.interrupted,
        )
        # All of it may be played by now: what is known of its lead died with the process that had it.
        self.clock.send(past.sent_s, now_s)
        self.clock.confirm(self.clock.sent_s, now_s)
        if past.end_sent:
            utterance.seal()
            due_at_s = now_s + self._config.scheduler.max_lead_s + self._config.lost_grace_s
            utterance.send_end(Sending(now_s), due_at_s=due_at_s)
            utterance.confirm_all()
        return utterance
