"""Any caller, any LiveAvatar, any order of events: each byte goes up once and in order, each utterance ends once.

A model caller cuts, interrupts and waits as it likes; a model avatar plays in real time and answers in one of the
dialects that were seen. What it says may come late, twice, out of order, or never.
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
from testkit.avatar import FORMATS, Avatar, intake_of

# A failure is shrunk for minutes; cut short it would show nothing.
pytestmark = pytest.mark.timeout(300)

_SLICE_S = 0.05
_EPSILON_S = 1e-6
_SILENCE_S = 5.0
"""Shortest silence about an utterance after which it may fail."""


@dataclass
class Turn:
    """One utterance as the model caller knows it."""

    utterance: Utterance
    audio: bytearray = field(default_factory=bytearray)
    cut_at_command: int | None = None
    """How many commands were out when it was cut by name; none about it may follow."""
    upstream_ids: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    ended_at_s: float | None = None


class SpeechMachine(RuleBasedStateMachine):
    """A caller and an avatar around one session."""

    make_rig: Callable[..., Any]

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[Turn] = []
        self.open: Turn | None = None
        self.interrupt_ids: list[int] = []
        self.promised = 0
        self.events_told = 0
        self.starts_told: set[str] = set()
        """Ids that were named by starts."""
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
        self.intake = intake_of(audio_format)
        self.avatar = Avatar(dialect, naming)
        # An ack may be lost here, but not for ever what a socket that lasts has read.
        self.pongs = pongs or "acks" in Avatar.TELLS[dialect]
        self.random = random.Random(seed)

    # --- the caller

    @rule()
    def begin(self):
        self.seal()
        self.open = Turn(self.rig.begin(f"u{len(self.turns)}", self.intake))
        self.turns.append(self.open)

    @precondition(lambda self: self.open is not None)
    @rule(
        seconds=st.sampled_from([0.001, 0.02, 0.1, 0.37, 1.0, 2.5, 60.0]),
        again_s=st.sampled_from([None, 0.0, 0.02]),
        odd_bytes=st.sampled_from([0, 0, 1, 2, 3]),
    )
    def chunk(self, seconds, again_s, odd_bytes):
        """As much as the credit allows, cut anywhere, and perhaps some of what was sent before."""
        assert self.open is not None
        utterance = self.open.utterance
        size = max(0, min(round(seconds * self.intake.byte_rate) + odd_bytes, self.promised - self.taken))
        new, offset = self.random.randbytes(size), None
        if utterance.sealed:  # it was cut: what is on its way is dropped
            self.rig.receive(utterance, new)
            return
        repeated = b""
        if again_s is not None:
            repeat = min(utterance.received, round(again_s * self.intake.byte_rate) + odd_bytes)
            offset, repeated = utterance.received - repeat, bytes(self.open.audio[len(self.open.audio) - repeat :])
        self.open.audio += new
        self.rig.receive(utterance, repeated + new, offset)
        assert utterance.received == len(self.open.audio)

    @rule(seconds=st.sampled_from([0.03, 0.3, 0.7, 1.5, 4.0]))
    def say(self, seconds):
        """A whole utterance at once, as a fast voice gives it."""
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
        self.note_cut([self.open])
        self.rig.session.cancel(self.open.utterance)
        self.open = None
        self.rig.wake()

    @rule()
    def interrupt_all(self):
        self.note_cut(self.turns)
        self.interrupt_ids.append(self.rig.interrupt())

    @precondition(lambda self: self.turns)
    @rule(back=st.integers(0, 4))
    def interrupt_one(self, back):
        """Often one of the newest, which may be open, waiting, upstream, heard or over."""
        turn = self.turns[max(0, len(self.turns) - 1 - back)]
        self.note_cut([turn])
        self.interrupt_ids.append(self.rig.interrupt(turn.utterance.id))

    @precondition(lambda self: self.rig.speech.active)
    @rule()
    def interrupt_the_first_in_line(self):
        """The barge-in that callers mean: what is being said, and nothing behind it."""
        (turn,) = [turn for turn in self.turns if turn.utterance is self.rig.speech.active[0]]
        self.note_cut([turn])
        self.interrupt_ids.append(self.rig.interrupt(turn.utterance.id))

    def note_cut(self, turns: list[Turn]) -> None:
        for turn in turns:
            if turn.utterance.outcome is None and turn.cut_at_command is None:
                turn.cut_at_command = len(self.rig.commands)

    @property
    def taken(self) -> int:
        return sum(turn.utterance.received for turn in self.turns)

    # --- LiveAvatar and time

    @rule(seconds=st.sampled_from([0.05, 0.2, 0.4, 1.0, 2.0]), prompt=st.booleans())
    def wait(self, seconds, prompt):
        """With a prompt network events come as they are said, else they pile up for `deliver`."""
        for _ in range(round(seconds / _SLICE_S)):
            self.rig.run(_SLICE_S)
            self.avatar_catches_up()
            if prompt:
                self.deliver_all()

    @precondition(lambda self: self.avatar.said)
    @rule(index=st.integers(0, 3), fate=st.sampled_from(["once", "once", "twice", "never"]), jump=st.booleans())
    def deliver(self, index, fate, jump):
        """One event, not always the oldest; it may come twice, or be lost."""
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

    # --- what must hold

    @invariant()
    def every_command_is_about_a_living_utterance(self):
        """Not about a cut one, not under an id that was given up, and not while an interrupt is on its way."""
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
        """An ack may tell it at any time, and the caller may use it at any later time."""
        credit = self.rig.speech.credit_bytes(self.intake)
        assert credit >= 0
        assert credit % self.intake.frame_bytes == 0
        # Seconds are floats: one sample less may be told at times, but none that was told is refused.
        assert self.taken + credit >= self.promised - self.intake.frame_bytes
        self.promised = max(self.promised, self.taken + credit)

    @invariant()
    def positions_are_in_order(self):
        for turn in self.turns:
            one = turn.utterance
            assert 0 <= one.confirmed <= one.cut <= one.freed <= one.received == len(turn.audio)
            assert one.buffered >= 0
            assert one.cut % self.intake.frame_bytes == 0, "a packet ends inside a sample"
            assert one.position_s(self.rig.speech.clock, self.rig.now_s) <= one.sent_s + _EPSILON_S

    @invariant()
    def each_utterance_starts_and_ends_at_most_once(self):
        by_id = {turn.utterance.id: turn for turn in self.turns}
        for entry in self.rig.session.log.after(self.entries_checked):
            self.entries_checked = entry.sequence
            match entry.happening:
                case UtteranceStarted(utterance_id):
                    assert by_id[utterance_id].story == []
                    by_id[utterance_id].story.append("started")
                case UtteranceEnded(utterance_id, outcome):
                    assert by_id[utterance_id].story in ([], ["started"])
                    by_id[utterance_id].story.append(outcome.value)
                    by_id[utterance_id].ended_at_s = self.rig.at_s(entry)

    def teardown(self):
        """LiveAvatar says no more: everything ends by its deadline, and nothing was lost on the way."""
        if not self.turns:
            return
        self.seal()
        for _ in range(2_000):
            self.rig.run(0.2)
            # An id may be given up by the next look.
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
        assert set(self.interrupt_ids) <= set(answered), "who waits for an interrupt waits for ever"
        assert len(answered) == len(set(answered)), "an interrupt was answered twice"
        assert self.rig.speech.credit_bytes(self.intake) == self.rig.speech.config.max_buffered_s * (
            self.intake.byte_rate
        )

    def check_bytes(self, turn: Turn) -> None:
        tail_bytes = len(turn.audio) % self.intake.frame_bytes
        assert turn.utterance.dropped_tail_bytes == tail_bytes
        audio = bytes(turn.audio[: len(turn.audio) - tail_bytes])
        whole = self.intake.new_converter().convert([audio], last=True)
        for upstream_id in turn.upstream_ids:
            assert whole.startswith(self.rig.sent(upstream_id)), "audio went up twice, out of order, or changed"
        if turn.utterance.outcome is Outcome.INTERRUPTED:
            later = self.turns[self.turns.index(turn) :]
            assert any(one.cut_at_command is not None for one in later), "it was cut although nobody asked for it"
        else:
            is_whole = self.rig.sent(turn.utterance.upstream_id) == whole
            assert is_whole or self.failed_unheard(turn), "audio was lost"

    def failed_unheard(self, turn: Turn) -> bool:
        """Return whether an utterance failed since LiveAvatar, for long enough, told no start of it."""
        # A long one is still going up when that silence is over, and nobody would hear what waits of it.
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
