"""Canned agent of a connector: turns of users, and the answer."""

import numpy as np

from liveavatar_emulator.hosted_agent import PITCHES_HZ, RATE_HZ, HostedAgent, Reaction, answer

FRAME = RATE_HZ // 50


def tone(loudness: float = 10_000) -> bytes:
    return (np.sin(np.arange(FRAME) / 10) * loudness).astype("<i2").tobytes()


def reactions(agent: HostedAgent, user: str, *frames: tuple[bytes, int]) -> list[Reaction]:
    found = [agent.hear(user, pcm) for pcm, count in frames for _ in range(count)]
    return [reaction for reaction in found if reaction is not None]


def test_a_turn_hushes_the_agent_and_is_answered_after_a_pause():
    agent = HostedAgent()
    assert reactions(agent, "ann", (tone(), 20)) == [Reaction.HUSH]
    assert reactions(agent, "ann", (bytes(2 * FRAME), 24)) == []
    assert reactions(agent, "ann", (bytes(2 * FRAME), 1)) == [Reaction.ANSWER]
    assert reactions(agent, "ann", (bytes(2 * FRAME), 100)) == []
    assert agent.turn_count == 1


def test_a_pause_for_breath_ends_no_turn():
    agent = HostedAgent()
    words = (tone(), 20), (bytes(2 * FRAME), 20), (tone(), 20), (bytes(2 * FRAME), 25)
    assert reactions(agent, "ann", *words) == [Reaction.HUSH, Reaction.ANSWER]


def test_clicks_and_the_noise_of_a_room_are_no_turn():
    agent = HostedAgent()
    assert reactions(agent, "ann", (tone(), 5), (bytes(2 * FRAME), 30), (tone(50), 100)) == []
    assert agent.hear("ann", b"") is None


def test_users_are_told_apart_and_whoever_leaves_has_finished():
    agent = HostedAgent()
    assert reactions(agent, "ann", (tone(), 20)) == [Reaction.HUSH]
    assert reactions(agent, "ben", (bytes(2 * FRAME), 50)) == []
    assert agent.gone("ben") is None
    assert agent.gone("ann") is Reaction.ANSWER
    assert agent.gone("ann") is None


def test_the_answer_is_a_tone_for_each_syllable():
    pcm = np.frombuffer(answer(), "<i2").astype(float)
    syllable = round(0.5 * RATE_HZ)
    assert len(pcm) == len(PITCHES_HZ) * syllable
    for number, pitch_hz in enumerate(PITCHES_HZ):
        part = pcm[number * syllable : number * syllable + round(0.4 * RATE_HZ)]
        strongest = float(np.argmax(np.abs(np.fft.rfft(part)))) * RATE_HZ / len(part)
        assert abs(strongest - pitch_hz) < 5
