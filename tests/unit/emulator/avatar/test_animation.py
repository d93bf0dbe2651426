"""Animation of the face."""

import numpy as np

from liveavatar_emulator.avatar.animation import Animation, opening, spread
from liveavatar_emulator.protocol import Pose


def tone(frequency_hz: float, level: float) -> bytes:
    wave = np.sin(2 * np.pi * frequency_hz * np.arange(480) / 24_000)
    return (wave * level * 32_767).astype("<i2").tobytes()


def expressions(animation: Animation, seconds: float, **inputs):
    return [animation.at(number * 0.04, **inputs) for number in range(int(seconds * 25))]


def test_a_louder_sound_opens_the_mouth_further():
    openings = [opening(tone(200, level)) for level in (0, 0.01, 0.05, 0.2, 0.5)]
    assert openings[0] == 0
    assert openings == sorted(openings)
    assert openings[-1] == 1


def test_bright_sounds_spread_the_mouth_and_hissing_hardly_opens_it():
    assert spread(tone(200, 0.3)) < spread(tone(1500, 0.3)) < spread(tone(3000, 0.3))
    assert opening(tone(5000, 0.2)) < opening(tone(400, 0.2))


def test_it_blinks_while_idle_every_few_seconds_and_completely():
    eyelids = [expression.eyelids for expression in expressions(Animation(7), 60, pose=Pose.IDLE)]
    shut = [number for number, lid in enumerate(eyelids) if lid > 0.85]
    blinks = [number for number in shut if number - 1 not in shut]
    assert 10 <= len(blinks) <= 35
    assert eyelids.count(0.0) > 0.85 * len(eyelids)


def test_listening_leans_within_a_second_and_idle_comes_back():
    animation = Animation(7)
    for number in range(25):
        expression = animation.at(number * 0.04, pose=Pose.LISTENING)
    assert expression.lean > 0.9
    for number in range(25, 60):
        expression = animation.at(number * 0.04, pose=Pose.IDLE)
    assert expression.lean < 0.05


def test_the_mouth_follows_smoothly_and_shuts_when_speech_ends():
    animation = Animation(7)
    mouths = [animation.at(number * 0.04, pose=Pose.TALKING, opening=1.0).mouth for number in range(6)]
    assert mouths == sorted(mouths)
    assert mouths[-1] > 0.9
    mouths = [animation.at((6 + number) * 0.04, pose=Pose.IDLE, opening=0.0).mouth for number in range(15)]
    assert mouths[0] > 0.2, "it does not snap shut"
    assert mouths[-1] == 0


def test_the_head_never_jumps():
    places = np.array([expression.sway for expression in expressions(Animation(7), 30, pose=Pose.IDLE)])
    assert np.abs(np.diff(places, axis=0)).max() < 0.0006
    assert np.ptp(places, axis=0).min() > 0.003


def test_the_same_seed_acts_the_same_and_another_one_does_not():
    first = expressions(Animation(7), 20, pose=Pose.IDLE)
    assert first == expressions(Animation(7), 20, pose=Pose.IDLE)
    assert first != expressions(Animation(8), 20, pose=Pose.IDLE)
