"""The demo's proof fails for every way in which audio or timing can be wrong."""

import dataclasses

import numpy as np
import pytest

from liveavatar_demo import proof
from liveavatar_demo.proof import Evidence, Spoken

GREETING, STORY = "greeting.wav", "story.wav"
WHOLE = f"{GREETING} arrived sample for sample"
HEARD = f"{GREETING} was heard to its end"
CUT = f"{STORY} arrived unaltered as far as it was sent"
AGREED = f"both sides agree how much of {STORY} was heard"
DRY = "the avatar never ran dry"
HELD = "no speech was sent before the avatar was ready"
SILENT = "no audio followed the interrupt"
STOPPED = "the session was stopped"


def speech(seconds: float, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    return rng.integers(-20_000, 20_000, round(seconds * 24_000), dtype=np.int16).tobytes()


def spoken(name: str, **changes) -> Spoken:
    expected = speech(2.0, seed=len(name))
    if name == GREETING:
        fields = {"recorded": expected, "heard_bytes": len(expected), "told_outcome": "played", "told_s": 2.0}
    else:
        fields = {
            "recorded": expected[:72_000],
            "heard_bytes": 38_400,
            "told_outcome": "interrupted",
            "told_s": 0.81,
        }
    return Spoken(**{"name": name, "expected": expected, **fields, **changes})


def evidence(**changes) -> Evidence:
    sound = {
        "greeting": spoken(GREETING),
        "story": spoken(STORY),
        "ready_to_first_packet_s": 0.003,
        "commands_before_ready": 0,
        "underruns": 0,
        "interrupts": 1,
        "packets_after_interrupt": 0,
        "active_sessions": 0,
    }
    return Evidence(**{**sound, **changes})


def failed(found: Evidence) -> dict[str, str]:
    return {check.name: check.detail for check in proof.examine(found) if not check.ok}


def flipped(pcm: bytes, sample: int) -> bytes:
    """A single wrong bit of a sample."""
    at = sample * 2
    return pcm[:at] + bytes([pcm[at] ^ 1]) + pcm[at + 1 :]


def test_a_sound_call_passes_every_check():
    checks = proof.examine(evidence())
    assert [check.name for check in checks] == [WHOLE, HEARD, CUT, AGREED, DRY, HELD, SILENT, STOPPED]
    assert all(check.ok for check in checks)
    assert checks[0].detail.startswith("48,000 samples, sha256 ")


GREETING_PCM = spoken(GREETING).expected


@pytest.mark.parametrize(
    ("recorded", "says"),
    [
        (flipped(GREETING_PCM, 0), "sample 0 (0.000 s) is"),
        (flipped(GREETING_PCM, 47_999), "sample 47,999 (2.000 s) is"),
        (GREETING_PCM[:-2], "47,999 samples arrived, 48,000 were expected"),
        (GREETING_PCM[2:], "sample 0 (0.000 s) is"),
        (GREETING_PCM + b"\0\0", "1 samples follow the end"),
        (GREETING_PCM * 2, "48,000 samples follow the end"),
        (GREETING_PCM[:4800] + GREETING_PCM[9600:], "sample 2,400 (0.100 s) is"),
        (GREETING_PCM[4800:9600] + GREETING_PCM[:4800] + GREETING_PCM[9600:], "sample 0 (0.000 s) is"),
        (GREETING_PCM[:-1], "95,999 bytes are no whole number of samples"),
        (bytes(len(GREETING_PCM)), "sample 0 (0.000 s) is 0"),
        (b"", "0 samples arrived, 48,000 were expected"),
    ],
    ids=["first", "last", "short", "shifted", "long", "twice", "hole", "swapped", "odd", "silence", "nothing"],
)
def test_a_greeting_that_was_changed_on_its_way_fails(recorded, says):
    why = failed(evidence(greeting=spoken(GREETING, recorded=recorded)))
    assert list(why) == [WHOLE]
    assert says in why[WHOLE]


STORY_PCM = spoken(STORY).expected


@pytest.mark.parametrize(
    ("recorded", "says"),
    [
        (flipped(STORY_PCM[:72_000], 35_999), "sample 35,999"),
        (STORY_PCM[2:72_000], "sample 0"),
        (STORY_PCM, "so nothing was cut"),
        (b"", "so nothing was cut"),
        (STORY_PCM + b"\0\0", "1 samples follow the end"),
        (STORY_PCM[:71_999], "no whole number of samples"),
    ],
    ids=["flipped", "shifted", "uncut", "nothing", "long", "odd"],
)
def test_a_story_that_is_no_beginning_of_itself_fails(recorded, says):
    why = failed(evidence(story=spoken(STORY, recorded=recorded)))
    assert list(why) == [CUT]
    assert says in why[CUT]


@pytest.mark.parametrize(
    "changes",
    [{"heard_bytes": 95_998}, {"told_outcome": "interrupted"}, {"told_outcome": "failed"}, {"told_s": 1.5}],
    ids=str,
)
def test_a_greeting_that_was_not_heard_to_its_end_fails(changes):
    assert list(failed(evidence(greeting=spoken(GREETING, **changes)))) == [HEARD]


@pytest.mark.parametrize(
    "changes",
    [{"told_s": 0.39}, {"told_s": 1.21}, {"told_outcome": "played"}, {"heard_bytes": 0, "told_s": 0.0}],
    ids=str,
)
def test_sides_that_disagree_on_what_was_heard_fail(changes):
    why = failed(evidence(story=spoken(STORY, **changes)))
    assert list(why) == [AGREED]


@pytest.mark.parametrize("told_s", [0.41, 1.19])
def test_sides_within_the_tolerance_agree(told_s):
    assert not failed(evidence(story=spoken(STORY, told_s=told_s)))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"underruns": 1}, DRY),
        ({"commands_before_ready": 1}, HELD),
        ({"ready_to_first_packet_s": -0.001}, HELD),
        ({"ready_to_first_packet_s": None}, HELD),
        ({"packets_after_interrupt": 1}, SILENT),
        ({"interrupts": 0}, SILENT),
        ({"interrupts": 2}, SILENT),
        ({"active_sessions": 1}, STOPPED),
    ],
    ids=str,
)
def test_each_count_that_must_be_right_has_its_check(changes, name):
    assert list(failed(evidence(**changes))) == [name]


def test_a_failure_hides_no_other():
    broken = evidence(underruns=2, active_sessions=1, greeting=spoken(GREETING, recorded=b""))
    assert list(failed(broken)) == [WHOLE, DRY, STOPPED]


def recording(**changes):
    packets = [{"arrived_at_s": at_s} for at_s in (1.01, 1.6, 2.6)]
    sound = {
        "ready_at_s": 1.0,
        "packets": packets,
        "interrupts": [{"received_at_s": 2.7}],
        "audio_after_interrupt": {"packets": 0, "bytes": 0},
    }
    return {**sound, **changes}


def test_audio_after_an_interrupt_counts_whatever_it_belongs_to():
    assert proof.packets_after_interrupt(recording()) == 0
    assert proof.packets_after_interrupt(recording(interrupts=[{"received_at_s": 1.5}])) == 2
    assert proof.packets_after_interrupt(recording(audio_after_interrupt={"packets": 3, "bytes": 9})) == 3
    assert proof.packets_after_interrupt(recording(interrupts=[])) == 0


def test_the_first_packet_is_measured_from_ready():
    assert proof.ready_to_first_packet_s(recording()) == pytest.approx(0.01)
    assert proof.ready_to_first_packet_s(recording(packets=[])) is None
    assert proof.ready_to_first_packet_s(recording(ready_at_s=None)) is None


def test_commands_before_readiness_count_but_for_probes():
    def sent(kind: str, at_s: float) -> dict:
        return {"type": kind, "at_s": at_s, "event_id": "e"}

    early = [sent("agent.interrupt", 0.1), sent("agent.speak", 0.2), sent("agent.speak", 5.0)]
    assert proof.commands_before_ready(recording(ready_at_s=1.0, commands=early)) == 1
    assert proof.commands_before_ready(recording(ready_at_s=None, commands=early)) == 2
    assert proof.commands_before_ready(recording(ready_at_s=0.2, commands=early)) == 0


def test_the_first_difference_is_found_sample_by_sample():
    pcm = speech(0.1, seed=3)
    assert proof.first_difference(pcm, pcm) is None
    assert proof.first_difference(pcm, pcm[:100]) is None
    assert proof.first_difference(pcm, b"") is None
    assert proof.first_difference(pcm, flipped(pcm, 17)) == 17


def test_seconds_follow_from_bytes():
    one = spoken(STORY)
    assert (one.heard_s, one.whole_s) == (0.8, 2.0)
    assert dataclasses.replace(one, told_s=0.5).disagreement_s == pytest.approx(0.3)
