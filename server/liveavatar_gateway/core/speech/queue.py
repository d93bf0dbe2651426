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
from liveavatar_gateway.core.outputs import SpeechAnswer
from liveavatar_gateway.core.snapshot import SessionSnapshot, UtteranceSnapshot
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.speech.correlation import Correlator, forget_oldest
from liveavatar_gateway.core.speech.credit import Credit
from liveavatar_gateway.core.speech.delivery import Sending
from liveavatar_gateway.core.speech.playout import PlayoutClock
from liveavatar_gateway.core.speech.scheduler import PacketScheduler
from liveavatar_gateway.core.speech.utterance import AudioInput, Utterance
from liveavatar_gateway.core.speech.words import MAX_SESSION_CHARS, TimedText, UtteranceText
from liveavatar_gateway.core.states import Outcome


@dataclass(slots=True)
class SpeechTotals:
    """Totals over all utterances of a session."""

    utterance_count: int = 0
    received_bytes: int = 0
    """In the callers' formats, without repeated bytes."""
    dropped_bytes: int = 0
    """Received bytes that were never sent, in the callers' formats."""
    upstream_bytes: int = 0
    """PCM that was sent to LiveAvatar, repeats included."""
    played_s: float = 0.0
    """Seconds of ended utterances that were played."""
    interruption_count: int = 0
    """Interrupts that ended an utterance."""
    repeated_s: float = 0.0
    """Seconds of ended utterances that were heard a second time after pauses."""


class UtteranceQueue:
    """Utterances in the order of their begin, with the clock, credit and totals that the parts of speech share.

    The queue carries out starts and ends; other parts decide when they are due.

    Invariant: at most one start and exactly one end for each utterance, in `reports`, which the owner empties.
    """

    def __init__(self, config: SpeechConfig, new_id: Callable[[], str]) -> None:
        self.active: list[Utterance] = []
        self.reports: list[SessionEvent | SpeechAnswer] = []
        """Events and answers, for the owner to empty."""
        self.totals = SpeechTotals()
        self.clock = PlayoutClock(start_delay_s=config.start_delay_s)
        self.new_id = new_id
        self.enabled = False
        """True while there is a ready socket."""
        self.reports_starts = False
        """True once LiveAvatar reported a start, by name or by pose."""
        self.head_since_s = 0.0
        """Time at which the first utterance became the first, or at which the latest end was."""
        self.resent_s = 0.0
        """Seconds of audio that were sent again, so that the avatar may play them twice."""
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

    def begin(self, utterance_id: str, audio_input: AudioInput) -> Utterance:
        """Open an utterance at the end of the queue.

        Raises:
            UtteranceIdReused: The id was used before in this session.
            CapacityExhausted: Too many utterances are queued.
        """
        if utterance_id in self._ended or any(utterance.id == utterance_id for utterance in self.active):
            raise UtteranceIdReused(utterance_id)
        if len(self.active) >= self._config.max_utterances:
            raise CapacityExhausted(
                f"{len(self.active)} utterances are queued; wait until one has ended",
                scope="session",
                retry_after_s=1.0,
                values={"limit": self._config.max_utterances},
            )
        utterance = self._utterance(utterance_id or self.new_id(), self.new_id(), audio_input)
        self.active.append(utterance)
        self.totals.utterance_count += 1
        self.share_credit()
        return utterance

    def take_up(self, utterance_id: str, audio_input: AudioInput) -> Utterance | UtteranceEnded | None:
        """Return an utterance for a stream that resumes it, its end if it has ended, or None for an unknown id.

        Raises:
            InvalidField: The utterance was begun in another format.
        """
        utterance = self.find_by_id(utterance_id)
        if utterance is None:
            return self._ended.get(utterance_id)
        if utterance.audio_input.format != audio_input.format:
            raise InvalidField(
                f"utterance {utterance_id!r} is {utterance.audio_input.format}, this stream {audio_input.format}; "
                "resume it in the format of its beginning",
                field="header.format",
                utterance_id=utterance_id,
                format=audio_input.format,
                begun_format=utterance.audio_input.format,
            )
        return utterance

    def meant_by(self, utterance_id: str) -> list[Utterance]:
        """Return the targets of an interrupt: all without an id, none when the named utterance has ended.

        Raises:
            UtteranceNotFound: The session never had this utterance.
        """
        if not utterance_id:
            return list(self.active)
        found = [utterance for utterance in self.active if utterance.id == utterance_id]
        if not found and utterance_id not in self._ended:
            raise UtteranceNotFound(utterance_id)
        return found

    def _utterance(self, utterance_id: str, upstream_id: str, audio_input: AudioInput) -> Utterance:
        scheduler = PacketScheduler(
            self._config.scheduler, byte_rate=audio_input.byte_rate, frame_bytes=audio_input.frame_bytes
        )
        return Utterance(utterance_id, upstream_id, audio_input, scheduler)

    def add_text(self, utterance: Utterance, piece: TimedText, *, field: str) -> None:
        """Add timings to the text of an utterance that has not ended.

        Args:
            utterance: The utterance.
            piece: The timings.
            field: Path of the timings in their message, for errors.

        Raises:
            TimingsInvalid, TimingsGap, TimingsLimit: The timings were refused, and changed nothing.
        """
        if utterance.text is None:
            utterance.text = UtteranceText(utterance.id)
        char_count = sum(one.text.char_count for one in self.active if one.text is not None)
        utterance.text.add(piece, room_chars=MAX_SESSION_CHARS - char_count, field=field)

    # --- credit

    def credit_bytes(self, audio_input: AudioInput) -> int:
        """Return how many bytes of a format may come besides those received so far, in whole samples."""
        return self._credit.left_bytes(self.active, audio_input)

    def share_credit(self) -> None:
        """Divide the credit again, after an utterance was begun, cut, dropped or ended."""
        self._credit.share(self.active)

    # --- utterances of events

    def find_by_id(self, utterance_id: str) -> Utterance | None:
        """Return the active utterance with the caller's id, if any."""
        return next((one for one in self.active if one.id == utterance_id), None)

    def find(self, upstream_id: str) -> Utterance | None:
        """Return the active utterance with an upstream id, if any."""
        return next((one for one in self.active if one.upstream_id == upstream_id), None)

    def named_by(self, refs: Refs) -> Utterance | None:
        """Return the active utterance that an event names, if any."""
        return self._correlator.find(refs, self.active)

    def upstream_id_of(self, refs: Refs) -> str:
        """Return the upstream id that an event names; "" when no utterance has it."""
        return self._correlator.upstream_id_of(refs, self.active)

    def is_over(self, refs: Refs) -> bool:
        """Return True when an event is about an ended utterance, so that the event is ignored."""
        return self._correlator.names_ended(refs, self.active)

    # --- starts and ends

    def update_head(self, now_s: float) -> None:
        """Record since when the first utterance is first; the queue must not be empty."""
        head = self.active[0]
        if head is not self._head:
            self._head, self.head_since_s = head, now_s

    def start(self, utterance: Utterance, now_s: float, *, inferred: bool = False) -> None:
        """Start an utterance, if it is not playing; `inferred` when LiveAvatar did not report the start.

        The start is reported once, and not again when the utterance continues after a pause.
        """
        if utterance.started:
            return
        # LiveAvatar plays in order, so all earlier utterances have ended without a report.
        for earlier in self.active[: self.active.index(utterance)]:
            self.end(earlier, Outcome.COMPLETED, earlier.sent_s, inferred=True)
        is_first = not utterance.was_heard
        part_s = utterance.sent_s - utterance.resumed_s
        utterance.start(end_due_at_s=now_s + part_s + self._config.ended_grace_s)
        if not inferred:
            self.clock.confirm(utterance.resumed_start_s, now_s)
        if is_first:
            self.reports.append(UtteranceStarted(utterance.id, inferred))

    def infer_start(self, utterance: Utterance, now_s: float) -> None:
        """Infer the start of an utterance that should be playing, where LiveAvatar reports no starts."""
        if self.reports_starts or utterance.outcome is not None:
            return
        if not utterance.accepted or not utterance.is_upstream:
            return
        if not all(earlier.end_sent for earlier in self.active[: self.active.index(utterance)]):
            # An earlier utterance is incomplete: the process that had the rest of its audio was lost.
            return
        if self.clock.heard_s(now_s) > utterance.resumed_start_s:
            self.start(utterance, now_s, inferred=True)

    def end(
        self, utterance: Utterance, outcome: Outcome, played_s: float, *, inferred: bool = False
    ) -> UtteranceEnded:
        """Remove an utterance from the queue; one with a failure ends as FAILED instead of `outcome`."""
        if utterance.failure is not None:
            outcome = Outcome.FAILED
        self.totals.dropped_bytes += utterance.finish(outcome, played_s, inferred=inferred)
        self.totals.played_s += utterance.played_s
        self.totals.repeated_s += utterance.repeated_s
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
            utterance.repeated_s,
            utterance.heard_text,
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
        """Make all utterances upstream, which LiveAvatar dropped, wait again under new ids.

        One that was playing continues near the position that was heard, the others from their beginning.
        """
        self.resent_s = 0.0
        for utterance in list(self.active):
            if utterance.is_heard():
                self.end(utterance, Outcome.COMPLETED, utterance.sent_s)
            elif utterance.is_upstream:
                self._correlator.remember_ended(utterance.upstream_id)
                utterance.rewind(self.new_id())
        self.share_credit()

    def close(self, error: GatewayError, now_s: float) -> None:
        """End all utterances with an error and with the seconds that were played so far."""
        for utterance in list(self.active):
            self.infer_start(utterance, now_s)
            utterance.position_s(self.clock, now_s)
            utterance.fail(error)
            self.end(utterance, Outcome.FAILED, 0.0)

    # --- takeover from another process

    def restore(self, snapshot: SessionSnapshot, now_s: float) -> None:
        """Continue the queue of another process; only for an empty queue."""
        self.totals.received_bytes = snapshot.received_bytes
        self.totals.dropped_bytes = snapshot.dropped_bytes
        self.totals.upstream_bytes = snapshot.upstream_bytes
        self.totals.played_s = snapshot.played_s
        self.totals.utterance_count = snapshot.utterance_count
        self.totals.interruption_count = snapshot.interruption_count
        self.totals.repeated_s = snapshot.repeated_s
        self._ended.update((ended.utterance_id, ended) for ended in snapshot.ended_utterances)
        for one in snapshot.utterances:
            self.active.append(self._restored(one, now_s))
        self.share_credit()

    def _restored(self, snapshot: UtteranceSnapshot, now_s: float) -> Utterance:
        utterance = self._utterance(snapshot.id, snapshot.upstream_id, snapshot.audio_input)
        if snapshot.waits:
            # LiveAvatar may still report about audio that it had under the former id.
            self._correlator.remember_ended(snapshot.upstream_id)
            utterance.upstream_id = self.new_id()
            utterance.restore_paused(
                snapshot.taken_bytes,
                now_s,
                played_s=snapshot.played_s,
                repeated_s=snapshot.repeated_s,
                was_heard=snapshot.started,
            )
            return utterance
        utterance.restore(
            snapshot.taken_bytes,
            snapshot.sent_s,
            self.clock.sent_s,
            now_s,
            started=snapshot.started,
            interrupted=snapshot.interrupted,
        )
        # All of it may be played by now: the former process did not record its lead.
        self.clock.send(snapshot.sent_s, now_s)
        self.clock.confirm(self.clock.sent_s, now_s)
        if snapshot.end_sent:
            utterance.seal()
            due_at_s = now_s + self._config.scheduler.max_lead_s + self._config.lost_grace_s
            utterance.send_end(Sending(now_s), due_at_s=due_at_s)
            utterance.confirm_all()
        return utterance
