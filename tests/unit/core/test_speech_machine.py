"""State machine of callers and LiveAvatar builds: each byte is sent once and in order, each utterance ends once.

A model caller cuts chunks, interrupts and waits at random. A model avatar plays in real time and answers as one of
the builds that were seen. Its events may come late, twice, out of order, or never.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.errors import UpstreamStalled
from liveavatar_gateway.core.events import UtteranceEnded, UtteranceStarted
from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.core.states import Outcome
from testkit.avatar import FORMATS, Avatar, audio_input_of

# Hypothesis shrinks a failure for minutes; a timeout before that would hide the example.
pytestmark = pytest.mark.timeout(300)

_SLICE_S = 0.05
_EPSILON_S = 1e-6
_SILENCE_S = 5.0
"""Shortest silence about an utterance after which the utterance may fail."""


@dataclass
class Turn:
    """Utterance as the model caller knows it."""

    utterance: Utterance
    audio: bytearray = field(default_factory=bytearray)
    cut_at_command: int | None = None
    """Number of commands when the utterance was interrupted by id; no later one may be about it."""
    upstream_ids: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    ended_at_s: float | None = None


class SpeechMachine(RuleBasedStateMachine):
    """Model of a caller and an avatar around a session."""

    make_rig: Callable[..., Any]

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[Turn] = []
        self.open: Turn | None = None
        self.interrupt_ids: list[int] = []
        self.promised = 0
        self.events_told = 0
        self.starts_told: set[str] = set()
        """Ids that starts named."""
        self.commands_heard = 0
        self.commands_checked = 0
        self.entries_checked = 0
        self.cut_at: tuple[float, int] | None = None

    @initialize(
        audio_format=st.sampled_from([None, *FORMATS]),
        dialect=st.sampled_from(sorted(Avatar.TELLS)),
        naming=st.sampled_from(["source", "echo", "none"]),
        seed=st.integers(0, 2**16),
        max_buffered_s=st.sampled_from([1.0, 2.5, 6.0]),
        queue_lead_s=st.sampled_from([0.0, 0.4, 3.0]),
        pongs=st.booleans(),
    )
    def connect(self, audio_format, dialect, naming, seed, max_buffered_s, queue_lead_s, pongs):
        speech = {"max_buffered_s": max_buffered_s, "max_utterances": 500}
        self.rig = type(self).make_rig(speech, {"queue_lead_s": queue_lead_s}).ready()
        self.audio_input = audio_input_of(audio_format)
        self.avatar = Avatar(dialect, naming)
        # Acks may be lost here, but the proof that a lasting socket has read the audio may not stay out.
        self.pongs = pongs or "acks" in Avatar.TELLS[dialect]
        self.random = random.Random(seed)

    # --- the caller

    @rule()
    def begin(self):
        self.seal()
        self.open = Turn(self.rig.begin(f"u{len(self.turns)}", self.audio_input))
        self.turns.append(self.open)

    @precondition(lambda self: self.open is not None)
    @rule(
        seconds=st.sampled_from([0.001, 0.02, 0.1, 0.37, 1.0, 2.5, 60.0]),
        again_s=st.sampled_from([None, 0.0, 0.02]),
        odd_bytes=st.sampled_from([0, 0, 1, 2, 3]),
    )
    def chunk(self, seconds, again_s, odd_bytes):
        """Send as much as the credit allows, cut anywhere, perhaps with bytes that were sent before."""
        assert self.open is not None
        utterance = self.open.utterance
        size = max(0, min(round(seconds * self.audio_input.byte_rate) + odd_bytes, self.promised - self.taken))
        new, offset = self.random.randbytes(size), None
        if utterance.sealed:  # interrupted, so chunks in flight are dropped
            self.rig.receive(utterance, new)
            return
        repeated = b""
        if again_s is not None:
            repeat = min(utterance.received, round(again_s * self.audio_input.byte_rate) + odd_bytes)
            offset, repeated = utterance.received - repeat, bytes(self.open.audio[len(self.open.audio) - repeat :])
        self.open.audio += new
        self.rig.receive(utterance, repeated + new, offset)
        assert utterance.received == len(self.open.audio)

    @rule(seconds=st.sampled_from([0.03, 0.3, 0.7, 1.5, 4.0]))
    def say(self, seconds):
        """Send a whole utterance at once, as a fast speech synthesis does."""
        self.begin()
        self.chunk(seconds, None, 0)
        self.seal()

    @precondition(lambda self: self.open is not None)
    @rule()
    def seal(self):
        if self.open is not None:
            self.rig.seal(self.open.utterance)
            self.open = None

    @precondition(lambda self: self.open is not None)
    @rule()
    def cancel(self):
        assert self.open is not None
        self.note_interrupts([self.open])
        self.rig.session.cancel(self.open.utterance)
        self.open = None
        self.rig.wake()

    @rule()
    def interrupt_all(self):
        self.note_interrupts(self.turns)
        self.interrupt_ids.append(self.rig.interrupt())

    @precondition(lambda self: self.turns)
    @rule(back=st.integers(0, 4))
    def interrupt_one(self, back):
        """Interrupt an utterance, often a recent one, which may be open, queued, upstream, playing or ended."""
        turn = self.turns[max(0, len(self.turns) - 1 - back)]
        self.note_interrupts([turn])
        self.interrupt_ids.append(self.rig.interrupt(turn.utterance.id))

    @precondition(lambda self: self.rig.speech.active)
    @rule()
    def interrupt_the_first_in_line(self):
        """Interrupt the playing utterance alone, as most callers do."""
        (turn,) = [turn for turn in self.turns if turn.utterance is self.rig.speech.active[0]]
        self.note_interrupts([turn])
        self.interrupt_ids.append(self.rig.interrupt(turn.utterance.id))

    def note_interrupts(self, turns: list[Turn]) -> None:
        for turn in turns:
            if turn.utterance.outcome is None and turn.cut_at_command is None:
                turn.cut_at_command = len(self.rig.commands)

    @property
    def taken(self) -> int:
        return sum(turn.utterance.received for turn in self.turns)

    # --- LiveAvatar and time

    @rule(seconds=st.sampled_from([0.05, 0.2, 0.4, 1.0, 2.0]), prompt=st.booleans())
    def wait(self, seconds, prompt):
        """Deliver events at once with a prompt network, else keep them for `deliver`."""
        for _ in range(round(seconds / _SLICE_S)):
            self.rig.run(_SLICE_S)
            self.avatar_catches_up()
            if prompt:
                self.deliver_all()

    @precondition(lambda self: self.avatar.said)
    @rule(index=st.integers(0, 3), fate=st.sampled_from(["once", "once", "twice", "never"]), jump=st.booleans())
    def deliver(self, index, fate, jump):
        """Deliver an event, not always the oldest, once, twice or never."""
        said = self.avatar.said
        event = said.pop(min(index if jump else 0, len(said) - 1))
        for _ in range({"once": 1, "twice": 2, "never": 0}[fate]):
            self.tell(event)

    @precondition(lambda self: self.avatar.said)
    @rule()
    def deliver_all(self):
        said, self.avatar.said = self.avatar.said, []
        for event in said:
            self.tell(event)

    def tell(self, event: m.Event) -> None:
        self.events_told += 1
        if isinstance(event, m.SpeakStarted):
            self.starts_told.update(event.refs.ids)
        self.rig.tell(event)

    def avatar_catches_up(self) -> None:
        commands = self.rig.commands[self.commands_heard :]
        self.commands_heard = len(self.rig.commands)
        for command in commands:
            self.avatar.hear(command, self.rig.now_s)
        if self.pongs:
            self.rig.tell(m.PongReceived(self.rig.speech.sent_count))
        self.avatar.play(self.rig.now_s)

    # --- invariants

    @invariant()
    def every_command_is_about_a_living_utterance(self):
        """Check that no audio of an interrupted utterance, of an old id, or before the answer is sent."""
        for index in range(self.commands_checked, len(self.rig.commands)):
            command, at_s = self.rig.commands[index], self.rig.times_s[index]
            if isinstance(command, m.Interrupt):
                self.cut_at = at_s, self.events_told
                continue
            if isinstance(command, m.Probe):
                continue
            if self.cut_at is not None:
                cut_at_s, told_before = self.cut_at
                answered = self.events_told > told_before
                assert answered or at_s >= cut_at_s + 1.0, "speech did not wait for the interrupt"
            turn = next(turn for turn in self.turns if turn.utterance.upstream_id == command.event_id)
            assert turn.cut_at_command is None or index < turn.cut_at_command, "a cut utterance went on"
            if command.event_id not in turn.upstream_ids:
                turn.upstream_ids.append(command.event_id)
            assert turn.upstream_ids[-1] == command.event_id, "an old id came back"
            if isinstance(command, m.Speak):
                assert 0 < len(command.pcm) <= 700_000
                assert len(command.pcm) % 2 == 0
        self.commands_checked = len(self.rig.commands)

    @invariant()
    def credit_that_was_told_is_never_taken_back(self):
        """Check the credit, which an ack may report at any time and the caller may use at any later time."""
        credit = self.rig.speech.credit_bytes(self.audio_input)
        assert credit >= 0
        assert credit % self.audio_input.frame_bytes == 0
        # Seconds are floats: the credit may be a sample too small, but granted credit is never refused.
        assert self.taken + credit >= self.promised - self.audio_input.frame_bytes
        self.promised = max(self.promised, self.taken + credit)

    @invariant()
    def positions_are_in_order(self):
        for turn in self.turns:
            one = turn.utterance
            assert 0 <= one.confirmed <= one.cut <= one.freed <= one.received == len(turn.audio)
            assert one.buffered >= 0
            assert one.cut % self.audio_input.frame_bytes == 0, "a packet ends inside a sample"
            assert one.position_s(self.rig.speech.clock, self.rig.now_s) <= one.sent_s + _EPSILON_S

    @invariant()
    def each_utterance_starts_and_ends_at_most_once(self):
        by_id = {turn.utterance.id: turn for turn in self.turns}
        for entry in self.rig.session.log.after(self.entries_checked):
            self.entries_checked = entry.sequence
            match entry.event:
                case UtteranceStarted(utterance_id):
                    assert by_id[utterance_id].story == []
                    by_id[utterance_id].story.append("started")
                case UtteranceEnded(utterance_id, outcome):
                    assert by_id[utterance_id].story in ([], ["started"])
                    by_id[utterance_id].story.append(outcome.value)
                    by_id[utterance_id].ended_at_s = self.rig.at_s(entry)

    def teardown(self):
        """Silence LiveAvatar: all utterances end by their deadlines, and no byte was lost."""
        if not self.turns:
            return
        self.seal()
        for _ in range(2_000):
            self.rig.run(0.2)
            # The next round may replace an id.
            self.every_command_is_about_a_living_utterance()
            if self.pongs:
                self.rig.tell(m.PongReceived(self.rig.speech.sent_count))
        self.every_command_is_about_a_living_utterance()
        self.positions_are_in_order()
        self.each_utterance_starts_and_ends_at_most_once()
        assert self.rig.speech.active == []
        for turn in self.turns:
            assert turn.utterance.outcome is not None
            assert turn.story[-1] == turn.utterance.outcome.value
            self.check_bytes(turn)
        answered = [answer.interrupt_id for answer in self.rig.answers]
        assert set(self.interrupt_ids) <= set(answered), "an interrupt is never answered"
        assert len(answered) == len(set(answered)), "an interrupt was answered twice"
        assert self.rig.speech.credit_bytes(self.audio_input) == self.rig.speech.config.max_buffered_s * (
            self.audio_input.byte_rate
        )

    def check_bytes(self, turn: Turn) -> None:
        tail_bytes = len(turn.audio) % self.audio_input.frame_bytes
        assert turn.utterance.dropped_tail_bytes == tail_bytes
        audio = bytes(turn.audio[: len(turn.audio) - tail_bytes])
        whole = self.audio_input.new_converter().convert([audio], last=True)
        for upstream_id in turn.upstream_ids:
            assert whole.startswith(self.rig.sent(upstream_id)), "audio was sent twice, out of order, or changed"
        if turn.utterance.outcome is Outcome.INTERRUPTED:
            later = self.turns[self.turns.index(turn) :]
            assert any(one.cut_at_command is not None for one in later), (
                "an utterance was interrupted without a request"
            )
        else:
            is_whole = self.rig.sent(turn.utterance.upstream_id) == whole
            assert is_whole or self.failed_unheard(turn), "audio was lost"

    def failed_unheard(self, turn: Turn) -> bool:
        """Return True when an utterance failed because LiveAvatar reported no start of it for long enough."""
        # A long utterance is still being sent when that silence ends, and its waiting rest would not be played.
        upstream_id = turn.utterance.upstream_id
        if turn.story != ["failed"] or upstream_id in self.starts_told or turn.ended_at_s is None:
            return False
        first_at_s = next(
            at_s
            for command, at_s in zip(self.rig.commands, self.rig.times_s, strict=True)
            if isinstance(command, m.Speak) and command.event_id == upstream_id
        )
        is_stalled = isinstance(turn.utterance.failure, UpstreamStalled)
        return is_stalled and turn.ended_at_s - first_at_s >= _SILENCE_S - _EPSILON_S


def test_any_speech_reaches_the_avatar_once_and_in_order_and_ends_once(make_rig):
    machine = type("Machine", (SpeechMachine,), {"make_rig": staticmethod(make_rig)})
    run_state_machine_as_test(machine, settings=settings(max_examples=100, stateful_step_count=40, deadline=None))
