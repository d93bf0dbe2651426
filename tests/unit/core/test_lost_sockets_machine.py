"""State machine of speech over sockets that are lost at any moment: no byte is lost, unconfirmed ones alone
repeat.

A simulated wire connects the session and a model avatar. While the wire lasts, it keeps the order and delivers all
data. When it is lost, a random part of the data in flight arrives, in either direction, and the rest never does.
"""

import random
from collections import Counter
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
from liveavatar_gateway.core.events import Reconnected
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.core.states import Outcome, SessionState
from testkit.avatar import FORMATS, Avatar, audio_input_of

# Hypothesis shrinks a failure for minutes; a timeout before that would hide the example.
pytestmark = pytest.mark.timeout(300)

_MOST_WORDS = 15
_MOST_REPEATED_BYTES = 5 * m.BYTE_RATE
_PATIENCE_S = 0.8
"""Longest delay of a lasting wire, in seconds. LiveAvatar acknowledges in a fraction of that."""


@dataclass
class Turn:
    """Utterance as the model caller knows it."""

    utterance: Utterance
    audio: bytearray = field(default_factory=bytearray)
    cut_at_command: int | None = None
    upstream_ids: set[str] = field(default_factory=set)
    """Number of interrupts after which the utterance began again."""


@dataclass
class Heard:
    """Command as the avatar received it."""

    index: int
    command: m.Command
    losses: int
    """Number of sockets that were lost before."""


class LostSockets(RuleBasedStateMachine):
    """Model of a caller, a session, a wire and an avatar."""

    make_rig: Callable[..., Any]
    dialects: tuple[str, ...]
    orderly: bool
    """True when the avatar's answers to all that it received arrive before the loss is noticed."""
    calm_s = 0.0
    """Shortest life of a socket, in seconds."""
    pongs = False
    """True when the avatar's end of the socket answers pings."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[Turn] = []
        self.open: Turn | None = None
        self.interrupt_ids: list[int] = []
        self.heard: list[Heard] = []
        self.arrived = 0
        self.numbered = 0
        self.losses = 0
        self.gaps = 0
        self.repeated: Counter[int] = Counter()
        """Bytes that the avatar received twice, by the number of the socket that repeated them."""
        self.floors: list[dict[str, int]] = []
        """Position before which no PCM byte may be repeated, for each loss and upstream id."""
        self.concluded: set[str] = set()
        """Upstream ids of utterances that a later one had followed when the socket was lost, without
        confirmations. Missing audio cannot be sent after that later one, so it counts as received; see decision
        0010."""
        self.looked_at = 0
        self.held_s = 0.0
        self.connected = True

    @initialize(
        audio_format=st.sampled_from([None, *FORMATS]),
        dialect=st.integers(0, 3),
        naming=st.sampled_from(["source", "echo", "none"]),
        seed=st.integers(0, 2**16),
        queue_lead_s=st.sampled_from([0.0, 0.4, 3.0]),
    )
    def connect(self, audio_format, dialect, naming, seed, queue_lead_s):
        speech = {"max_buffered_s": 60.0, "max_utterances": 500}
        self.rig = self.ready_rig(speech, {"queue_lead_s": queue_lead_s})
        self.audio_input = audio_input_of(audio_format)
        self.dialect = self.dialects[dialect % len(self.dialects)]
        self.naming = naming
        self.avatar = Avatar(self.dialect, naming)
        self.proves = self.pongs or "acks" in Avatar.TELLS[self.dialect]
        self.random = random.Random(seed)
        self.opened_at_s = self.rig.now_s
        if not self.proves:
            self.show_that_pongs_never_come()

    def ready_rig(self, speech: dict[str, Any], scheduler: dict[str, Any]) -> Any:
        return type(self).make_rig(speech, scheduler).ready()

    def show_that_pongs_never_come(self) -> None:
        """Show by playback that a missing confirmation proves nothing; before, it means missing audio."""
        self.say(0.7)
        for _ in range(100):
            self.wait(0.4)
            if not self.rig.speech.active:
                return
        raise AssertionError("the first utterance never ended")

    # --- the caller

    @rule(seconds=st.sampled_from([0.03, 0.3, 0.7, 1.5, 4.0, 9.0]))
    def say(self, seconds):
        """Send a whole utterance at once, as a fast speech synthesis does."""
        self.begin()
        self.chunk(seconds)
        self.seal()

    # Without confirmations each end takes five simulated seconds, so a longer run would show nothing new.
    @precondition(lambda self: len(self.turns) < _MOST_WORDS)
    @rule()
    def say_word_by_word(self):
        """Send utterances so short that all fit into the lead: an unnamed ack could be about any."""
        for _ in range(3):
            self.say(0.03)

    @rule()
    def begin(self):
        self.seal()
        self.open = Turn(self.rig.begin(f"u{len(self.turns)}", self.audio_input))
        self.turns.append(self.open)

    @precondition(lambda self: self.open is not None)
    @rule(seconds=st.sampled_from([0.02, 0.1, 0.37, 1.0]))
    def chunk(self, seconds):
        turn = self.open
        room = self.rig.speech.credit_bytes(self.audio_input)
        frame_bytes = self.audio_input.frame_bytes
        size = min(round(seconds * self.audio_input.byte_rate), room) // frame_bytes * frame_bytes
        audio = self.random.randbytes(size)
        if not turn.utterance.sealed:
            turn.audio += audio
        self.rig.receive(turn.utterance, audio)

    @precondition(lambda self: self.open is not None)
    @rule()
    def seal(self):
        if self.open is not None:
            self.rig.seal(self.open.utterance)
            self.open = None

    @rule(back=st.none() | st.integers(0, 3))
    def interrupt(self, back):
        """Interrupt all utterances, or a recent one."""
        if back is None:
            cut = self.turns
        elif self.turns:
            cut = [self.turns[max(0, len(self.turns) - 1 - back)]]
        else:
            return
        for turn in cut:
            if turn.utterance.outcome is None and turn.cut_at_command is None:
                turn.cut_at_command = len(self.rig.commands)
        self.interrupt_ids.append(self.rig.interrupt("" if back is None else cut[0].utterance.id))

    # --- the wire

    @rule(seconds=st.sampled_from([0.05, 0.2, 0.4]))
    def wait_while_all_is_on_its_way(self, seconds):
        """Delay the wire for a moment, during which the avatar plays."""
        if self.connected and self.held_s + seconds > _PATIENCE_S:
            # Many such moments in a row would be an avatar that reports nothing for seconds, which rightly fails.
            self.avatar.play(self.rig.now_s)
            self.deliver()
        self.held_s += seconds
        self.rig.run(seconds)

    @rule(seconds=st.sampled_from([0.05, 0.4, 1.0, 3.0]))
    def wait(self, seconds):
        for _ in range(round(seconds / 0.05)):
            self.rig.run(0.05)
            self.avatar.play(self.rig.now_s)
            if self.connected:
                self.deliver()
            self.after_a_moment()

    def after_a_moment(self) -> None:
        """Run what is due on the wire and at the avatar."""

    def deliver(self) -> None:
        """Deliver all data in flight."""
        self.held_s = 0.0
        while True:
            self.carry_up(len(self.rig.commands))
            said, self.avatar.said = self.avatar.said, []
            self.tell(said)
            if self.arrived == len(self.rig.commands) and not self.avatar.said:
                return

    def carry_up(self, upto: int) -> None:
        while self.arrived < upto:
            command = self.rig.commands[self.arrived]
            self.heard.append(Heard(self.arrived, command, self.losses))
            self.arrived += 1
            self.avatar.hear(command, self.rig.now_s)
            if isinstance(command, m.Speak | m.SpeakEnd | m.Interrupt):
                self.numbered += 1
            if self.pongs and isinstance(command, m.Speak | m.SpeakEnd | m.Interrupt | m.Probe):
                self.avatar.said.append(m.PongReceived(self.numbered))

    def tell(self, events: list[m.Event]) -> None:
        for event in events:
            self.rig.tell(event)

    @precondition(lambda self: self.connected and self.rig.now_s >= self.opened_at_s + self.calm_s)
    @rule(up=st.floats(0, 1), down=st.floats(0, 1))
    def lose(self, up, down):
        """Lose the socket, and with it the rest of the data in flight."""
        on_the_way = len(self.rig.commands) - self.arrived
        self.carry_up(self.arrived + round(up * on_the_way))
        said, self.avatar.said = self.avatar.said, []
        self.tell(said if self.orderly else said[: round(down * len(said))])
        self.note_floors()
        if not self.proves:
            begun = [turn.utterance for turn in self.turns if turn.utterance.first_sent_at_s is not None]
            self.concluded.update(one.upstream_id for one in begun[:-1] if one.outcome is None)
        self.gaps += self.rig.session.state is SessionState.READY
        self.rig.session.socket_lost(self.rig.now_s)
        self.rig.wake()
        # Commands that such an answer released were sent to a socket that was lost already.
        self.numbered = self.rig.speech.sent_count
        self.arrived = len(self.rig.commands)
        self.losses += 1
        self.connected = False

    def note_floors(self) -> None:
        floor: dict[str, int] = {}
        for turn in self.turns:
            one = turn.utterance
            if one.outcome is None:
                unconfirmed = sum(len(packet.pcm) for packet in (*one.delivery.unconfirmed, *one.delivery.again))
                total = round(one.sent_s * m.BYTE_RATE)
                floor[one.upstream_id] = total - unconfirmed
        self.floors.append(floor)

    @precondition(lambda self: not self.connected)
    @rule(says_connected=st.booleans())
    def reopen(self, says_connected):
        self.avatar.said.clear()
        self.rig.session.socket_opened(self.rig.now_s)
        self.opened_at_s = self.rig.now_s
        self.connected = True
        if says_connected:
            self.tell([m.StateUpdated("connected")])
        self.rig.wake()

    # --- invariants

    @invariant()
    def every_command_is_about_somebody(self):
        for command in self.rig.commands[self.looked_at :]:
            if isinstance(command, m.Speak | m.SpeakEnd):
                (turn,) = [one for one in self.turns if one.utterance.upstream_id == command.event_id]
                turn.upstream_ids.add(command.event_id)
        self.looked_at = len(self.rig.commands)

    def teardown(self):
        """Let the wire last: all utterances end, and all speech was played."""
        if not self.turns:
            return
        self.seal()
        if not self.connected:
            self.reopen(True)
        # Without reports of ends, each is inferred some five seconds after the one before.
        for _ in range(1_000 + 20 * len(self.turns)):
            self.wait(0.4)
            answered = len(self.rig.answers) == len(self.interrupt_ids)
            if answered and not self.rig.speech.active and self.rig.session.state is SessionState.READY:
                break
        self.every_command_is_about_somebody()
        assert self.rig.speech.active == []
        for turn in self.turns:
            self.check(turn)
        self.check_interrupts()
        self.check_order_of_utterances()
        assert all(size <= _MOST_REPEATED_BYTES for size in self.repeated.values()), "too much came twice"
        assert sorted(answer.interrupt_id for answer in self.rig.answers) == sorted(self.interrupt_ids)
        assert self.rig.session.reconnect_count == len(self.rig.of(Reconnected)) == self.gaps
        assert self.rig.speech.totals.upstream_bytes == sum(len(packet.pcm) for packet in self.rig.packets)

    def check_interrupts(self) -> None:
        cut = {one.command.event_id for one in self.heard if isinstance(one.command, m.Interrupt)}
        assert {command.event_id for command in self.rig.cuts} == cut, "an interrupt was lost"

    def check_order_of_utterances(self) -> None:
        """Check that repeated speech comes before all later utterances, except after an interrupt."""
        newest = 0
        for one in self.heard:
            if isinstance(one.command, m.Interrupt):
                newest = 0
            elif isinstance(one.command, m.Speak):
                turn = next(n for n, turn in enumerate(self.turns) if one.command.event_id in turn.upstream_ids)
                assert turn >= newest, "a word came behind a later utterance"
                newest = turn

    def check(self, turn: Turn) -> None:
        whole = self.audio_input.new_converter().convert([bytes(turn.audio)], last=True)
        for upstream_id in turn.upstream_ids:
            self.check_order(upstream_id, whole)
        outcome = turn.utterance.outcome
        assert self.rig.story(turn.utterance.id)[-1] == outcome.value
        if outcome is Outcome.COMPLETED:
            got = self.end_position(turn.utterance.upstream_id, whole)
            assert got == len(whole) or turn.utterance.upstream_id in self.concluded, "audio was lost"
        else:
            assert outcome is Outcome.INTERRUPTED
            assert any(later.cut_at_command is not None for later in self.turns[self.turns.index(turn) :])
        if turn.cut_at_command is not None:
            for one in self.heard:
                speaks = (
                    isinstance(one.command, m.Speak | m.SpeakEnd) and one.command.event_id in turn.upstream_ids
                )
                assert not speaks or one.index < turn.cut_at_command, "a cut utterance went on"

    def spans(self, upstream_id: str, whole: bytes) -> list[tuple[int, int, int]]:
        """Return begin and end of each packet that arrived, and the number of sockets lost before."""
        begins: dict[int, int] = {}
        size = 0
        for packet in self.rig.packets:
            # A repeat is the same object.
            if packet.event_id == upstream_id and id(packet.pcm) not in begins:
                begins[id(packet.pcm)] = size
                assert whole.startswith(packet.pcm, size), "audio was changed"
                size += len(packet.pcm)
        return [
            (begins[id(one.command.pcm)], begins[id(one.command.pcm)] + len(one.command.pcm), one.losses)
            for one in self.heard
            if isinstance(one.command, m.Speak) and one.command.event_id == upstream_id
        ]

    def check_order(self, upstream_id: str, whole: bytes) -> None:
        upto, losses = 0, 0
        for begin, end, lost in self.spans(upstream_id, whole):
            assert begin <= upto, "a gap"
            if begin != upto:
                assert not (self.orderly and self.proves), "audio came twice although all was confirmed"
                assert lost > losses, "audio came twice without a loss"
                floor = min(self.floors[n].get(upstream_id, 0) for n in range(losses, lost))
                assert begin >= floor, "audio came twice that was confirmed"
                self.repeated[lost] += upto - begin
            upto, losses = end, lost

    def end_position(self, upstream_id: str, whole: bytes) -> int:
        return max((end for _, end, _ in self.spans(upstream_id, whole)), default=0)


def run(make_rig: Callable[..., Any], kind: type[LostSockets] = LostSockets, **changes: Any) -> None:
    machine = type("Machine", (kind,), {"make_rig": staticmethod(make_rig), **changes})
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))


_ACKNOWLEDGING = ("modern", "classic", "acks-only", "poses")


def test_each_byte_arrives_once_and_in_order_where_acks_tell_the_truth(make_rig):
    run(make_rig, dialects=_ACKNOWLEDGING, orderly=True)


def test_no_byte_is_lost_and_only_unconfirmed_packets_repeat_where_acks_are_lost(make_rig):
    run(make_rig, dialects=_ACKNOWLEDGING, orderly=False)


def test_each_byte_arrives_once_and_in_order_where_pongs_tell_the_truth(make_rig):
    run(make_rig, dialects=("silent-acks", "modern"), orderly=True, pongs=True)


def test_no_byte_is_lost_and_only_unconfirmed_packets_repeat_where_pongs_are_lost(make_rig):
    run(make_rig, dialects=("silent-acks",), orderly=False, pongs=True)


def test_no_byte_is_lost_where_liveavatar_never_confirms(make_rig):
    """Bounded losses: faster ones pile up repeats, so that silence counts as a failure in the end."""
    run(make_rig, dialects=("silent-acks",), orderly=False, calm_s=1.0)


def test_an_interrupt_that_a_pose_proved_does_not_go_out_again_over_what_is_heard(make_rig):
    """Release of the audio after a start that the pose reported, where nothing is confirmed."""
    kind = {"dialects": ("silent-acks",), "orderly": False, "calm_s": 1.0, "make_rig": staticmethod(make_rig)}
    state = type("Machine", (LostSockets,), kind)()
    state.connect(audio_format=None, dialect=0, naming="source", seed=0, queue_lead_s=0.0)
    for step in (
        state.say_word_by_word,
        lambda: state.wait(seconds=0.05),
        lambda: state.interrupt(back=None),
        state.begin,
        lambda: state.chunk(seconds=1.0),
        lambda: state.wait_while_all_is_on_its_way(seconds=0.2),
        lambda: state.wait(seconds=0.05),
        state.begin,
        lambda: state.lose(down=0.0, up=0.0),
        lambda: state.reopen(says_connected=True),
        lambda: state.wait(seconds=0.05),
    ):
        step()
        state.every_command_is_about_somebody()
    state.teardown()


class Rotating(LostSockets):
    """Variant with limited avatars: standby avatars take over before each limit."""

    limit_s = 25.0

    def ready_rig(self, speech: dict[str, Any], scheduler: dict[str, Any]) -> Any:
        rig = type(self).make_rig(speech, scheduler)
        old = rig.session
        rig.session = Session(old.id, old.config, new_id=old._new_id, utc_now=old._utc_now, auto_rotate=True)
        rig.speech = rig.session.speech
        return rig.ready(max_duration_s=self.limit_s)

    def after_a_moment(self) -> None:
        if self.rig.wants_standby:
            self.rig.session.standby_ready(self.rig.now_s)
        if self.rig.hands_over:
            self.switch()

    def switch(self) -> None:
        """Deliver all data in flight to the outgoing avatar, and ignore its later events."""
        self.note_floors()
        self.losses += 1
        self.numbered = self.rig.speech.sent_count
        self.arrived = len(self.rig.commands)
        self.avatar = Avatar(self.dialect, self.naming)
        self.connected = True
        self.opened_at_s = self.rig.now_s
        self.rig.session.take_over(
            upstream_session_id="fresh",
            max_duration_s=self.limit_s,
            expires_at=None,
            age_s=0.0,
            last_command_at_s=self.rig.now_s,
            now_s=self.rig.now_s,
        )
        self.rig.wake()

    def check_interrupts(self) -> None:
        """Ignore interrupts for a former avatar, which are answered and need not arrive."""


def test_no_byte_is_lost_and_none_comes_twice_when_avatars_follow_each_other(make_rig):
    run(make_rig, Rotating, dialects=_ACKNOWLEDGING, orderly=True)


def test_the_same_where_pongs_alone_prove_anything(make_rig):
    run(make_rig, Rotating, dialects=("silent-acks",), orderly=True, pongs=True)


def test_no_byte_is_lost_when_avatars_follow_each_other_and_acks_are_lost(make_rig):
    run(make_rig, Rotating, dialects=_ACKNOWLEDGING, orderly=False)


@pytest.mark.parametrize("dialect", ["silent-acks", "modern"])
def test_many_slow_moments_of_the_wire_in_a_row_fail_nothing(make_rig, dialect):
    """Delay the wire for six seconds in all, longer than the silence timeout, while the avatar plays."""
    kind = {"dialects": (dialect,), "orderly": True, "pongs": True, "make_rig": staticmethod(make_rig)}
    state = type("Machine", (LostSockets,), kind)()
    state.connect(audio_format=None, dialect=0, naming="source", seed=0, queue_lead_s=0.4)
    for _ in range(5):
        state.say_word_by_word()
        state.every_command_is_about_somebody()
    for _ in range(15):
        state.wait_while_all_is_on_its_way(seconds=0.4)
        state.every_command_is_about_somebody()
    state.teardown()


def test_words_without_names_behind_five_lost_sockets_are_not_told_as_played(make_rig):
    """An end without a name belongs to an earlier word when LiveAvatar has not acknowledged the first in line."""
    kind = type("Machine", (LostSockets,), {"make_rig": staticmethod(make_rig), "dialects": _ACKNOWLEDGING})
    state = type("Disorderly", (kind,), {"orderly": False})()
    state.connect(audio_format=None, seed=0, naming="none", queue_lead_s=0.4, dialect=0)
    state.lose(down=0.48753505144954723, up=0.6801975346241612)
    state.wait_while_all_is_on_its_way(seconds=0.05)
    state.reopen(says_connected=False)
    state.wait_while_all_is_on_its_way(seconds=0.05)
    state.say_word_by_word()
    state.say_word_by_word()
    state.say_word_by_word()
    state.lose(down=0.99, up=0.9735514382887074)
    state.wait_while_all_is_on_its_way(seconds=0.05)
    state.say_word_by_word()
    state.wait_while_all_is_on_its_way(seconds=0.05)
    state.reopen(says_connected=True)
    state.wait_while_all_is_on_its_way(seconds=0.05)
    state.wait_while_all_is_on_its_way(seconds=0.2)
    state.wait_while_all_is_on_its_way(seconds=0.4)
    state.say_word_by_word()
    state.lose(down=0.034, up=0.18891981763542104)
    state.wait_while_all_is_on_its_way(seconds=0.2)
    state.wait_while_all_is_on_its_way(seconds=0.4)
    state.reopen(says_connected=False)
    state.lose(down=0.7809456121685545, up=0.41183875645328205)
    state.wait_while_all_is_on_its_way(seconds=0.4)
    state.reopen(says_connected=True)
    state.lose(down=0.99, up=0.4827403620130243)
    state.wait_while_all_is_on_its_way(seconds=0.05)
    state.reopen(says_connected=True)
    state.lose(down=0.99999, up=6.2677199346630524e-21)
    state.wait_while_all_is_on_its_way(seconds=0.4)
    state.reopen(says_connected=True)
    state.teardown()
