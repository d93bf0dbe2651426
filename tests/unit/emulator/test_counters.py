"""Counters of a recording."""

from liveavatar_emulator.counters import counters_of, zero_counters
from liveavatar_emulator.recording import AudioBudget, Recording


def test_zero_counters_and_those_of_a_recording_have_the_same_names():
    recording = Recording(started_mono_s=0.0, keep_bytes=0, budget=AudioBudget(0))
    assert counters_of(recording).keys() == zero_counters().keys()
    recording.record_command("agent.speak", "u", 1.0)
    recording.underruns = 2
    assert {name: count for name, count in counters_of(recording).items() if count} == {
        "commands": 1,
        "underruns": 2,
    }
