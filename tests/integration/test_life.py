"""A paid session never outlives its owner, and its end is told truthfully."""

import asyncio
import time

import grpc
import pytest
from google.protobuf import duration_pb2

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from testkit import processes, speech
from testkit.caller import caller as connect
from testkit.caller import refused

GRACE = duration_pb2.Duration(nanos=400_000_000)


async def _ended(caller, session_id: str) -> session_pb2.Session:
    while (session := await caller.get(session_id)).state != session_pb2.SESSION_STATE_ENDED:
        await asyncio.sleep(0.05)
    return session


async def _gone(emulator, upstream_id: str) -> None:
    while emulator.session(upstream_id)["phase"] != "ended":
        await asyncio.sleep(0.05)


async def test_a_caller_that_vanishes_is_given_its_grace_and_then_its_session_is_stopped(emulator, shared_gateway):
    async with connect(shared_gateway.address) as caller:
        async with connect(shared_gateway.address) as other:
            lost = await other.attach(detach_grace=GRACE)
            await lost.until_ready()
        # Its channel is closed without a word.
        session = await _ended(caller, lost.session_id)
        assert session.end_reason == session_pb2.END_REASON_CALLER_LOST
        await _gone(emulator, lost.upstream_id)


async def test_a_session_nobody_attaches_to_is_stopped(caller, emulator):
    created = await caller.create(detach_grace=GRACE)
    session = await _ended(caller, created.session.id)
    assert session.end_reason == session_pb2.END_REASON_CALLER_LOST


async def test_a_stream_that_speaks_keeps_a_session_alive(caller):
    created = await caller.create(detach_grace=GRACE)
    stream = await caller.speak(created.session.id)
    await asyncio.sleep(1.0)
    assert (await caller.get(created.session.id)).state == session_pb2.SESSION_STATE_READY
    await stream.call.done_writing()
    assert (await _ended(caller, created.session.id)).end_reason == session_pb2.END_REASON_CALLER_LOST


async def test_the_end_of_the_attach_stream_is_detach_and_resume_brings_what_was_missed(caller):
    first = await caller.attach()
    await first.until_ready()
    seen = first.events[-1].sequence
    await first.call.done_writing()
    assert await first.closed() is grpc.StatusCode.OK
    assert not (await caller.get(first.session_id)).attached
    stream = await caller.speak(first.session_id)
    await stream.say(speech.sound(0.3), "missed")
    await stream.until("ended")
    second = await caller.resume(first.opened.handle, after_sequence=seen)
    missed = await second.event("utterance_ended")
    assert missed.utterance_id == "missed"
    assert [event.sequence for event in second.events] == list(range(seen + 1, seen + 1 + len(second.events)))
    result = await second.command("bye", end=sessions.End())
    assert result.status.code == 0
    last = await second.event("ended")
    assert last.session.end_reason == session_pb2.END_REASON_CALLER_ENDED
    assert await second.closed() is grpc.StatusCode.OK


async def test_each_opened_brings_a_new_handle_and_the_one_before_still_works(caller):
    first = await caller.attach()
    second = await caller.resume(first.opened.handle)
    third = await caller.resume(first.opened.handle)
    fourth = await caller.resume(second.opened.handle)
    handles = [one.opened.handle for one in (first, second, third, fourth)]
    assert len(set(handles)) == len(handles)
    for superseded in (first, second, third):
        assert await superseded.closed() is grpc.StatusCode.ABORTED
    await caller.end(first.session_id)
    # How it ended can still be read with it.
    last = await caller.resume(fourth.opened.handle)
    assert (await last.event("ended")).session.end_reason == session_pb2.END_REASON_CALLER_ENDED


async def test_a_retried_create_gives_another_handle_and_leaves_the_first_alone(caller):
    first = await caller.create("handles")
    second = await caller.create("handles")
    assert first.handle != second.handle
    for handle in (first.handle, second.handle):
        await (await caller.resume(handle)).call.done_writing()
    await caller.end(first.session.id)


async def test_events_that_are_no_longer_kept_are_refused_or_left_out_as_the_caller_wishes(caller):
    first = await caller.attach()
    await first.until_ready()
    stream = await caller.speak(first.session_id)
    kept = 1024
    for number in range(kept):
        await stream.begin(f"u{number}")
        await stream.end()
    while (await first.event("utterance_ended")).utterance_id != f"u{kept - 1}":
        pass
    last = first.events[-1].sequence
    why = await refused(caller.resume(first.opened.handle, after_sequence=1))
    assert (why.reason, why.code) == ("EVENTS_COMPACTED", grpc.StatusCode.OUT_OF_RANGE)
    oldest = int(why.metadata["oldest_sequence"])
    assert oldest == last - kept + 1
    assert not first.call.done(), "a refused resume took the session from the stream that has it"
    second = await caller.resume(first.opened.handle, after_sequence=1, skip_compacted=True)
    assert second.opened.compacted_through == oldest - 1
    for _ in range(kept):
        await second.read()
    assert [event.sequence for event in second.events] == list(range(oldest, last + 1))
    third = await caller.resume(second.opened.handle, after_sequence=last, skip_compacted=True)
    assert third.opened.compacted_through == 0
    await caller.end(first.session_id)


async def test_resuming_after_events_that_never_were_is_refused(caller):
    first = await caller.attach()
    for number in (10_000, -1, -(1 << 63)):
        for skips in (False, True):
            why = await refused(caller.resume(first.opened.handle, after_sequence=number, skip_compacted=skips))
            assert (why.reason, why.field) == ("INVALID_FIELD", "resume.after_sequence")
    await caller.end(first.session_id)


async def test_a_request_id_gives_one_session_however_often_it_is_sent(caller, emulator):
    before = emulator.state()["sessions"]["started_total"]
    made = await asyncio.gather(*[caller.create("the-same") for _ in range(5)])
    assert len({one.session.id for one in made}) == 1
    assert emulator.state()["sessions"]["started_total"] == before + 1
    why = await refused(caller.create("the-same", sandbox=True))
    assert (why.reason, why.code) == ("REQUEST_ID_REUSED", grpc.StatusCode.ALREADY_EXISTS)
    await caller.end(made[0].session.id)


@pytest.mark.parametrize("endpoint", ["token", "start"])
async def test_a_caller_that_hangs_up_while_its_session_is_made_leaves_nothing(caller, emulator, endpoint):
    before = emulator.active()
    emulator.fault(endpoint, delay_s=0.8)
    creating = asyncio.create_task(caller.create())
    await asyncio.sleep(0.3)
    creating.cancel()
    await asyncio.sleep(1.0)
    emulator.wait_active(before)


async def test_ending_twice_gives_the_same_record(caller):
    created = await caller.create()
    first = await caller.end(created.session.id)
    assert first == await caller.end(created.session.id)
    assert first.usage.billed_duration.ToTimedelta().total_seconds() > 0


async def test_a_stop_that_fails_at_first_is_tried_until_it_works(caller, emulator):
    created = await caller.create()
    emulator.fault("stop", status=500, times=4)
    session = await caller.end(created.session.id)
    assert session.end_reason == session_pb2.END_REASON_CALLER_ENDED
    assert emulator.session(created.session.upstream_session_id)["phase"] == "ended"


@pytest.mark.parametrize("mode", ["close", "mute"])
async def test_a_session_at_its_limit_is_announced_and_ended_whether_liveavatar_says_so_or_not(mode):
    with (
        processes.emulator(max_duration_mode=mode) as emulator,
        processes.gateway(emulator.url, expiring_notice_s=2) as gateway,
    ):
        async with connect(gateway.address) as caller:
            attachment = await caller.attach(max_duration=duration_pb2.Duration(seconds=3))
            await attachment.until_ready()
            expiring = await attachment.event("expiring")
            assert expiring.expires_at == attachment.opened.session.expires_at
            last = await attachment.event("ended")
            assert last.session.end_reason == session_pb2.END_REASON_MAX_DURATION
            again = await caller.resume(attachment.opened.handle)
            await again.event("ended")
            assert again.events == attachment.events


async def test_an_end_by_liveavatar_is_told_with_its_own_word():
    with processes.emulator(idle_s=1.2) as emulator, processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            last = await attachment.event("ended")
            assert last.session.end_reason == session_pb2.END_REASON_IDLE
            assert last.session.upstream_reason == "IDLE_TIMEOUT"


async def test_keep_alives_keep_an_idle_session():
    with processes.emulator(idle_s=2.5) as emulator, processes.gateway(emulator.url, keep_alive_s=1) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            await asyncio.sleep(4.0)
            assert (await caller.get(attachment.session_id)).state == session_pb2.SESSION_STATE_READY
            assert len(emulator.session(attachment.upstream_id)["keepalives"]) >= 2
            await caller.end(attachment.session_id)


async def test_unknown_events_and_notices_change_nothing_for_the_speech(caller, emulator):
    attachment = await caller.attach()
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.say(speech.sound(1.0))
    await stream.until("started")
    emulator.inject(attachment.upstream_id, {"type": "agent.did_something_new", "event_id": "x"})
    notice = {"type": "video_starvation", "message": "too slow"}
    emulator.inject(attachment.upstream_id, {"type": "error", "event_id": "y", "error": notice})
    told = await attachment.event("notice")
    assert (told.error, told.type, told.message) == (True, "video_starvation", "too slow")
    assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    await caller.end(attachment.session_id)


async def test_listening_waits_for_the_end_of_speech(caller, emulator):
    attachment = await caller.attach()
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.say(speech.sound(0.8))
    await stream.until("started")
    result = await attachment.command("attend", start_listening=sessions.StartListening())
    assert result.status.code == 0
    await stream.until("ended")
    while (await attachment.event("pose_changed")).pose != session_pb2.POSE_LISTENING:
        pass
    await attachment.command("relax", stop_listening=sessions.StopListening())
    while (await attachment.event("pose_changed")).pose != session_pb2.POSE_IDLE:
        pass
    commands = [command["type"] for command in emulator.session(attachment.upstream_id)["commands"]]
    assert commands.index("agent.start_listening") > commands.index("agent.speak_end")
    await caller.end(attachment.session_id)


@pytest.mark.parametrize("profile", ["classic", "modern", "acks_only"])
async def test_every_dialect_of_liveavatar_comes_out_as_the_same_events(profile):
    with processes.emulator(profile=profile) as emulator, processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            await stream.say(speech.sound(1.0), "whole")
            await stream.until("started")
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            await stream.say(speech.sound(6.0), "cut")
            await stream.until("started")
            result = await attachment.command("stop", interrupt=sessions.Interrupt())
            assert [one.utterance_id for one in result.interrupt.interrupted] == ["cut"]
            await stream.say(speech.sound(0.5, seed=2), "after")
            while (ended := await stream.until("ended")).utterance_id != "after":
                pass
            assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            await caller.end(attachment.session_id)
            await attachment.event("ended")
            told = [
                (kind, getattr(event, kind).utterance_id)
                for event in attachment.events
                if (kind := event.WhichOneof("event")) in ("utterance_started", "utterance_ended")
            ]
            assert told == [
                (kind, name)
                for name in ("whole", "cut", "after")
                for kind in ("utterance_started", "utterance_ended")
            ]


async def test_the_deadline_of_a_call_bounds_the_whole_of_it(caller, emulator):
    emulator.fault("token", delay_s=3)
    before = emulator.active()
    began_s = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await caller.create(deadline_s=0.5)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - began_s < 3
    await asyncio.sleep(3.2)
    emulator.wait_active(before)
