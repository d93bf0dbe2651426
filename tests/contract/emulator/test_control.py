"""The control API, and the process around it."""

import time

import pytest


async def test_state_counts_what_happened(emulator):
    async with emulator.ready() as (_, socket):
        await socket.speak(bytes(960), "u1")
        await socket.until("agent.audio_buffer_appended")
        state = await emulator.state()
        assert state["sessions"]["active"] == state["sessions"]["started_total"] == 1
        assert state["sockets_open"] == 1
        assert state["totals"]["packets"] == 1
        assert state["totals"]["received_bytes"] == 960
        assert state["refusals"]["403/4032"] == 0
        assert state["clock"]["speed"] == 20


async def test_reset_forgets_everything_and_closes_sockets(emulator):
    async with emulator.ready() as (session, socket):
        assert (await emulator.http.post("/_emulator/reset")).status_code == 204
        assert await socket.closed() == 1001
        assert (await emulator.http.get("/_emulator/sessions")).json() == []
        assert (await emulator.state())["sessions"]["started_total"] == 0
        assert (await emulator.http.post("/v1/sessions/stop", headers=session.bearer)).status_code == 401


async def test_sessions_are_listed_in_short(emulator):
    session = await emulator.session()
    (row,) = (await emulator.http.get("/_emulator/sessions")).json()
    assert (row["id"], row["phase"], row["pose"], row["socket_open"]) == (session.id, "waiting", "idle", False)


async def test_an_unknown_setting_is_named(emulator):
    answer = await emulator.http.patch("/_emulator/settings", json={"sped": 2})
    assert answer.status_code == 422
    assert answer.json()["detail"]["setting"] == "sped"
    assert "did you mean 'speed'" in answer.json()["detail"]["message"]


async def test_a_setting_out_of_range_changes_nothing(emulator):
    answer = await emulator.http.put("/_emulator/settings", json={"idle_s": 9, "speed": -1})
    assert answer.status_code == 422
    settings = (await emulator.http.get("/_emulator/settings")).json()
    assert (settings["idle_s"], settings["speed"]) == (300, 20)


async def test_reset_can_restore_the_settings_of_the_start(emulator):
    await emulator.knobs(idle_s=9)
    await emulator.http.post("/_emulator/reset")
    assert (await emulator.http.get("/_emulator/settings")).json()["idle_s"] == 9
    await emulator.http.post("/_emulator/reset", params={"settings": True})
    assert (await emulator.http.get("/_emulator/settings")).json()["idle_s"] == 300


@pytest.mark.parametrize(("code", "expected"), [(1011, 1011), (4321, 4321), (None, None)])
async def test_a_socket_can_be_dropped_with_any_code_or_none(emulator, code, expected):
    async with emulator.ready() as (session, socket):
        body = {"code": code, "reason": "test"} if code else {"code": None}
        answer = await emulator.http.post(f"/_emulator/sessions/{session.id}/drop", json=body)
        assert answer.status_code == 204
        assert await socket.closed() == expected
    async with emulator.socket(session) as again:
        await again.connected()
    first, _ = (await emulator.recording(session))["sockets"]
    assert (first["close_code"], first["closed_by"]) == (expected or 1006, "server")


async def test_a_raw_event_can_be_injected(emulator):
    async with emulator.ready() as (session, socket):
        event = {"type": "agent.brand_new", "payload": {"x": 1}}
        answer = await emulator.http.post(f"/_emulator/sessions/{session.id}/inject", json=event)
        assert answer.status_code == 204
        assert await socket.until("agent.brand_new") == event


async def test_without_a_socket_there_is_nothing_to_drop_or_inject_into(emulator):
    session = await emulator.session()
    for action in ("drop", "inject"):
        answer = await emulator.http.post(f"/_emulator/sessions/{session.id}/{action}", json={})
        assert answer.status_code == 409


async def test_a_session_that_was_never_started_is_not_found(emulator):
    assert (await emulator.http.get("/_emulator/sessions/nope")).status_code == 404
    session = await emulator.session()
    answer = await emulator.http.get(f"/_emulator/sessions/{session.id}/utterances/0/audio")
    assert answer.status_code == 404


async def test_audio_beyond_the_budget_is_refused_and_never_cut_short(emulator):
    await emulator.knobs(keep_audio_mb=0)
    async with emulator.ready() as (session, socket):
        await socket.speak(bytes(960))
        await socket.until("agent.audio_buffer_appended")
    recording = await emulator.recording(session)
    assert (recording["received_bytes"], recording["kept_bytes"]) == (960, 0)
    assert (await emulator.http.get(f"/_emulator/sessions/{session.id}/audio")).status_code == 409


async def test_old_recordings_are_forgotten_and_their_counters_stay(emulator):
    await emulator.knobs(keep_sessions=2)
    for _ in range(4):
        async with emulator.ready() as (session, socket):
            await socket.speak(bytes(960))
            await socket.until("agent.audio_buffer_appended")
        await emulator.http.post("/v1/sessions/stop", headers=session.bearer)
    state = await emulator.state()
    assert state["sessions"]["recordings_kept"] == 2
    assert state["totals"]["packets"] == 4
    assert state["sessions"]["started_total"] == 4


async def test_packet_times_are_comparable_with_this_process(emulator):
    before_s = time.monotonic()
    async with emulator.ready() as (session, socket):
        await socket.speak(bytes(960))
        await socket.until("agent.audio_buffer_appended")
    (packet,) = (await emulator.recording(session))["packets"]
    assert before_s < packet["arrived_mono_s"] < time.monotonic()
