"""Emulator time as a client sees it: hastened, or standing still until it is moved."""

import asyncio
import time
from datetime import datetime

PLAIN = ("--rate", "0", "--concurrency", "9")


async def test_the_clock_says_how_it_moves(emulator):
    clock = (await emulator.http.get("/_emulator/clock")).json()
    assert (clock["mode"], clock["rate"], clock["speed"]) == ("real", 1, 20)
    assert clock["now_s"] <= time.monotonic()


async def test_a_real_clock_cannot_be_moved(emulator):
    answer = await emulator.http.post("/_emulator/clock/advance", json={"seconds": 1})
    assert answer.status_code == 409
    assert "--clock manual" in answer.json()["detail"]


async def test_a_fast_clock_hastens_every_timer(own_emulator):
    """At 60 times the speed, the idle limit of five minutes comes after five seconds."""
    async with own_emulator("--clock-speed", "60", "--reap-s", "3600", *PLAIN) as emulator:
        began_s = time.monotonic()
        async with emulator.ready() as (session, socket):
            for _ in range(20):
                await socket.speak(bytes(48_000))
            await socket.send("agent.speak_end")
            await socket.until("agent.speak_ended")
            assert await socket.closed() == 1000
        took_s = time.monotonic() - began_s
        entry = await emulator.historic(session)
        assert entry["end_reason"] == "IDLE_TIMEOUT"
        assert entry["duration"] >= 300 > took_s
        recording = await emulator.recording(session)
        (utterance,) = recording["utterances"]
        spoken_s = utterance["ended_at_s"] - utterance["started_at_s"]
        assert round(spoken_s - utterance["underruns"]["dry_s"], 3) == 20
        assert round(recording["ended_at_s"] - utterance["speak_end_at_s"], 3) == 300
        assert recording["ready_at_s"] >= 2.5


async def test_under_a_manual_clock_nothing_happens_until_it_is_moved(own_emulator):
    async with own_emulator("--clock", "manual", *PLAIN) as emulator:
        session = await emulator.session()
        async with emulator.socket(session) as socket:
            await socket.until("session.state_updated", state="new")
            assert (await emulator.recording(session))["phase"] == "waiting"
            await emulator.advance(2.499)
            assert (await emulator.recording(session))["phase"] == "waiting"
            await emulator.advance(0.001)
            await socket.connected()
            await socket.speak(bytes(48_000))
            await socket.send("agent.speak_end")
            await socket.until("agent.audio_buffer_committed")
            await emulator.advance(0.7)
            await socket.until("agent.speak_started")
            assert (await emulator.recording(session))["utterances"][0]["played_bytes"] == 24_000
            clock = await emulator.advance(300)
            assert clock["at_s"] == 303.2
            await socket.until("agent.speak_ended")
            assert await socket.closed() == 1000
        recording = await emulator.recording(session)
        assert recording["ready_at_s"] == 2.5
        assert recording["utterances"][0]["started_at_s"] == 2.7
        assert recording["utterances"][0]["ended_at_s"] == 3.7
        assert (recording["end_reason"], recording["ended_at_s"]) == ("IDLE_TIMEOUT", 302.5)
        entry = await emulator.historic(session)
        lived = datetime.fromisoformat(entry["end_at"]) - datetime.fromisoformat(entry["created_at"])
        assert lived.total_seconds() == 302.5


async def test_a_token_expires_in_emulator_time(own_emulator):
    async with own_emulator("--clock", "manual", *PLAIN) as emulator:
        token = (await emulator.mint()).json()["data"]["session_token"]
        await emulator.advance(301)
        assert (await emulator.start_with(token)).status_code == 401


async def test_a_delayed_answer_comes_when_the_clock_gets_there(own_emulator):
    async with own_emulator("--clock", "manual", *PLAIN) as emulator:
        await emulator.fault("token", delay_s=30)
        async with asyncio.TaskGroup() as tasks:
            minting = tasks.create_task(emulator.mint())
            while not (await emulator.state())["faults"]["fired"]:
                await asyncio.sleep(0.01)
            await emulator.advance(29)
            assert not minting.done()
            await emulator.advance(1)
        assert minting.result().status_code == 200


async def test_lateness_can_be_measured_in_windows(emulator):
    async with emulator.ready():
        assert (await emulator.state())["clock"]["late"]["count"] > 0
        assert (await emulator.http.delete("/_emulator/clock/late")).status_code == 204
        assert (await emulator.state())["clock"]["late"]["count"] == 0
