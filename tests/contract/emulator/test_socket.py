"""The command socket, as a client sees it."""

import asyncio
import base64
import hashlib
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

KEY = {"X-API-KEY": "emulator-key"}
SPEECH = bytes(range(256)) * 75
"""400 ms."""


async def test_one_utterance_from_first_chunk_to_idle(emulator):
    async with emulator.ready() as (session, socket):
        for _ in range(3):
            await socket.speak(SPEECH, "u1")
        await socket.send("agent.speak_end", event_id="u1")
        await socket.until("agent.state_updated", new_state="idle")
        speech = [event for event in socket.events if event["type"].startswith("agent.speak_")]
        assert [event["type"] for event in speech] == ["agent.speak_started", "agent.speak_ended"]
        assert {event["source_event_id"] for event in speech} == {"u1"}
        assert socket.types().count("agent.audio_buffer_appended") == 3
        assert socket.types().count("agent.audio_buffer_committed") == 1
        ids = [event["event_id"] for event in socket.events]
        assert len(set(ids)) == len(ids)
    (utterance,) = (await emulator.recording(session))["utterances"]
    assert utterance["outcome"] == "ended"
    assert utterance["played_bytes"] == utterance["received_bytes"] == 3 * len(SPEECH)


async def test_what_was_sent_is_what_was_recorded(emulator):
    pieces = [bytes([n]) * (960 + 2 * n) for n in range(20)]
    async with emulator.ready() as (session, socket):
        for piece in pieces:
            await socket.speak(piece, "u1")
        await socket.send("agent.speak_end", event_id="u1")
        await socket.until("agent.audio_buffer_committed")
    recording = await emulator.recording(session)
    path = f"/_emulator/sessions/{session.id}"
    whole = b"".join(pieces)
    assert (await emulator.http.get(f"{path}/audio")).content == whole
    assert (await emulator.http.get(f"{path}/utterances/0/audio")).content == whole
    assert recording["sha256"] == hashlib.sha256(whole).hexdigest()
    assert [packet["size_bytes"] for packet in recording["packets"]] == [len(piece) for piece in pieces]
    arrivals = [packet["arrived_mono_s"] for packet in recording["packets"]]
    assert arrivals == sorted(arrivals)
    wav = (await emulator.http.get(f"{path}/utterances/0/audio.wav")).content
    assert wav[:4] == b"RIFF"
    assert wav[44:] == whole


async def test_interrupt_cuts_and_the_session_can_speak_again(emulator):
    await emulator.knobs(speed=1)
    async with emulator.ready() as (session, socket):
        for _ in range(10):
            await socket.speak(SPEECH, "u1")
        await socket.until("agent.speak_started", source_event_id="u1")
        await socket.send("agent.interrupt", event_id="i1")
        await socket.until("agent.audio_buffer_cleared", source_event_id="i1")
        await socket.until("agent.speak_interrupted", source_event_id="u1")
        await socket.until("agent.state_updated", previous_state="talking", new_state="idle")
        await socket.speak(SPEECH, "u2")
        await socket.until("agent.speak_started", source_event_id="u2")
    recording = await emulator.recording(session)
    first, second = recording["utterances"]
    assert (first["outcome"], second["number"]) == ("interrupted", 1)
    (cut,) = recording["interrupts"]
    assert cut["played_bytes"] == first["played_bytes"] < first["received_bytes"]
    played = await emulator.http.get(
        f"/_emulator/sessions/{session.id}/utterances/0/audio", params={"played": True}
    )
    assert len(played.content) == first["played_bytes"]


async def test_commands_before_connected_vanish_and_are_counted(emulator):
    await emulator.knobs(ready_delay_ms=60_000)
    session = await emulator.session()
    async with emulator.socket(session) as socket:
        await socket.until("session.state_updated", state="new")
        await socket.speak(SPEECH, "u1")
        await socket.send("agent.speak_end", event_id="u1")
        await emulator.recorded(session, lambda seen: seen["commands_before_ready"] == 2)
        await emulator.knobs(ready_delay_ms=0)
        await socket.connected()
        assert socket.types() == ["session.state_updated"] * 2
    recording = await emulator.recording(session)
    assert recording["received_bytes"] == 0
    assert (await emulator.state())["totals"]["commands_before_ready"] == 2


@pytest.mark.parametrize(
    ("profile", "states"),
    [
        ("modern", ["new", "connected", "disconnected"]),
        ("classic", ["connecting", "connected", "closing", "closed"]),
        ("acks_only", ["new", "connected", "disconnected"]),
    ],
)
async def test_each_profile_tells_its_own_states_until_a_normal_close(emulator, profile, states):
    await emulator.knobs(profile=profile)
    async with emulator.ready() as (session, socket):
        await emulator.http.post("/v1/sessions/stop", headers=session.bearer)
        assert await socket.closed() == 1000
        told = [event["state"] for event in socket.events if event["type"] == "session.state_updated"]
        assert told == states
        assert ("session.stopped" in socket.types()) == (profile != "classic")


async def test_the_classic_profile_echoes_ids_and_ends_an_interrupted_speech(emulator):
    await emulator.knobs(profile="classic", speed=1)
    async with emulator.ready() as (_, socket):
        await socket.speak(SPEECH * 10, "u1")
        assert (await socket.until("agent.speak_started"))["event_id"] == "u1"
        await socket.send("agent.interrupt", event_id="i1")
        assert (await socket.until("agent.speak_interrupted"))["event_id"] == "u1"
        assert (await socket.until("agent.speak_ended"))["event_id"] == "u1"
        assert not [kind for kind in socket.types() if "buffer" in kind or kind == "agent.state_updated"]


async def test_the_acks_only_profile_never_says_speak(emulator):
    await emulator.knobs(profile="acks_only")
    async with emulator.ready() as (_, socket):
        await socket.speak(SPEECH, "u1")
        await socket.send("agent.speak_end")
        await socket.until("agent.state_updated", new_state="idle")
        assert not [kind for kind in socket.types() if kind.startswith("agent.speak_")]


async def test_bad_audio_draws_an_error_and_the_socket_stays_open(emulator):
    async with emulator.ready() as (session, socket):
        await socket.send("agent.speak", event_id="u1", audio="not base64!")
        error = (await socket.until("error"))["error"]
        assert error == {
            "type": "invalid_request_error",
            "message": "invalid base64 audio data",
            "event_id": "u1",
        }
        await socket.send("agent.speak", event_id="u2", audio="")
        await socket.until("error")
        await socket.connection.send("not json")
        await socket.until("error")
        await socket.connection.send(b"binary")
        await socket.until("error")
        await socket.send("agent.dance")
        await socket.until("error")
        await socket.speak(SPEECH, "u3")
        await socket.until("agent.audio_buffer_appended", source_event_id="u3")
    recording = await emulator.recording(session)
    assert (recording["invalid_messages"], recording["unknown_messages"]) == (4, 1)


async def test_the_starters_first_frame_and_wrong_poses_are_silent(emulator):
    async with emulator.ready() as (_, socket):
        await socket.send("start", encoding="pcm_s16le", sample_rate=24000, channels=1)
        await socket.send("agent.stop_listening", event_id="x")
        await socket.send("agent.start_listening", event_id="y")
        event = await socket.until("agent.state_updated")
        assert event["new_state"] == "listening"
        assert socket.types() == ["session.state_updated"] * 2 + ["agent.state_updated"]


async def test_a_frame_of_a_million_characters_passes_and_one_more_closes_with_1009(emulator):
    def frame(characters: int) -> str:
        bare = len(json.dumps({"type": "agent.speak", "audio": "", "pad": ""}))
        audio = base64.b64encode(bytes(700_000)).decode()
        return json.dumps({"type": "agent.speak", "audio": audio, "pad": "x" * (characters - bare - len(audio))})

    async with emulator.ready() as (session, socket):
        await socket.connection.send(frame(1_000_000))
        await socket.until("agent.audio_buffer_appended")
        await socket.connection.send(frame(1_000_001))
        assert await socket.closed() == 1009
    recording = await emulator.recording(session)
    assert (recording["oversize_packets"], recording["received_bytes"]) == (1, 700_000)
    assert recording["end_reason"] is None


async def test_odd_packets_are_counted(emulator):
    async with emulator.ready() as (session, socket):
        await socket.speak(bytes(961))
        await socket.until("agent.audio_buffer_appended")
    assert (await emulator.recording(session))["odd_size_packets"] == 1


async def test_a_second_socket_closes_the_first(emulator):
    async with emulator.ready() as (session, first), emulator.socket(session) as second:
        assert await first.closed() == 1000
        await second.connected()
        await second.speak(SPEECH, "u1")
        await second.until("agent.speak_started")
    assert [socket["close_code"] for socket in (await emulator.recording(session))["sockets"]] == [1000, 1000]


async def test_a_closed_socket_leaves_the_session_and_its_queue_alone(emulator):
    async with emulator.ready() as (session, socket):
        await socket.speak(SPEECH, "u1")
        await socket.send("agent.speak_end")
        await socket.until("agent.audio_buffer_committed")
    recording = await emulator.recorded(session, lambda seen: seen["utterances"][0]["outcome"] == "ended")
    assert recording["phase"] == "ready"
    assert recording["sockets"][0]["closed_by"] == "client"
    assert (await emulator.http.post("/v1/sessions/stop", headers=session.bearer)).status_code == 200


async def test_an_unknown_or_ended_ws_url_is_refused(emulator):
    session = await emulator.session()
    await emulator.http.post("/v1/sessions/stop", headers=session.bearer)
    for url in (session.ws_url, session.ws_url[:-4] + "nope"):
        with pytest.raises(InvalidStatus):
            await connect(url)


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"idle_s": 0.5}, "IDLE_TIMEOUT"),
        ({"max_duration_s": 1}, "MAX_DURATION_REACHED"),
    ],
)
async def test_timers_end_a_session_with_their_reason(emulator, knobs, reason):
    await emulator.knobs(**knobs)
    session = await emulator.session()
    async with emulator.socket(session) as socket:
        assert await socket.closed() == 1000
        assert socket.events[-2]["end_reason"] == reason
    assert (await emulator.historic(session))["end_reason"] == reason


async def test_an_abandoned_session_is_reaped(emulator):
    await emulator.knobs(reap_s=0.1)
    session = await emulator.session()
    assert (await emulator.historic(session))["end_reason"] == "ZOMBIE_SESSION_REAP"


async def test_at_the_limit_a_muted_session_says_nothing_at_all(emulator):
    await emulator.knobs(max_duration_s=1, max_duration_mode="mute")
    async with emulator.ready() as (session, socket):
        assert (await emulator.historic(session))["end_reason"] == "MAX_DURATION_REACHED"
        await socket.speak(SPEECH, "u1")
        recording = await emulator.recorded(session, lambda seen: seen["commands_after_end"] == 1)
        assert recording["socket_open"]
        await emulator.http.post(f"/_emulator/sessions/{session.id}/inject", json={"type": "probe"})
        await socket.until("probe")
        assert socket.types() == ["session.state_updated"] * 2 + ["probe"]


async def test_underruns_are_counted_with_their_length(emulator):
    async with emulator.ready() as (session, socket):
        await socket.speak(SPEECH, "u1")
        await socket.until("agent.speak_started")
        await emulator.recorded(session, lambda seen: seen["utterances"][0]["played_bytes"] == len(SPEECH))
        await asyncio.sleep(0.02)
        await socket.speak(SPEECH, "u1")
        await socket.send("agent.speak_end")
        await socket.until("agent.speak_ended")
        assert socket.types().count("agent.speak_started") == 1
    (utterance,) = (await emulator.recording(session))["utterances"]
    assert utterance["underruns"]["count"] == 1
    assert utterance["underruns"]["dry_s"] > 0
    assert (await emulator.state())["totals"]["underruns"] == 1


async def test_jitter_and_shuffling_lose_no_event(emulator):
    await emulator.knobs(jitter_ms=5, shuffle_events=True)
    async with emulator.ready() as (_, socket):
        for name in ("u1", "u2"):
            await socket.speak(SPEECH, name)
            await socket.send("agent.speak_end", event_id=name)
        wanted = {"agent.speak_ended": 2, "agent.audio_buffer_committed": 2, "agent.state_updated": 4}
        async with asyncio.timeout(15):
            while any(socket.types().count(kind) < count for kind, count in wanted.items()):
                socket.events.append(json.loads(await socket.connection.recv()))


async def test_a_knob_drops_the_socket_in_mid_speech(emulator):
    await emulator.knobs(drop_after_packets=2, drop_code=1011)
    async with emulator.ready() as (session, socket):
        for _ in range(2):
            await socket.speak(SPEECH, "u1")
        assert await socket.closed() == 1011
    assert (await emulator.recording(session))["phase"] == "ready"
