"""Text that was heard: what was said up to the moment at which the avatar fell silent, in every answer."""

import asyncio
import contextlib

import grpc
import pytest

from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as audio
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from testkit import processes, speech
from testkit.caller import Caller, Refusal
from testkit.caller import caller as connect
from testkit.tenants import TenantsFile, caller_with

WORD_MS = 200
COUNT = 50
TEXTS = [f"word-{number} " for number in range(COUNT)]
STARTS = [number * WORD_MS for number in range(COUNT)]
PCM = bytes(range(1, 241)) * (speech.BYTE_RATE * WORD_MS * COUNT // 1000 // 240)


def timed(begin: int = 0, end: int = COUNT, *, numbered: bool = False) -> audio.TimedText:
    """Return the timings of some words, each of which lasts to the next."""
    return audio.TimedText(
        texts=TEXTS[begin:end],
        start_ms=STARTS[begin:end],
        end_ms=[start + WORD_MS for start in STARTS[begin:end]],
        first_item=begin if numbered else None,
    )


def heard_after(played) -> str:
    """Return the words whose middle was heard after this time."""
    played_ms = played.ToTimedelta().total_seconds() * 1000
    return "".join(text for text, start in zip(TEXTS, STARTS, strict=True) if start + WORD_MS / 2 <= played_ms)


async def _speaking(caller: Caller, attachment, *, seconds: float = 1.5):
    """Return a stream whose utterance "u" has played for some time, with a second one behind it."""
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.say(PCM, "u", text=timed())
    await stream.say(PCM, "behind", text=timed())
    await stream.until("started")
    await asyncio.sleep(seconds)
    return stream


@pytest.mark.parametrize("profile", ["classic", "modern", "acks_only"])
async def test_an_interrupt_answers_the_text_that_was_heard(profile):
    with processes.emulator(profile=profile) as emulator, processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            stream = await _speaking(caller, attachment)
            result = await attachment.command("barge", interrupt=sessions.Interrupt())
            ended = await stream.until("ended")
            event = await attachment.event("utterance_ended")
            await caller.end(attachment.session_id)
        interrupted, behind = result.interrupt.interrupted
        assert (interrupted.utterance_id, interrupted.heard_text) == ("u", heard_after(interrupted.played))
        assert (behind.utterance_id, behind.heard_text) == ("behind", "")
        assert interrupted.heard_text.startswith("word-0 word-1 ")
        assert "word-40" not in interrupted.heard_text
        assert ended.heard_text == event.heard_text == interrupted.heard_text


@pytest.mark.parametrize("profile", ["classic", "modern", "acks_only"])
async def test_a_pause_answers_the_text_and_the_end_has_all_of_it(profile):
    with processes.emulator(profile=profile) as emulator, processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            short = PCM[: speech.BYTE_RATE * 3]
            await stream.say(short, "u", text=timed(0, 15))
            await stream.until("started")
            await asyncio.sleep(1.0)
            paused = (await attachment.command("pause", pause=sessions.Pause())).pause
            event = await attachment.event("speech_paused")
            assert paused.heard_text == event.heard_text == heard_after(paused.played)
            await attachment.command("go", continue_speech=sessions.ContinueSpeech())
            ended = await stream.until("ended")
            await caller.end(attachment.session_id)
        assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
        assert ended.heard_text == "".join(TEXTS[:15])


async def test_timings_may_come_before_and_after_their_audio_and_in_pieces(caller):
    attachment = await caller.attach()
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.begin("u", text=timed(0, 5))
    await stream.timings(timed(5, 20))
    await stream.chunk(PCM[:96_000], 0)
    await stream.timings(timed(15, 25, numbered=True), utterance_id="u")
    await stream.chunk(PCM[96_000:240_000], 96_000)
    await stream.end("u")
    await stream.timings(timed(25, 26), utterance_id="u")
    await stream.until("started")
    await asyncio.sleep(1.0)
    (interrupted,) = (await attachment.command("c", interrupt=sessions.Interrupt())).interrupt.interrupted
    assert interrupted.heard_text == heard_after(interrupted.played) != ""
    await caller.end(attachment.session_id)


async def test_refused_timings_leave_the_audio_and_the_text_before_them(caller):
    attachment = await caller.attach()
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.begin("u", text=timed(0, 5))
    await stream.timings(timed(9, 12, numbered=True))
    gap = await stream.until("rejected")
    assert Refusal(gap.error).reason == "TIMINGS_GAP"
    assert Refusal(gap.error).code is grpc.StatusCode.FAILED_PRECONDITION
    assert Refusal(gap.error).metadata["expected"] == "5"
    await stream.timings(audio.TimedText(texts=["a"], start_ms=[5], first_item=5))
    wrong = Refusal((await stream.until("rejected")).error)
    assert (wrong.reason, wrong.field) == ("TIMINGS_INVALID", "timings.text.start_ms")
    await stream.say_on(PCM[:96_000], 0)
    ended = await stream.until("ended")
    assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    assert ended.heard_text == "".join(TEXTS[:5])
    await caller.end(attachment.session_id)


async def test_a_resumed_stream_does_not_double_the_text(caller, emulator):
    attachment = await caller.attach()
    await attachment.until_ready()
    first = await caller.speak(attachment.session_id)
    await first.begin("u", text=timed(0, 10))
    await first.chunk(PCM[:192_000], 0)
    await first.until("started")
    first.call.cancel()
    emulator.drop(attachment.upstream_id, 1011)
    second = await caller.speak(attachment.session_id)
    ack = await second.resume("u", text=timed(0, 10))
    await second.timings(timed(10, 20))
    await second.say_on(PCM[:192_000], ack.received_bytes)
    ended = await second.until("ended")
    assert ended.heard_text == "".join(TEXTS[:20])
    await caller.end(attachment.session_id)


async def test_the_text_survives_kill_minus_9_when_the_timings_come_again(tmp_path):
    with processes.emulator() as emulator, contextlib.ExitStack() as stack:
        settings = {"registry_file": tmp_path / "registry", "detach_grace_s": 20}
        gateway = stack.enter_context(processes.gateway(emulator.url, **settings))
        port = int(gateway.address.rpartition(":")[2])
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            await stream.say(PCM[:48_000], "before", text=timed(0, 5))
            await stream.until("ended")
            await stream.say(PCM, "u", text=timed())
            await stream.until("started")
            await asyncio.sleep(1.0)
        gateway.process.kill()
        gateway = stack.enter_context(processes.gateway(emulator.url, port=port, **settings))
        async with connect(gateway.address) as caller:
            resumed = await caller.resume(attachment.opened.handle, skip_compacted=True)
            stream = await caller.speak(attachment.session_id)
            await stream.begin("before", resume=True, text=timed(0, 5))
            before = await stream.until("ended")
            assert (before.utterance_id, before.heard_text) == ("before", "".join(TEXTS[:5]))
            ack = await stream.resume("u", text=timed())
            await stream.say_on(PCM, ack.received_bytes)
            await asyncio.sleep(0.5)
            result = await resumed.command("barge", interrupt=sessions.Interrupt())
            await caller.end(attachment.session_id)
        (interrupted,) = result.interrupt.interrupted
        assert interrupted.heard_text == heard_after(interrupted.played) != ""
        stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
        assert attachment.session_id.encode() in stored
        assert b"word-1" not in stored, "the registry holds content of a conversation"


async def test_only_callers_who_may_speak_or_control_read_the_text(emulator, tmp_path):
    tenants = TenantsFile(tmp_path / "tenants.toml")
    tenants.tenant("acme")
    keys = {
        "all": tenants.key("acme"),
        "watch": tenants.key("acme", "watch"),
    }
    with processes.gateway(emulator.url, auth_file=tenants.path) as gateway:
        async with contextlib.AsyncExitStack() as stack:
            callers = {
                name: await stack.enter_async_context(caller_with(gateway.address, key))
                for name, key in keys.items()
            }
            caller = callers["all"]
            attachment = await caller.attach()
            watches = {name: caller.watch() for name, caller in callers.items()}
            for watch in watches.values():
                await watch.add(attachment.session_id)
                await watch.until("snapshot")
            await _speaking(caller, attachment, seconds=0.8)
            paused = (await attachment.command("p", pause=sessions.Pause())).pause
            (first, _) = (await attachment.command("i", interrupt=sessions.Interrupt())).interrupt.interrupted
            texts = {}
            for name, watch in watches.items():
                events = []
                while not events or events[-1].WhichOneof("event") != "utterance_ended":
                    event = (await watch.until("event")).event
                    if event.WhichOneof("event") in ("speech_paused", "utterance_ended"):
                        events.append(event)
                assert events[0].speech_paused.played == paused.played
                texts[name] = (events[0].speech_paused.heard_text, events[-1].utterance_ended.heard_text)
            await caller.end(attachment.session_id)
    assert first.heard_text == paused.heard_text != ""
    assert texts == {"watch": ("", ""), "all": (paused.heard_text, first.heard_text)}


async def test_no_log_line_has_the_text(emulator):
    with processes.gateway(emulator.url, log_level="debug", log_format="json") as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await _speaking(caller, attachment, seconds=0.6)
            await attachment.command("p", pause=sessions.Pause())
            await attachment.command("i", interrupt=sessions.Interrupt())
            await caller.end(attachment.session_id)
        log = gateway.process.log
    assert "speech.paused" in log
    assert "word-0" not in log
