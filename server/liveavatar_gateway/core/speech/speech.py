"""Speech of a session: queued utterances, packets, interrupts, and exactly one end for each utterance."""

from collections.abc import Callable

from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.messages import BYTE_RATE, Command, Refs
from liveavatar_gateway.core.snapshot import SessionSnapshot
from liveavatar_gateway.core.speech.acks import AckTracker
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.speech.handover import Handover, SendGate
from liveavatar_gateway.core.speech.interrupts import Interrupts
from liveavatar_gateway.core.speech.pauses import Pauses, PauseTimeout
from liveavatar_gateway.core.speech.playback import PlaybackTracker
from liveavatar_gateway.core.speech.queue import UtteranceQueue
from liveavatar_gateway.core.speech.sender import Sender
from liveavatar_gateway.core.speech.underruns import Underruns
from liveavatar_gateway.core.speech.utterance import AudioInput, Utterance
from liveavatar_gateway.core.speech.words import TimedText
from liveavatar_gateway.core.states import ContinueCause, TimeoutAction


class Speech:
    """Speech of a session, assembled from its parts.

    Each part knows the parts before it alone:

    - `queue.UtteranceQueue`: the utterances, their starts and ends, the playout clock, credit and totals;
    - `acks.AckTracker`: confirmation of sent commands;
    - `interrupts.Interrupts`: the pending interrupt;
    - `pauses.Pauses`: the pause of speech;
    - `handover.Handover`: the audio that the outgoing avatar is still sent;
    - `playback.PlaybackTracker`: starts and ends of playback, reported by LiveAvatar or inferred from time;
    - `underruns.Underruns`: sources that send too little;
    - `sender.Sender`: the next command.

    The owner calls the methods for inputs (`begin`, `receive`, `seal`, `interrupt`, the `on_*` events, `tick`),
    then calls `next_command` until it returns None, and waits until `deadline_s` or until an input reports that a
    command may be due. Events and answers are in `reports`, for the owner to empty.

    Invariant: at most one start and exactly one end for each utterance; bytes of an utterance are sent once and in
    order, after those of the utterance before it.
    """

    def __init__(self, config: SpeechConfig, new_id: Callable[[], str]) -> None:
        self.config = config
        self._queue = queue = UtteranceQueue(config, new_id)
        self._acks = AckTracker(config, queue)
        self._interrupts = Interrupts(queue, self._acks, timeout_s=config.interrupt_timeout_s)
        self.pauses = Pauses(queue, self._interrupts)
        self.handover = Handover(queue, self._interrupts, grace_s=config.handover_grace_s)
        self._playback = PlaybackTracker(config, queue, self._acks, self._interrupts, self.handover)
        self._underruns = Underruns(queue, self._interrupts)
        self._sender = Sender(config, queue, self._acks, self._interrupts, self.handover, pauses=self.pauses)
        self.active = queue.active
        self.clock = queue.clock
        self.totals = queue.totals
        self.reports = queue.reports
        self.deadline_s: float | None = None

    @property
    def speaking(self) -> bool:
        """True while an utterance is playing."""
        return self._queue.speaking

    @property
    def received_bytes(self) -> int:
        """Audio received from the caller since the session began."""
        return self.totals.received_bytes

    @property
    def is_pending(self) -> bool:
        """True while audio waits to be sent, or an utterance that gets no more audio waits for its end.

        Speech that is paused counts as not pending: a pause is an activity when it begins, and keeps no session
        that nobody uses.
        """
        return not self.pauses.is_paused and any(one.sealed or one.buffered for one in self.active)

    @property
    def dry_at_s(self) -> float:
        """Time at which all audio that was sent is played."""
        return self.clock.dry_at_s

    @property
    def waits_for_proof(self) -> bool:
        """True when a command may be due as soon as LiveAvatar confirms anything."""
        return self._sender.waits_for_proof

    @property
    def sent_count(self) -> int:
        """Number of the latest packet, end or interrupt, for the ping after it."""
        return self._sender.sent_count

    # --- the caller's side

    def begin(self, utterance_id: str, audio_input: AudioInput) -> Utterance:
        """Open an utterance at the end of the queue.

        Raises:
            UtteranceIdReused: The id was used before in this session.
            CapacityExhausted: Too many utterances are queued.
        """
        utterance = self._queue.begin(utterance_id, audio_input)
        # The sender must see its first chunk, whatever size the sender waited for before.
        self._sender.wake_bytes = 0
        return utterance

    def take_up(self, utterance_id: str, audio_input: AudioInput) -> Utterance | UtteranceEnded | None:
        """Return an utterance for a stream that resumes it, its end if it has ended, or None for an unknown id.

        Raises:
            InvalidField: The utterance was begun in another format.
        """
        return self._queue.take_up(utterance_id, audio_input)

    def receive(self, utterance: Utterance, offset: int | None, audio: bytes, now_s: float) -> bool:
        """Accept a chunk; return True when a packet may be due, so that `next_command` is to be called.

        Chunks of a sealed utterance, which were on their way when it was interrupted or failed, are dropped and
        counted.

        Raises:
            CallerError, CreditExceeded: The chunk was refused, see `Utterance.receive`.
        """
        if utterance.sealed:
            self.drop_stale(len(audio))
            return False
        self.totals.received_bytes += utterance.receive(offset, audio, now_s)
        return utterance.buffered >= self._sender.wake_bytes

    def drop_stale(self, size_bytes: int) -> None:
        """Count audio that came for a sealed utterance and is dropped."""
        self.totals.dropped_bytes += size_bytes

    def add_text(self, utterance: Utterance, piece: TimedText, *, field: str) -> None:
        """Add timings to the text of an utterance that has not ended; see `UtteranceQueue.add_text`.

        Raises:
            TimingsInvalid, TimingsGap, TimingsLimit: The timings were refused, and changed nothing.
        """
        self._queue.add_text(utterance, piece, field=field)

    def seal(self, utterance: Utterance, failure: GatewayError | None = None) -> None:
        """Accept no more audio for an utterance, which is spoken to its end."""
        if utterance.outcome is None:
            self.totals.dropped_bytes += utterance.seal(failure)

    def cancel(self, utterance: Utterance) -> None:
        """Drop a queued utterance, or interrupt it if the avatar speaks it."""
        if utterance.outcome is None:
            self.interrupt(utterance.id)

    def interrupt(self, utterance_id: str) -> int:
        """Interrupt an utterance, or all of them without an id; return the id of the `Answer` that follows.

        See `Interrupts.interrupt`.

        Raises:
            UtteranceNotFound: The session never had this utterance.
        """
        ends_pause = self.pauses.is_ended_by(utterance_id)
        interrupt_id = self._interrupts.interrupt(utterance_id)
        if ends_pause:
            self.pauses.end()
        return interrupt_id

    def pause(self, utterance_id: str, timeout: PauseTimeout, now_s: float) -> int:
        """Pause speech; return the id of the `PauseAnswer` that follows. See `Pauses.pause`.

        Raises:
            UtteranceNotFound: The session never had this utterance.
        """
        return self.pauses.pause(utterance_id, timeout, now_s)

    def continue_speech(self) -> int:
        """Continue speech after a pause; return the id of the `ContinueAnswer` that follows."""
        return self.pauses.continue_speech()

    def find_by_id(self, utterance_id: str) -> Utterance | None:
        """Return the active utterance with the caller's id, if any."""
        return self._queue.find_by_id(utterance_id)

    def find(self, upstream_id: str) -> Utterance | None:
        """Return the active utterance with an upstream id, if any."""
        return self._queue.find(upstream_id)

    def credit_bytes(self, audio_input: AudioInput) -> int:
        """Return how many bytes of a format may come besides those received so far, in whole samples."""
        return self._queue.credit_bytes(audio_input)

    def confirmed_bytes(self, utterance: Utterance) -> int:
        """Return how many bytes LiveAvatar has of an utterance: all sent ones where it never confirms anything."""
        return self._acks.confirmed_bytes(utterance)

    def discardable_bytes(self, utterance: Utterance) -> int:
        """Return how many bytes of an utterance its caller may discard.

        LiveAvatar has them, and no pause can make them needed again. After the loss of this process, the caller
        alone has the audio that was not heard.
        """
        confirmed = self.confirmed_bytes(utterance)
        return confirmed if utterance.outcome is not None else min(confirmed, utterance.needed_from())

    def note_readiness_probe(self, command_id: str) -> None:
        """Await the answer to an interrupt that only probes readiness and ends nothing."""
        self._acks.expect_cleared(command_id, self.sent_count)

    # --- LiveAvatar's side

    def on_appended(self, refs: Refs, now_s: float) -> bool:
        """Confirm a packet; return True for the first ack of its utterance, after which a start may be due."""
        return self._acks.on_appended(refs, now_s)

    def on_committed(self, refs: Refs, now_s: float) -> None:
        """Confirm all of an utterance whose end LiveAvatar acknowledged."""
        self._acks.on_committed(refs, now_s)

    def on_read(self, number: int, now_s: float) -> None:
        """Confirm commands up to the `number`-th; where acks come, only those older than `presumed_taken_s`."""
        self._acks.on_read(number, now_s)

    def on_started(self, refs: Refs, now_s: float) -> None:
        """Handle the start of an utterance."""
        self._playback.on_started(refs, now_s)

    def on_talking(self, now_s: float) -> None:
        """Handle the talking pose as a start, unless an utterance is playing already."""
        self._playback.on_talking(now_s)

    def on_ended(self, refs: Refs, now_s: float) -> None:
        """Handle the end of an utterance; an event that comes after an interrupt is ignored."""
        self._playback.on_ended(refs, now_s)

    def on_silent(self, now_s: float) -> None:
        """End the playing utterance, since the avatar stopped talking, unless it merely ran dry."""
        self._playback.on_silent(now_s)

    def on_cleared(self, refs: Refs, now_s: float) -> None:
        """Handle LiveAvatar's report that an interrupt was carried out."""
        self._interrupts.on_cleared(refs, now_s)

    def on_interrupted(self, refs: Refs, now_s: float) -> None:
        """Handle LiveAvatar's report that an utterance was interrupted."""
        self._interrupts.on_interrupted(refs, now_s)

    # --- time and commands

    @property
    def silent_at_s(self) -> float | None:
        """Time at which the socket counts as dead unless a confirmation comes; None without one."""
        return self._acks.silent_at_s(is_cutting=self._interrupts.pending is not None)

    def note_stall(self, now_s: float) -> None:
        """Restart LiveAvatar's deadlines: the socket stood still until now, so nothing could be reported."""
        self._acks.moved_at_s = now_s
        for utterance in self.active:
            utterance.delay_end(now_s + utterance.delivery.unconfirmed_s + self.config.ended_grace_s)

    def tick(self, now_s: float, *, is_stuck: bool = False) -> None:
        """Infer overdue reports, unless LiveAvatar's end of the socket stands still."""
        self._interrupts.tick(now_s)
        self.pauses.settle()
        match self.pauses.tick(now_s):
            case TimeoutAction.CONTINUE:
                self.pauses.continue_speech(ContinueCause.TIMEOUT)
            case TimeoutAction.INTERRUPT:
                self.interrupt("")
        # Nothing is inferred while an interrupt is pending: it decides which audio was played and is sent again.
        if self._interrupts.pending is None and self.active:
            self._playback.tick(now_s, is_stuck=is_stuck)
        self._underruns.tick(now_s)

    def next_command(self, now_s: float) -> Command | None:
        """Set `deadline_s`, and return the command that is due now, if any."""
        command = self._sender.next_command(now_s)
        deadline_s = self._sender.deadline_s
        playback_s = None if self._interrupts.pending is not None else self._playback.deadline_s
        due = (deadline_s, playback_s, self._underruns.deadline_s, self.pauses.deadline_s)
        self.deadline_s = min((at_s for at_s in due if at_s is not None), default=None)
        return command

    # --- loss, handover, takeover

    def lose(self, now_s: float) -> None:
        """Send nothing until `resume`, since the socket is lost; unconfirmed audio is sent first then.

        LiveAvatar plays confirmed audio to its end, so that audio is not sent again.
        """
        self._queue.enabled = False
        self.handover.forget()
        self._acks.lose(now_s)
        self._interrupts.lose(now_s)
        end_by_s = now_s + self.clock.lead_s(now_s) + self.config.lost_grace_s
        for utterance in self.active:
            utterance.advance_end(end_by_s)

    def resume(self, now_s: float) -> int:
        """Continue on a new socket; return the size of the audio that is sent again, PCM bytes."""
        self._queue.enabled = True
        for utterance in self.active:
            utterance.resume(now_s)
        resent_bytes = sum(len(packet.pcm) for utterance in self.active for packet in utterance.delivery.again)
        self._queue.resent_s += resent_bytes / BYTE_RATE
        return resent_bytes

    def hand_over(self, now_s: float) -> int:
        """Continue on another avatar; return the size of the audio that is sent again, PCM bytes.

        Audio that the outgoing avatar confirmed is not sent again, even if it is cut; the next avatar gets the
        rest.
        """
        self._interrupts.finish(now_s)
        self.pauses.settle()
        self._acks.forget_interrupt()
        self._acks.forget_ends()
        self.lose(now_s)
        self.handover.gate = SendGate.NOTHING
        resent_bytes = self.resume(now_s)
        # The next avatar has no audio yet that it could play twice.
        self._queue.resent_s = 0.0
        return resent_bytes

    def forget_pose(self) -> None:
        """Forget the pose, since another avatar takes over."""
        self._playback.forget_pose()

    def restore(self, snapshot: SessionSnapshot, now_s: float) -> None:
        """Continue the speech of a session that another process drove before; the queue must be empty."""
        self._queue.restore(snapshot, now_s)
        self._interrupts.restore()
        if snapshot.pause is not None:
            self.pauses.restore(snapshot.pause, now_s)

    def close(self, error: GatewayError, now_s: float) -> None:
        """End all utterances with an error, and answer interrupts and pauses, since the session ends."""
        self._interrupts.finish(now_s)
        self.pauses.settle()
        self._queue.close(error, now_s)
