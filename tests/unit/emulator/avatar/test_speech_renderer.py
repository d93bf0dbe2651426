"""The stream of samples: exact, whole, in order, and gone when cut."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from liveavatar_emulator.avatar.speech_renderer import RATE_HZ, SpeechRenderer
from liveavatar_emulator.avatar_events import PoseChanged, SpeechAudio, SpeechCut, SpeechStarted
from liveavatar_emulator.playback import Cut, Outcome, Playback, Started, Utterance
from liveavatar_emulator.protocol import Pose

EPOCH_S = 100.0


def at(sample: int) -> float:
    return EPOCH_S + sample / RATE_HZ


def sound(count: int, first: int = 1) -> bytes:
    """Samples that count up, so that any loss, repeat or swap shows."""
    return (np.arange(first, first + count) % 30_000 + 1).astype("<i2").tobytes()


def samples(pcm: bytes) -> list[int]:
    return np.frombuffer(pcm, dtype="<i2").tolist()


@pytest.fixture
def renderer() -> SpeechRenderer:
    return SpeechRenderer(epoch_s=EPOCH_S)


def test_nothing_said_is_silence(renderer):
    renderer.handle(PoseChanged(Pose.LISTENING))
    assert renderer.render(480) == bytes(960)


def test_speech_begins_at_its_sample_and_is_whole(renderer):
    renderer.handle(SpeechAudio(0, sound(1000), None))
    renderer.handle(SpeechStarted(0, at(700)))
    heard = b"".join(renderer.render(480) for _ in range(6))
    assert heard == bytes(1400) + sound(1000) + bytes(2 * (6 * 480 - 1700))
    assert renderer.late_samples == 0


def test_an_utterance_that_has_not_started_is_not_heard(renderer):
    renderer.handle(SpeechAudio(0, sound(1000), None))
    assert renderer.render(960) == bytes(1920)
    assert renderer.waiting_bytes == 2000


def test_packets_of_one_utterance_join_without_a_gap_also_when_cut_inside_a_sample(renderer):
    pcm = sound(999)
    renderer.handle(SpeechAudio(0, pcm[:333], None))
    renderer.handle(SpeechStarted(0, at(0)))
    renderer.handle(SpeechAudio(0, pcm[333:1000], None))
    renderer.handle(SpeechAudio(0, pcm[1000:], None))
    assert renderer.render(999) == pcm


def test_after_running_dry_speech_goes_on_at_its_moment(renderer):
    renderer.handle(SpeechAudio(0, sound(100), None))
    renderer.handle(SpeechStarted(0, at(0)))
    heard = renderer.render(480)
    renderer.handle(SpeechAudio(0, sound(50, first=500), at(600)))
    heard += renderer.render(480)
    assert heard == sound(100) + bytes(1000) + sound(50, first=500) + bytes(2 * 310)


def test_a_cut_falls_on_its_sample_within_a_frame(renderer):
    renderer.handle(SpeechAudio(0, sound(5000), None))
    renderer.handle(SpeechStarted(0, at(0)))
    renderer.render(480)
    renderer.handle(SpeechCut(0, at(700)))
    assert renderer.render(480) == sound(5000)[960:1400] + bytes(2 * 260)
    assert renderer.waiting_bytes == 0


def test_a_cut_leaves_what_was_said_after_the_interrupt(renderer):
    renderer.handle(SpeechAudio(0, sound(5000), None))
    renderer.handle(SpeechStarted(0, at(0)))
    renderer.handle(SpeechAudio(1, sound(200, first=9000), None))
    renderer.handle(SpeechCut(0, at(300)))
    renderer.handle(SpeechStarted(1, at(400)))
    assert renderer.render(700) == sound(300) + bytes(200) + sound(200, first=9000) + bytes(200)


def test_a_late_start_delays_speech_and_loses_none_of_it(renderer):
    renderer.render(480)
    renderer.handle(SpeechAudio(0, sound(300), None))
    renderer.handle(SpeechStarted(0, at(400)))
    assert renderer.render(480) == sound(300) + bytes(360)
    assert renderer.late_samples == 80


def test_skipped_time_shortens_silence_and_delays_speech(renderer):
    renderer.handle(SpeechAudio(0, sound(600), None))
    renderer.handle(SpeechStarted(0, at(500)))
    renderer.skip(300)
    assert renderer.render(400) == bytes(400) + sound(600)[:400]
    renderer.skip(1000)
    assert renderer.render(400) == sound(600)[400:]


def test_the_next_utterance_waits_for_one_that_is_late(renderer):
    renderer.handle(SpeechAudio(0, sound(600), None))
    renderer.handle(SpeechStarted(0, at(0)))
    renderer.render(100)
    renderer.skip(200)
    renderer.handle(SpeechAudio(1, sound(50, first=9000), None))
    renderer.handle(SpeechStarted(1, at(600)))
    assert renderer.render(550) == sound(600)[200:] + sound(50, first=9000)


def test_what_is_rendered_ahead_is_taken_back_to_the_cut(renderer):
    renderer.handle(SpeechAudio(0, sound(5000), None))
    renderer.handle(SpeechStarted(0, at(0)))
    renderer.render(4000)
    renderer.handle(SpeechCut(0, at(1000)))
    assert renderer.retract(heard=600) == 1000
    assert renderer.rendered == 1000
    assert renderer.render(480) == bytes(960)


def test_silence_rendered_ahead_gives_way_to_speech_that_is_due(renderer):
    renderer.render(4000)
    renderer.handle(SpeechAudio(0, sound(500), None))
    assert renderer.retract(heard=600) is None, "it has not started"
    renderer.handle(SpeechStarted(0, at(1000)))
    assert renderer.retract(heard=600) == 1000
    assert renderer.render(600) == sound(500) + bytes(200)
    renderer.handle(SpeechAudio(0, sound(100), at(1550)))
    assert renderer.retract(heard=1400) == 1550
    assert renderer.render(100) == sound(100)
    assert renderer.late_samples == 0


def test_speech_rendered_ahead_does_not_give_way_to_other_speech(renderer):
    renderer.handle(SpeechAudio(0, sound(600), None))
    renderer.handle(SpeechStarted(0, at(0)))
    renderer.render(100)
    renderer.skip(300)
    renderer.render(1000)
    renderer.handle(SpeechAudio(1, sound(50), None))
    renderer.handle(SpeechStarted(1, at(600)))
    assert renderer.retract(heard=500) == 900, "the first utterance is late, and ends there"


def test_what_has_been_heard_is_not_taken_back(renderer):
    renderer.handle(SpeechAudio(0, sound(5000), None))
    renderer.handle(SpeechStarted(0, at(0)))
    renderer.render(4000)
    renderer.handle(SpeechCut(0, at(1000)))
    assert renderer.retract(heard=1500) == 1500


def test_a_cut_that_is_still_to_come_takes_nothing_back(renderer):
    renderer.render(480)
    renderer.handle(SpeechCut(0, at(1000)))
    assert renderer.retract(heard=100) is None


def test_only_known_speech_is_rendered_far_ahead(renderer):
    assert not renderer.speaks_on(1)
    renderer.handle(SpeechAudio(0, sound(1000), None))
    assert not renderer.speaks_on(1), "it has not started"
    renderer.handle(SpeechStarted(0, at(100)))
    assert not renderer.speaks_on(1), "silence comes first"
    renderer.render(100)
    assert renderer.speaks_on(1000)
    assert not renderer.speaks_on(1001), "more may come, or not"
    renderer.handle(SpeechAudio(0, sound(10), at(5000)))
    assert not renderer.speaks_on(1001), "a gap comes first"
    renderer.handle(SpeechCut(0, at(600)))
    assert not renderer.speaks_on(1), "a cut is known"


def test_memory_is_released_as_it_is_said(renderer):
    renderer.handle(SpeechAudio(0, sound(48_000), None))
    renderer.handle(SpeechStarted(0, at(0)))
    for left in range(47_520, 0, -480):
        renderer.render(480)
        assert renderer.waiting_bytes == 2 * left


# -- against the playback clock itself

MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("speak"), st.integers(1, 3000), st.integers(0, 2400)),
        st.tuples(st.just("end"), st.just(0), st.integers(0, 2400)),
        st.tuples(st.just("interrupt"), st.just(0), st.integers(0, 2400)),
    ),
    max_size=25,
)
LEAD = 4000
DELAY = 500
"""Samples: how far ahead of what is heard is rendered, and how late cues may be."""


class Room:
    """Drives playback clock and renderer as the emulator does, and keeps what is heard and what should be."""

    def __init__(self) -> None:
        self.playback = Playback(start_delay_s=0.05)
        self.renderer = SpeechRenderer(epoch_s=EPOCH_S - DELAY / RATE_HZ)
        self.now = 0
        self.ahead: list[int] = []
        self.heard: list[int] = []
        self.said: dict[Utterance, list[tuple[float | None, bytes]]] = {}
        """Per utterance its packets, with the moment at which each went on after a gap."""

    def speak(self, pcm: bytes) -> None:
        appended = self.playback.append(len(pcm), None, at(self.now))
        resumes = None if appended.underrun is None else appended.underrun.resumed_at_s
        self.renderer.handle(SpeechAudio(appended.utterance.number, pcm, resumes))
        self.said.setdefault(appended.utterance, []).append((resumes, pcm))
        self.take_back()

    def follow_clock(self) -> None:
        while (change := self.playback.fire(at(self.now))) is not None:
            if isinstance(change, Started):
                self.renderer.handle(SpeechStarted(change.utterance.number, change.at_s))
            if isinstance(change, Cut) and change.head is not None:
                self.renderer.handle(SpeechCut(change.head.number + len(change.dropped), change.at_s))
            self.take_back()

    def take_back(self) -> None:
        heard = self.renderer.rendered - len(self.ahead)
        until = self.renderer.retract(heard)
        if until is not None:
            del self.ahead[until - heard :]

    def pass_time(self, count: int, beat: int) -> None:
        for _ in range(0, count, beat):
            self.now += beat
            self.follow_clock()
            while len(self.ahead) < (LEAD if self.far_ahead(beat) else beat + DELAY // 4):
                self.ahead += samples(self.renderer.render(beat))
            self.heard += self.ahead[:beat]
            del self.ahead[:beat]

    def far_ahead(self, beat: int) -> bool:
        return self.renderer.speaks_on(beat) or self.renderer.rendered - len(self.ahead) >= self.renderer.spoken

    def expected(self) -> tuple[list[int], set[int]]:
        """Return the samples played by the playback clock, and those at which a cut may round either way."""
        stream = [0] * len(self.heard)
        edges: set[int] = set()
        end = 0
        for utterance, packets in self.said.items():
            if utterance.started_at_s is None:
                continue
            left = utterance.played_bytes // 2
            end = max(end, round((utterance.started_at_s - self.renderer.epoch_s) * RATE_HZ))
            for resumes, pcm in packets:
                if resumes is not None:
                    end = max(end, round((resumes - self.renderer.epoch_s) * RATE_HZ))
                part = samples(pcm)[:left]
                stream[end : end + len(part)] = part
                end += len(part)
                left -= len(part)
            if utterance.outcome is Outcome.INTERRUPTED:
                edges |= {end - 1, end, end + 1}
        return stream, edges


@settings(max_examples=80, deadline=None)
@given(moves=MOVES, beat=st.sampled_from([37, 120, 240]))
@example(moves=[("speak", 1, 961), ("speak", 1, 0)], beat=240)
def test_what_is_heard_is_sample_by_sample_what_the_playback_clock_played(moves, beat):
    room = Room()
    number = 1
    for kind, size, pause in moves:
        if kind == "speak":
            room.speak(sound(size, first=number))
            number += size
        elif kind == "end":
            room.playback.speak_end(at(room.now))
        else:
            room.playback.interrupt(None, effective_at_s=at(room.now + 240), now_s=at(room.now))
        room.pass_time(pause, beat)
    room.playback.speak_end(at(room.now))
    while room.playback.queued:
        room.pass_time(beat, beat)
    room.pass_time(LEAD + DELAY, beat)
    expected, edges = room.expected()
    wrong = [i for i, (heard, due) in enumerate(zip(room.heard, expected, strict=True)) if heard != due]
    assert set(wrong) <= edges
    assert room.renderer.waiting_bytes == 0
    assert room.renderer.late_samples == 0
