"""Avatar events of a session, and its wait for the avatar."""

import itertools
from typing import Any

import pytest

from liveavatar_emulator.avatar_events import AvatarEvent, PoseChanged, SpeechAudio, SpeechCut, SpeechStarted
from liveavatar_emulator.config import Settings
from liveavatar_emulator.effects import Effect
from liveavatar_emulator.protocol import Interrupt, Pose, Speak, SpeakEnd, StartListening
from liveavatar_emulator.recording import AudioBudget, Recording
from liveavatar_emulator.session import Session
from liveavatar_emulator.states import Phase

SECOND = bytes(48_000)


def session(*, has_avatar: bool = True, limit_s: float = 3600, **knobs: Any) -> Session:
    numbers = itertools.count(1)
    return Session(
        settings=Settings(**{"ready_delay_ms": 0, **knobs}),
        recording=Recording(started_mono_s=0.0, keep_bytes=10**9, budget=AudioBudget(10**9)),
        fresh_id=lambda: f"s-{next(numbers)}",
        now_s=0.0,
        limit_s=limit_s,
        billed=False,
        has_avatar=has_avatar,
    )


def ready(**knobs: Any) -> Session:
    found = session(**knobs)
    found.attach(0.0)
    found.avatar_joined(0.0)
    assert found.phase is Phase.READY
    return found


def avatar_events(effects: list[Effect]) -> list[AvatarEvent]:
    return [
        effect for effect in effects if isinstance(effect, SpeechAudio | SpeechStarted | SpeechCut | PoseChanged)
    ]


def test_the_avatar_is_awaited_and_the_delay_counts_meanwhile():
    waiting = session(ready_delay_ms=2000)
    waiting.attach(0.0)
    waiting.advance(5.0)
    assert waiting.phase is Phase.WAITING
    waiting.avatar_joined(5.0)
    assert (waiting.phase, waiting.ready_s) == (Phase.READY, 5.0)


def test_an_avatar_that_is_early_shortens_nothing():
    waiting = session(ready_delay_ms=2000)
    waiting.attach(0.0)
    waiting.avatar_joined(0.5)
    waiting.advance(1.9)
    assert waiting.phase is Phase.WAITING
    waiting.advance(2.1)
    assert (waiting.phase, waiting.ready_s) == (Phase.READY, 2.0)


def test_a_session_without_a_socket_does_not_become_ready_by_its_avatar():
    waiting = session()
    waiting.avatar_joined(1.0)
    assert waiting.phase is Phase.WAITING
    waiting.attach(2.0)
    assert waiting.phase is Phase.READY


def test_commands_before_the_avatar_is_there_vanish():
    waiting = session()
    waiting.attach(0.0)
    assert waiting.command(Speak("u", SECOND), 1.0) == []
    assert waiting.recording.commands_before_ready == 1


def test_speech_is_told_with_its_audio_its_start_and_its_pose():
    talk = ready()
    assert avatar_events(talk.command(Speak("u", SECOND), 1.0)) == [SpeechAudio(0, SECOND, None)]
    assert avatar_events(talk.advance(1.5)) == [PoseChanged(Pose.TALKING), SpeechStarted(0, pytest.approx(1.2))]
    assert avatar_events(talk.command(Speak("u", b"\1\0"), 2.0)) == [SpeechAudio(0, b"\1\0", None)]
    talk.command(SpeakEnd("u", None), 2.1)
    assert avatar_events(talk.advance(3.0)) == [PoseChanged(Pose.IDLE)]


def test_audio_after_a_dry_spell_is_told_with_the_moment_it_goes_on():
    talk = ready()
    talk.command(Speak("u", SECOND), 1.0)
    assert avatar_events(talk.command(Speak("u", SECOND), 3.5)) == [
        PoseChanged(Pose.TALKING),
        SpeechStarted(0, pytest.approx(1.2)),
        SpeechAudio(0, SECOND, 3.5),
    ]


def test_a_cut_names_the_last_utterance_it_drops():
    talk = ready()
    for number in (0, 1):
        talk.command(Speak(f"u{number}", SECOND), 1.0)
        talk.command(SpeakEnd(f"u{number}", None), 1.0)
    talk.command(Interrupt("i"), 1.5)
    talk.command(Speak("u2", SECOND), 1.6)
    assert avatar_events(talk.advance(1.7))[:1] == [SpeechCut(1, pytest.approx(1.69))]


def test_an_interrupt_of_nothing_cuts_nothing():
    talk = ready()
    talk.command(Interrupt("i"), 1.0)
    assert avatar_events(talk.advance(2.0)) == []


def test_listening_is_told():
    assert avatar_events(ready().command(StartListening(None), 1.0)) == [PoseChanged(Pose.LISTENING)]


def test_at_the_limit_a_muted_avatar_falls_silent_at_once():
    talk = ready(limit_s=3, max_duration_mode="mute")
    talk.command(Speak("u", 3 * SECOND), 1.0)
    told = avatar_events(talk.advance(10.0))
    assert told[-2:] == [SpeechCut(0, 3.0), PoseChanged(Pose.IDLE)]


def test_without_a_room_there_are_no_cues_and_nobody_is_awaited():
    talk = session(has_avatar=False)
    talk.attach(0.0)
    effects = talk.command(Speak("u", SECOND), 1.0) + talk.command(SpeakEnd("u", None), 1.1) + talk.advance(5.0)
    assert talk.phase is Phase.READY
    assert avatar_events(effects) == []
