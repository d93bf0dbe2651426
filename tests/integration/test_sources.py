"""However the caller delivers speech, the avatar plays it whole and without running dry by our fault."""

import grpc
import pytest

from liveavatar.gateway.v1 import audio_pb2
from testkit import speech
from testkit.caller import Caller, Refusal
from testkit.processes import Emulator

ATTEMPTS = 12
LATE_S = 0.12
"""A source later than this did not keep the pace it stands for: the machine paused, the attempt says nothing."""
CLEAR_S = 1.0
"""Clearance of stuttering sources: half of it may be lost to pauses of the machine."""


async def _speak(caller: Caller, emulator: Emulator, steps: list[speech.Step], pcm: bytes) -> tuple[dict, float]:
    created = await caller.create()
    stream = await caller.speak(created.session.id)
    await stream.begin()
    late_s = await speech.play_out(steps, pcm, stream.chunk)
    await stream.end()
    ended = await stream.until("ended")
    await caller.end(created.session.id)
    upstream_id = created.session.upstream_session_id
    assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    assert ended.played.ToTimedelta().total_seconds() == pytest.approx(len(pcm) / speech.BYTE_RATE)
    assert emulator.audio(upstream_id) == pcm
    recording = emulator.session(upstream_id)
    acks = [one.ack for one in stream.received if one.HasField("ack")]
    recording["underruns_told"] = acks[-1].underrun_count
    return recording, late_s


async def _on_time(
    caller: Caller, emulator: Emulator, steps: list[speech.Step], pcm: bytes, *, within_s: float = LATE_S
) -> dict:
    """Speak until the machine let the source keep its pace."""
    for _ in range(ATTEMPTS):
        recording, late_s = await _speak(caller, emulator, steps, pcm)
        if late_s < within_s:
            return recording
    pytest.fail(f"the machine paused the source in {ATTEMPTS} attempts, by {late_s:.2f} s in the last one")


@pytest.mark.timeout(400)
async def test_a_real_time_source_never_makes_the_avatar_run_dry(caller, emulator):
    pcm = speech.sound(6.0)
    recording = await _on_time(caller, emulator, speech.real_time(len(pcm)), pcm)
    assert recording["underruns"]["count"] == 0
    utterance = recording["utterances"][0]
    assert 6 / 0.7 < utterance["packets"] < 6 / 0.15, "20 ms chunks must go out in packets, while they come in"
    assert utterance["speak_end_at_s"] - utterance["opened_at_s"] > 5.0


async def test_a_burst_never_makes_the_avatar_run_dry_and_waits_in_the_gateway(caller, emulator):
    pcm = speech.sound(6.0, seed=2)
    recording, _ = await _speak(caller, emulator, [speech.Step(0.0, 96_000)] * 3, pcm)
    assert recording["underruns"]["count"] == 0
    first = recording["packets"][0]["arrived_at_s"]
    at_once = [p["size_bytes"] for p in recording["packets"] if p["arrived_at_s"] < first + 0.5]
    assert at_once[0] == 0.4 * speech.BYTE_RATE
    assert sum(at_once) <= 3.5 * speech.BYTE_RATE, "no more than the lead may be out of an interrupt's reach"


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "gaps",
    [
        [(0.0, 1.0), (1.5, 3.9), (4.4, 5.6), (6.1, 9.7)],
        [(0.0, 1.5), (2.0, 2.5), (3.0, 6.2), (6.7, 8.7)],
    ],
    ids=["two long gaps", "one long gap"],
)
async def test_a_stuttering_source_makes_the_avatar_run_dry_exactly_as_often_as_it_must(caller, emulator, gaps):
    pcm = speech.sound(gaps[-1][1] + 0.5)
    steps = speech.stuttering(len(pcm), gaps)
    ideal = speech.ideal_player(steps)
    assert ideal.clearance_s > CLEAR_S, "a gap is too close to call"
    assert ideal.count > 0
    recording = await _on_time(caller, emulator, steps, pcm, within_s=CLEAR_S / 2)
    assert recording["underruns"]["count"] == ideal.count
    assert recording["underruns_told"] == ideal.count


async def test_a_source_that_stalls_is_told_so_once_on_both_streams(caller: Caller):
    attachment = await caller.attach()
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.begin("slow")
    await stream.chunk(speech.sound(0.5))
    event = await attachment.event("utterance_underrun")
    assert event.utterance_id == "slow"
    assert event.played.ToTimedelta().total_seconds() == pytest.approx(0.5, abs=0.05)
    while (await stream.until("ack")).underrun_count == 0:
        pass
    await stream.chunk(speech.sound(0.5))
    await stream.end()
    assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    await caller.end(attachment.session_id)
    await attachment.event("ended")
    assert sum(one.HasField("utterance_underrun") for one in attachment.events) == 1


async def test_an_utterance_that_gets_no_audio_in_time_is_spoken_and_fails(caller: Caller, emulator: Emulator):
    session = (await caller.create()).session
    pcm = speech.sound(0.5)
    stream = await caller.speak(session.id)
    await stream.begin("stalled", idle_s=0.3)
    await stream.chunk(pcm)
    rejected = await stream.until("rejected")
    why = Refusal(rejected.error)
    assert (why.reason, why.code) == ("UTTERANCE_IDLE", grpc.StatusCode.DEADLINE_EXCEEDED)
    assert rejected.received_bytes == len(pcm)
    ended = await stream.until("ended")
    assert (ended.outcome, Refusal(ended.error).reason) == (audio_pb2.UTTERANCE_OUTCOME_FAILED, "UTTERANCE_IDLE")
    assert ended.played.ToTimedelta().total_seconds() == pytest.approx(0.5, abs=0.05)
    # What comes for it later is dropped, and the next one is as good as any.
    await stream.chunk(pcm, utterance_id="stalled")
    await stream.end("stalled")
    await stream.say(pcm, "next")
    assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    assert sum(one.HasField("rejected") for one in stream.received) == 1
    await caller.end(session.id)
    assert emulator.audio(session.upstream_session_id) == pcm * 2


@pytest.mark.parametrize("idle_s", [-1.0, 0.0, 0.099, 600.001, 1e9])
async def test_an_idle_limit_out_of_its_range_is_refused(caller: Caller, idle_s):
    session = (await caller.create()).session
    stream = await caller.speak(session.id)
    await stream.begin("u", idle_s=idle_s)
    why = Refusal((await stream.until("rejected")).error)
    assert (why.reason, why.field) == ("INVALID_FIELD", "begin.idle_timeout")
    for name, fitting_s in (("least", 0.1), ("most", 600.0)):
        await stream.end()
        await stream.begin(name, idle_s=fitting_s)
        await stream.cancel(name)
        assert (await stream.until("ended")).utterance_id == name
        await stream.begin("u", idle_s=idle_s)
    await caller.end(session.id)
