"""State machine of callers who pause: each byte from the point of continuation is sent once and in order."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test
from tests.unit.core.test_speech_machine import SpeechMachine, Turn

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.events import SpeechContinued, SpeechPaused
from liveavatar_gateway.core.states import Outcome, PauseState, TimeoutAction

# Hypothesis shrinks a failure for minutes; a timeout before that would hide the example.
pytestmark = pytest.mark.timeout(300)

_LONGEST_STEP_BACK_S = 1.001


class PauseMachine(SpeechMachine):
    """Model of a caller who also pauses."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []
        self.resumed: dict[str, int] = {}
        """Position from which each upstream id continues."""
        self.played: dict[str, float] = {}
        self.discardable: dict[str, int] = {}
        self.ids: dict[str, str] = {}
        """Present upstream id of each utterance."""
        self.spoken_at_pause: int | None = None

    @rule(
        named=st.sampled_from(["", "first", "any"]),
        timeout_s=st.sampled_from([None, 0.1, 2.0]),
        action=st.sampled_from(TimeoutAction),
    )
    def pause(self, named, timeout_s, action):
        active = self.rig.speech.active
        utterance_id = ""
        if named == "first" and active:
            utterance_id = active[0].id
        elif named == "any" and self.turns:
            utterance_id = self.turns[-1].utterance.id
        if action is TimeoutAction.INTERRUPT and timeout_s is not None:
            # Utterances that begin before the timeout are interrupted too, so the model asks for no names.
            action = TimeoutAction.CONTINUE
        self.calls.append(self.rig.pause(utterance_id, timeout_s, action))

    @rule()
    def continue_speech(self):
        self.calls.append(self.rig.continue_speech())

    @invariant()
    def nothing_is_sent_during_a_pause(self):
        if not hasattr(self, "rig"):
            return
        sent = sum(isinstance(one, m.Speak | m.SpeakEnd) for one in self.rig.commands)
        if self.rig.speech.pauses.state is not PauseState.PAUSED:
            self.spoken_at_pause = None
        elif self.spoken_at_pause is None:
            self.spoken_at_pause = sent
            assert not any(one.is_upstream for one in self.rig.speech.active)

    @invariant()
    def every_command_is_about_a_living_utterance(self):
        """Check as without pauses, and note where each upstream id begins."""
        super().every_command_is_about_a_living_utterance()
        for turn in self.turns:
            self.resumed.setdefault(turn.utterance.upstream_id, turn.utterance.resumed_at)

    @invariant()
    def nothing_that_was_reported_decreases(self):
        for turn in self.turns:
            one = turn.utterance
            if one.outcome is not None:
                continue
            played_s = one.position_s(self.rig.speech.clock, self.rig.now_s)
            assert played_s >= self.played.get(one.id, 0.0)
            self.played[one.id] = played_s
            if self.ids.setdefault(one.id, one.upstream_id) != one.upstream_id:
                self.ids[one.id] = one.upstream_id
                assert one.resumed_at >= self.discardable.get(one.id, 0)
            needed_from = one.needed_from()
            assert needed_from >= self.discardable.get(one.id, 0)
            self.discardable[one.id] = needed_from
            assert 0.0 <= one.step_back_s <= _LONGEST_STEP_BACK_S

    def teardown(self):
        """Continue, and check that every call was answered and every pause is over."""
        if not self.turns:
            return
        self.calls.append(self.rig.continue_speech())
        super().teardown()
        answered = [answer.call_id for answer in self.rig.pause_answers]
        assert set(self.calls) <= set(answered), "a pause was never answered"
        assert len(answered) == len(set(answered)), "a pause was answered twice"
        paused, continued = self.rig.of(SpeechPaused), self.rig.of(SpeechContinued)
        assert len(paused) == len(continued)

    def check_bytes(self, turn: Turn) -> None:
        """Check the audio under each upstream id from the position from which it continues."""
        utterance = turn.utterance
        tail_bytes = len(turn.audio) % self.audio_input.frame_bytes
        audio = bytes(turn.audio[: len(turn.audio) - tail_bytes])
        for upstream_id in turn.upstream_ids:
            rest = audio[self.resumed[upstream_id] :]
            whole = self.audio_input.new_converter().convert([rest], last=True)
            assert whole.startswith(self.rig.sent(upstream_id)), "audio was sent twice, out of order, or changed"
        if utterance.outcome is Outcome.COMPLETED and turn.upstream_ids:
            last = turn.upstream_ids[-1]
            rest = audio[self.resumed[last] :]
            whole = self.audio_input.new_converter().convert([rest], last=True)
            assert self.rig.sent(last) == whole, "audio was lost"


def test_pauses_lose_no_audio_and_are_answered_once(make_rig):
    machine = type("Machine", (PauseMachine,), {"make_rig": staticmethod(make_rig)})
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))
