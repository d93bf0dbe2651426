"""The greeting is never lost: an open socket is not readiness."""

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from testkit import processes, speech
from testkit.caller import caller as connect


async def test_a_greeting_sent_before_the_avatar_is_ready_is_held_and_played_whole():
    greeting = speech.sound(2.0)
    with processes.emulator(ready_delay_ms=2500) as emulator, processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            assert attachment.opened.session.state == session_pb2.SESSION_STATE_CONNECTING
            assert attachment.opened.room.viewer_token
            stream = await caller.speak(attachment.session_id)
            await stream.say(greeting)
            ended = await stream.until("ended")
            await caller.end(attachment.session_id)
            recording = emulator.session(attachment.upstream_id)
            assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            assert recording["commands_before_ready"] == 0
            assert emulator.audio(attachment.upstream_id) == greeting
            assert recording["utterances"][0]["opened_at_s"] >= recording["ready_at_s"]


async def test_an_avatar_that_never_says_connected_is_asked_and_used():
    greeting = speech.sound(0.5)
    with (
        processes.emulator(never_connected=True, ready_delay_ms=200) as emulator,
        processes.gateway(emulator.url, probe_after_s=0.5) as gateway,
    ):
        async with connect(gateway.address) as caller:
            created = await caller.create()
            stream = await caller.speak(created.session.id)
            await stream.say(greeting)
            ended = await stream.until("ended")
            await caller.end(created.session.id)
            assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            assert emulator.audio(created.session.upstream_session_id) == greeting


async def test_an_avatar_that_never_becomes_ready_is_stopped_and_says_so():
    from testkit.caller import refused

    with (
        processes.emulator(ready_delay_ms=60_000) as emulator,
        processes.gateway(emulator.url, probe_after_s=0.3, ready_timeout_s=1) as gateway,
    ):
        async with connect(gateway.address) as caller:
            why = await refused(caller.create())
            assert why.reason == "READY_TIMEOUT"
            assert why.code.name == "DEADLINE_EXCEEDED"
            emulator.wait_active(0)
