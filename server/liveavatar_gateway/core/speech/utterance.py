"""Utterance: audio of one spoken turn, and its states from the first packet to the end of playback."""

from liveavatar_gateway.core.messages import BYTE_RATE
from liveavatar_gateway.core.speech.delivery import Delivery, Sending
from liveavatar_gateway.core.speech.playout import PlayoutClock
from liveavatar_gateway.core.speech.scheduler import PacketScheduler
from liveavatar_gateway.core.speech.silences import last_silence
from liveavatar_gateway.core.speech.utterance_input import AudioInput, Converter, UtteranceInput
from liveavatar_gateway.core.states import (
    PLAYBACK_TRANSITIONS,
    SEND_TRANSITIONS,
    IllegalTransition,
    InputState,
    Outcome,
    PlaybackState,
    SendState,
    move,
)

__all__ = ["AudioInput", "Converter", "Utterance"]

STEP_BACK_S = 1.0
"""Longest step back from the position that was heard to a silence, when a paused utterance continues."""

# Reading a member of an enum class costs a call; these are read for each packet.
_WAITING, _SENDING, _END_SENT, _COMMITTED = SendState
_PENDING, _ACCEPTED, _PLAYING, _PLAYED, _UNPLAYED = PlaybackState


class Utterance(UtteranceInput):
    """Audio of one spoken turn, from the caller's chunks to its end at LiveAvatar.

    Its three states (`input_state`, `send_state`, `playback_state`) follow the tables in `core.states` and are
    changed by its own methods alone.

    Invariant: confirmed <= cut. Once `outcome` is set, nothing changes.
    """

    __slots__ = (
        "_heard_before_s",
        "_needed_from",
        "_silent_at",
        "delivery",
        "dry_after_s",
        "end_sending",
        "first_sent_at_s",
        "heard_s",
        "held_at",
        "inferred",
        "interrupted",
        "outcome",
        "overdue_at_s",
        "playback_state",
        "played_s",
        "resumed_at",
        "retried",
        "rewindable",
        "scheduler",
        "send_state",
        "sent_s",
        "start_may_be_lost",
        "start_s",
        "step_back_s",
        "underrun_count",
        "upstream_id",
        "was_heard",
    )

    def __init__(self, id: str, upstream_id: str, audio_input: AudioInput, scheduler: PacketScheduler) -> None:  # noqa: A002 - the attribute is public as `id`
        """Open an utterance.

        Args:
            id: The caller's id of the utterance.
            upstream_id: Its `event_id` on LiveAvatar's socket, never used before.
            audio_input: Format of its audio.
            scheduler: Scheduler of its packets.
        """
        super().__init__(id, audio_input)
        self.upstream_id = upstream_id
        self.scheduler = scheduler
        self.send_state = _WAITING
        self.playback_state = _PENDING
        self.outcome: Outcome | None = None
        """Result, set by `finish`."""
        self.inferred = False
        """True when the end was inferred from the clock, because LiveAvatar did not report it."""

        # Facts that no state implies.
        self.interrupted = False
        """True once interrupted; sending and playback keep their states until LiveAvatar confirms that."""
        self.start_may_be_lost = False
        """True when a socket was lost before a start was reported, even if LiveAvatar had accepted no audio."""
        self.rewindable = True
        """False for good when another process had the beginning of its audio."""
        self.retried = False
        """True once it was sent again because LiveAvatar accepted and did not play it; a rewind keeps this."""
        self.was_heard = False
        """True once its first sound was reported; a pause keeps this."""
        self.held_at: int | None = None
        """Position from which it continues after the pause that is on its way; None without one."""
        self._silent_at: int | None = None

        self.resumed_at = 0
        """Position of the audio that is sent first under the present upstream id, bytes; above 0 after a pause."""
        self.step_back_s = 0.0
        """Seconds between the position that was heard at the latest pause and `resumed_at`."""
        self.start_s = 0.0
        """Position of its beginning on the session's playout clock; moves at a pause."""
        self.sent_s = 0.0
        """End of the audio that was sent, seconds from the beginning of the utterance."""
        self.heard_s = 0.0
        """Position that was heard last; behind `played_s` while audio is repeated after a pause."""
        self.played_s = 0.0
        """Seconds that were heard, repeated audio counted once; never decreases."""
        self._heard_before_s = 0.0
        """Seconds that were heard under former upstream ids."""
        self._needed_from = 0
        self.first_sent_at_s: float | None = None
        """Time of the first packet, or of the first packet sent again; None while `SendState.WAITING`."""
        self.end_sending: Sending | None = None
        """Sending of the end; None before `SendState.END_SENT`."""
        self.overdue_at_s: float | None = None
        """Time by which LiveAvatar should have reported the end of playback."""
        self.underrun_count = 0
        self.dry_after_s = 0.0
        """Seconds of audio that were sent before the latest underrun."""
        self.delivery = Delivery()

    def restore(
        self, taken_bytes: int, sent_s: float, start_s: float, now_s: float, *, started: bool, interrupted: bool
    ) -> None:
        """Continue an utterance of another process; LiveAvatar alone has its beginning.

        Args:
            taken_bytes: Bytes of the caller's format that LiveAvatar has.
            sent_s: Seconds of audio that LiveAvatar has.
            start_s: Position of its first sound on the session's playout clock.
            now_s: Monotonic time.
            started: True when its start was reported.
            interrupted: True when an interrupt of the utterance was accepted.
        """
        self._restore_input(taken_bytes, now_s)
        self.sent_s = sent_s
        self.rewindable = False
        self.interrupted = interrupted
        self.begin_sending(start_s, now_s)
        self.accept()
        if started:
            self.start()

    def restore_paused(
        self, at: int, now_s: float, *, played_s: float, repeated_s: float, was_heard: bool
    ) -> None:
        """Continue a paused utterance of another process, of which LiveAvatar has no audio left.

        Args:
            at: Position from which the utterance continues, bytes of the caller's format.
            now_s: Monotonic time.
            played_s: Seconds that were heard, repeated audio counted once.
            repeated_s: Seconds that were heard a second time.
            was_heard: True when its start was reported.
        """
        self._restore_input(at, now_s)
        self.resumed_at = at
        self.sent_s = self.heard_s = self.resumed_s
        self.played_s = played_s
        self._heard_before_s = played_s + repeated_s
        self.was_heard = was_heard

    def _restore_input(self, taken_bytes: int, now_s: float) -> None:
        self.received = self.cut = self.delivery.confirmed = self.freed = self._retained_from = taken_bytes
        self.last_chunk_at_s = now_s
        if taken_bytes:
            # The other process checked its first bytes for a container.
            self._move_input(InputState.OPEN)

    # --- states

    def _move_send(self, following: SendState) -> None:
        self.send_state = move(SEND_TRANSITIONS, self.send_state, following)

    def _move_playback(self, following: PlaybackState) -> None:
        self.playback_state = move(PLAYBACK_TRANSITIONS, self.playback_state, following)

    @property
    def is_upstream(self) -> bool:
        """True when LiveAvatar was sent any of its audio."""
        return self.send_state is not _WAITING

    @property
    def end_sent(self) -> bool:
        """True when its end was sent on the current socket, or is confirmed."""
        return self.send_state is _END_SENT or self.send_state is _COMMITTED

    @property
    def committed(self) -> bool:
        """True when LiveAvatar has all of it, its end included."""
        return self.send_state is _COMMITTED

    @property
    def accepted(self) -> bool:
        """True when a sign shows that LiveAvatar has any of its audio."""
        return self.playback_state is not _PENDING

    @property
    def started(self) -> bool:
        """True once the first sound under the present upstream id was played."""
        return self.playback_state is _PLAYING or self.playback_state is _PLAYED

    @property
    def unconfirmed_end(self) -> Sending | None:
        """Sending of its end while the end is not confirmed; None otherwise."""
        return self.end_sending if self.send_state is _END_SENT else None

    # --- positions

    @property
    def confirmed(self) -> int:
        """Bytes that LiveAvatar is known to have."""
        return self.delivery.confirmed

    @property
    def still_unconfirmed(self) -> bool:
        """True when a socket counted as dead because of this utterance, and nothing more was confirmed since."""
        return self._silent_at is not None and self.delivery.confirmed <= self._silent_at

    @property
    def taken(self) -> int:
        """Bytes that were sent on the current socket, or that LiveAvatar is known to have."""
        return self.delivery.taken

    @property
    def resumed_s(self) -> float:
        """Seconds of the utterance before the audio that is sent under the present upstream id."""
        return self.resumed_at / self.audio_input.byte_rate

    @property
    def resumed_start_s(self) -> float:
        """Position on the playout clock of the first sound under the present upstream id."""
        return self.start_s + self.resumed_s

    @property
    def repeated_s(self) -> float:
        """Seconds that were heard a second time, after pauses."""
        return max(0.0, self._heard_before_s + self.heard_s - self.resumed_s - self.played_s)

    @property
    def heard_text(self) -> str:
        """Text that was heard; empty without timings."""
        if self.text is None:
            return ""
        return self.text.heard(self.played_s, is_complete=self.outcome is Outcome.COMPLETED)

    def needed_from(self) -> int:
        """Return the position of the first byte that a pause may make needed again; it never decreases.

        The caller was perhaps told to discard the bytes before, and no later step back goes beyond it.
        """
        limit = min(self.cut, self._position_of(self.heard_s - STEP_BACK_S))
        self._needed_from = max(self._needed_from, self._retained_from, limit)
        return self._needed_from

    # --- sending

    def take_packet(self, size: int, sending: Sending) -> bytes:
        """Cut `size` buffered bytes and return them as upstream PCM, which may be empty while a resampler fills.

        A size of 0 returns the converter's tail alone. The packet is kept until it is confirmed.
        """
        if self.started:
            self._release(self.needed_from())
        pcm = self._cut(size)
        if pcm:
            self.delivery.send(pcm, self._converted, sending)
        self.sent_s += len(pcm) / BYTE_RATE
        return pcm

    def begin_sending(self, start_s: float, now_s: float) -> None:
        """Record that the first packet under the present upstream id is sent.

        Args:
            start_s: Position of its first sound on the session's playout clock.
            now_s: Monotonic time.
        """
        if self.is_upstream:
            raise IllegalTransition(f"{self.send_state.name} begins again")
        self._move_send(_SENDING)
        self.first_sent_at_s = now_s
        self.start_s = start_s - self.resumed_s

    def send_end(self, sending: Sending, *, due_at_s: float) -> None:
        """Record that its end is sent; LiveAvatar should report the end of playback by `due_at_s`."""
        self._move_send(_END_SENT)
        self.end_sending = sending
        self.overdue_at_s = due_at_s

    def delay_end(self, due_at_s: float) -> None:
        """Expect the end of playback, where one is expected, not before `due_at_s`."""
        if self.overdue_at_s is not None:
            self.overdue_at_s = max(self.overdue_at_s, due_at_s)

    def advance_end(self, due_at_s: float) -> None:
        """Expect the end of playback, where one is expected, by `due_at_s`."""
        if self.overdue_at_s is not None:
            self.overdue_at_s = min(self.overdue_at_s, due_at_s)

    def confirm_all(self) -> None:
        """Record that LiveAvatar has all that was sent, since it has something later."""
        self.delivery.confirm_all()
        if self.send_state is _END_SENT:
            self._move_send(_COMMITTED)

    def read(self, number: int, *, sent_by_s: float) -> None:
        """Record that LiveAvatar read everything up to a number; see `Delivery.read`."""
        self.delivery.read(number, sent_by_s=sent_by_s)
        end = self.unconfirmed_end
        if end is not None and end.number <= number and end.at_s <= sent_by_s:
            self._move_send(_COMMITTED)

    def presume(self, *, sent_by_s: float) -> None:
        """Confirm packets and end if they were sent by `sent_by_s`, where LiveAvatar never confirms anything."""
        self.delivery.presume(sent_by_s=sent_by_s)
        end = self.unconfirmed_end
        if end is not None and end.at_s <= sent_by_s:
            self._move_send(_COMMITTED)

    def suspect(self) -> None:
        """Record that the socket counts as dead because LiveAvatar confirms no more of this utterance."""
        self._silent_at = self.confirmed

    def lose(self) -> int:
        """Record that the socket is lost, and return the size of the audio that is sent again, PCM bytes.

        Audio that was already waiting to be sent again is not counted.
        """
        if self.send_state is _END_SENT:
            self._move_send(_SENDING)
        if not self.committed:
            self.end_sending = self.overdue_at_s = None
        self.start_may_be_lost = not self.started
        return self.delivery.lose()

    def resume(self, now_s: float) -> None:
        """Restart the wait for a first sign of audio that is sent again on a new socket."""
        if self.delivery.again and not self.started:
            self.first_sent_at_s = now_s

    def continuation(self) -> int:
        """Return the position from which the utterance continues once LiveAvatar has dropped its audio, bytes.

        After its first sound, that is the last silence within a second before the position that was heard, or
        this position itself; before, that is the beginning of the audio under the present upstream id.
        """
        if not self.started:
            return max(self.resumed_at, self._retained_from)
        start = self.needed_from()
        heard_at = min(self.cut, max(start, self._position_of(self.heard_s)))
        pcm = self._retained_pcm(start, heard_at)
        step_back_s = (len(pcm) - last_silence(pcm)) / BYTE_RATE
        return max(start, heard_at - self._position_of(step_back_s))

    def hold(self, clock: PlayoutClock, now_s: float) -> None:
        """Record that a pause is on its way, after which the utterance continues from `held_at` at the latest."""
        self.position_s(clock, now_s)
        self.held_at = self.continuation()

    def rewind(self, upstream_id: str) -> None:
        """Make the audio that LiveAvatar dropped wait again under a new id: from `continuation` on."""
        at = self.continuation()
        self._restart(at)
        self._move_send(_WAITING)
        if self.playback_state is not _PENDING:
            self._move_playback(_PENDING)
        self.start_may_be_lost = False
        self.upstream_id = upstream_id
        self.delivery = Delivery(at)
        self._heard_before_s += self.heard_s - self.resumed_s
        self.resumed_at = at
        self.step_back_s = max(0.0, self.heard_s - self.resumed_s)
        self.held_at = None
        self.sent_s = self.heard_s = self.resumed_s
        self.dry_after_s = 0.0
        self.first_sent_at_s = self.end_sending = self.overdue_at_s = None

    # --- playback

    def accept(self) -> bool:
        """Record a sign that LiveAvatar has any of the audio, and return True for the first sign."""
        if self.playback_state is not _PENDING:
            return False
        self._move_playback(_ACCEPTED)
        return True

    def miss_start(self, *, accepted: bool) -> None:
        """Record that its start may have been reported without its name, or to a lost socket.

        Args:
            accepted: True to count the utterance as accepted too, where no ack would ever show that.
        """
        self.start_may_be_lost = True
        if accepted:
            self.accept()

    def start(self, *, end_due_at_s: float = 0.0) -> None:
        """Record its first sound under the present upstream id.

        Args:
            end_due_at_s: Time by which LiveAvatar should report the end of playback, if all of it was sent.
        """
        self._move_playback(_PLAYING)
        if self.overdue_at_s is not None:
            self.overdue_at_s = end_due_at_s
        self.was_heard = True

    def retry(self) -> None:
        """Record that the utterance is sent again because LiveAvatar accepted and did not play it."""
        self.retried = True

    def position_s(self, clock: PlayoutClock, now_s: float) -> float:
        """Return the seconds that were played by now, which never decrease."""
        if self.playback_state is _PLAYING:
            heard_s = min(self.sent_s, max(self.resumed_s, clock.heard_s(now_s) - self.start_s))
            self.heard_s = max(self.heard_s, heard_s)
            self.played_s = max(self.played_s, self.heard_s)
        return self.played_s

    def is_heard(self) -> bool:
        """Return True when all of it was heard by the clock, its end included."""
        return self.started and self.end_sent and self.heard_s >= self.sent_s and not self.delivery.again

    # --- the end

    def drop(self) -> int:
        """Drop waiting audio, repeats included, accept no more, and return how many bytes were never cut."""
        self.delivery.again.clear()
        return super().drop()

    def interrupt(self) -> int:
        """Drop waiting audio, and return its size in bytes; an interrupt makes LiveAvatar drop the rest."""
        self.interrupted = True
        return self.drop()

    def finish(self, outcome: Outcome, played_s: float, *, inferred: bool = False) -> int:
        """Set the outcome, release the audio, and return how many bytes were never sent."""
        dropped = self.drop()
        self._move_playback(_PLAYED if self.was_heard else _UNPLAYED)
        self.outcome = outcome
        self.inferred = inferred
        self.heard_s = max(self.heard_s, played_s)
        self.played_s = max(self.played_s, played_s)
        self.held_at = None
        self._retained = []
        self.delivery.forget()
        if outcome is Outcome.COMPLETED:
            self.delivery.confirmed = self.cut
        return dropped
