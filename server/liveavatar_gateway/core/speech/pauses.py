"""Pauses: interrupts that keep the audio which was not heard, until speech continues."""

from dataclasses import dataclass

from liveavatar_gateway.core.events import SpeechContinued, SpeechPaused
from liveavatar_gateway.core.outputs import ContinueAnswer, PauseAnswer
from liveavatar_gateway.core.snapshot import PauseSnapshot
from liveavatar_gateway.core.speech.interrupts import Interrupts
from liveavatar_gateway.core.speech.queue import UtteranceQueue
from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.core.states import PAUSE_TRANSITIONS, ContinueCause, PauseState, TimeoutAction, move


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseTimeout:
    """Timeout of a pause."""

    seconds: float | None = None
    """Longest duration of the pause; None for no limit."""
    action: TimeoutAction = TimeoutAction.CONTINUE
    """Action when the time is over."""


FOREVER = PauseTimeout()
"""Pause without a timeout."""


class Pauses:
    """Pause of one session's speech.

    A pause makes LiveAvatar drop its audio by an interrupt without targets. The utterance that was playing goes
    back to the last silence before the position that was heard, all others upstream go back to their beginning,
    and nothing is sent until the pause is over.

    Invariant: `utterance` is the first of the queue, or None when none was being spoken at the pause.
    """

    def __init__(self, queue: UtteranceQueue, interrupts: Interrupts) -> None:
        self.state = PauseState.RUNNING
        self.utterance: Utterance | None = None
        """Utterance that is paused; None when none was being spoken."""
        self._queue = queue
        self._interrupts = interrupts
        self._due_at_s: float | None = None
        self._at_timeout = TimeoutAction.CONTINUE
        self._repeated_s = 0.0
        self._cause = ContinueCause.COMMAND
        self._pause_calls: list[int] = []
        self._continue_calls: list[int] = []

    @property
    def is_paused(self) -> bool:
        """True from the command that pauses speech to the end of the pause."""
        return self.state is PauseState.PAUSING or self.state is PauseState.PAUSED

    @property
    def deadline_s(self) -> float | None:
        """Time of the timeout; None without one."""
        return self._due_at_s

    def _move(self, following: PauseState) -> None:
        self.state = move(PAUSE_TRANSITIONS, self.state, following)

    # --- the caller's side

    def pause(self, utterance_id: str, timeout: PauseTimeout, now_s: float) -> int:
        """Pause speech; return the id of the `PauseAnswer` that follows.

        Args:
            utterance_id: The only utterance to pause at; it is the first of the queue, or the pause has no effect.
                Empty for any, or for none.
            timeout: Timeout of the pause; replaces that of a present pause.
            now_s: Monotonic time.

        Raises:
            UtteranceNotFound: The session never had this utterance.
        """
        call_id = self._interrupts.next_call_id()
        if utterance_id and not self._is_first(self._queue.meant_by(utterance_id)):
            self._queue.reports.append(PauseAnswer(call_id, paused=self.is_paused))
            return call_id
        self._at_timeout = timeout.action
        self._due_at_s = None if timeout.seconds is None else now_s + timeout.seconds
        self._pause_calls.append(call_id)
        if self.state is PauseState.CONTINUING:
            self._move(PauseState.PAUSING)
            self._answer_continues()
        elif self.state is PauseState.RUNNING:
            self._begin(now_s)
        if self.state is PauseState.PAUSED:
            self._answer_pauses()
        return call_id

    def _is_first(self, meant: list[Utterance]) -> bool:
        return bool(meant) and meant[0] is self._queue.active[0]

    def _begin(self, now_s: float) -> None:
        upstream = [one for one in self._queue.active if one.is_upstream]
        if not upstream and self._interrupts.pending is None:
            self._move(PauseState.PAUSED)
            self._report_pause(None)
            return
        for utterance in upstream:
            utterance.hold(self._queue.clock, now_s)
        self._interrupts.pause()
        self._move(PauseState.PAUSING)
        self.utterance = upstream[0] if upstream else None

    def continue_speech(self, cause: ContinueCause = ContinueCause.COMMAND) -> int:
        """Continue speech; return the id of the `ContinueAnswer` that follows."""
        call_id = self._interrupts.next_call_id()
        if self.state is PauseState.RUNNING:
            self._queue.reports.append(ContinueAnswer(call_id))
            return call_id
        self._continue_calls.append(call_id)
        self._due_at_s = None
        if self.is_paused:
            self._cause = cause
        if self.state is PauseState.PAUSING:
            self._move(PauseState.CONTINUING)
        elif self.state is PauseState.PAUSED:
            self._continue()
        return call_id

    def is_ended_by(self, utterance_id: str) -> bool:
        """Return True when an interrupt of an utterance, or of all without an id, ends the present pause."""
        if self.state is PauseState.RUNNING:
            return False
        return not utterance_id or (self.utterance is not None and self.utterance.id == utterance_id)

    def end(self) -> None:
        """End the present pause, since the paused utterance is interrupted."""
        self._due_at_s = None
        self._cause = ContinueCause.INTERRUPT
        if self.state is PauseState.PAUSED:
            self._continue()
            return
        # The avatar was never silent for this pause, so no event has announced it.
        self._move(PauseState.RUNNING)
        self._answer_pauses()
        self._answer_continues()
        self.utterance = None

    # --- progress

    def settle(self) -> None:
        """Complete a pause whose interrupt LiveAvatar has carried out."""
        if self._interrupts.pending is not None:
            return
        if self.state is PauseState.PAUSING:
            self._move(PauseState.PAUSED)
            self._report_pause(self.utterance)
            self._answer_pauses()
        elif self.state is PauseState.CONTINUING:
            self._report_pause(self.utterance)
            self._answer_pauses()
            self._continue()

    def tick(self, now_s: float) -> TimeoutAction | None:
        """Return the action of a timeout that is due, once."""
        if self._due_at_s is None or now_s < self._due_at_s:
            return None
        self._due_at_s = None
        return self._at_timeout

    def _report_pause(self, utterance: Utterance | None) -> None:
        if utterance is not None and utterance.outcome is not None:
            # Its end was reported before LiveAvatar carried the interrupt out.
            utterance = None
        self.utterance = utterance
        self._repeated_s = 0.0 if utterance is None else utterance.step_back_s
        paused = SpeechPaused("", 0.0)
        if utterance is not None:
            paused = SpeechPaused(utterance.id, utterance.played_s, utterance.heard_text)
        self._queue.reports.append(paused)

    def _answer_pauses(self) -> None:
        paused = self.state is not PauseState.RUNNING
        one = self.utterance if paused else None
        for call_id in self._pause_calls:
            self._queue.reports.append(
                PauseAnswer(call_id, paused=paused)
                if one is None
                else PauseAnswer(call_id, one.id, one.played_s, paused=paused, heard_text=one.heard_text)
            )
        self._pause_calls.clear()

    def _continue(self) -> None:
        self._move(PauseState.RUNNING)
        utterance_id = "" if self.utterance is None else self.utterance.id
        self._queue.reports.append(SpeechContinued(utterance_id, self._repeated_s, self._cause))
        self._answer_continues(utterance_id, self._repeated_s)
        self.utterance = None

    def _answer_continues(self, utterance_id: str = "", repeated_s: float = 0.0) -> None:
        self._queue.reports.extend(
            ContinueAnswer(call_id, utterance_id, repeated_s, was_paused=True) for call_id in self._continue_calls
        )
        self._continue_calls.clear()

    # --- takeover from another process

    def snapshot(self, now_s: float) -> PauseSnapshot | None:
        """Return what another process needs to keep the pause; None without a pause."""
        if not self.is_paused:
            return None
        return PauseSnapshot(
            state=self.state,
            utterance_id="" if self.utterance is None else self.utterance.id,
            repeated_s=self._repeated_s,
            left_s=None if self._due_at_s is None else self._due_at_s - now_s,
            at_timeout=self._at_timeout,
        )

    def restore(self, pause: PauseSnapshot, now_s: float) -> None:
        """Keep the pause of another process; a pause that was on its way is sent to LiveAvatar again."""
        self._at_timeout = pause.at_timeout
        self._due_at_s = None if pause.left_s is None else now_s + pause.left_s
        self._repeated_s = pause.repeated_s
        self.utterance = next((one for one in self._queue.active if one.id == pause.utterance_id), None)
        if pause.state is PauseState.PAUSED:
            self._move(PauseState.PAUSED)
        else:
            self._interrupts.pause()
            self._move(PauseState.PAUSING)
