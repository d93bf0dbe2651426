"""Faults as a client meets them, over real connections."""

import asyncio
import base64
import hashlib
import json
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

PATIENCE_S = 15
QUICK = ("--rate", "0", "--concurrency", "9", "--ready-delay-ms", "0")
SECOND = bytes(range(250)) * 192


async def arm(emulator, kind, session, **fields):
    return await emulator.http.post("/_emulator/faults", json={"kind": kind, "session": session, **fields})


async def drained(connection):
    while True:
        await connection.recv()


async def until(so):
    async with asyncio.timeout(PATIENCE_S):
        while not await so():
            await asyncio.sleep(0.02)


# -- REST


async def test_malformed_json_is_the_true_answer_cut_in_its_middle(emulator):
    await emulator.fault("token", truncate=True)
    answer = await emulator.mint()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    assert answer.text.startswith('{"code":1000')


async def test_a_false_answer_can_be_malformed_too(emulator):
    await emulator.fault("token", truncate=True, status=500)
    answer = await emulator.mint()
    assert answer.status_code == 500
    with pytest.raises(json.JSONDecodeError):
        answer.json()


async def test_a_fault_is_disarmed_by_its_number(emulator):
    await emulator.fault("token", status=500)
    answer = await emulator.http.post("/_emulator/faults", json={"endpoint": "token", "status": 503})
    assert [row["status"] for row in answer.json()] == [500, 503]
    assert (await emulator.http.delete(answer.headers["location"])).status_code == 204
    assert (await emulator.http.delete(answer.headers["location"])).status_code == 404
    assert [(await emulator.mint()).status_code for _ in range(2)] == [500, 200]


async def test_a_mistyped_key_is_answered_with_the_right_one(emulator):
    answer = await emulator.http.post("/_emulator/faults", json={"kind": "drop", "session_": 1})
    assert answer.status_code == 422
    assert "did you mean 'session'" in answer.text


# -- sockets


async def test_a_reset_leaves_no_close_frame_and_no_orderly_end(emulator):
    session = await emulator.session()
    await arm(emulator, "drop", session.id, after_packets=2)
    async with connect(session.ws_url) as connection:
        frame = json.dumps({"type": "agent.speak", "audio": base64.b64encode(SECOND).decode()})
        while json.loads(await connection.recv()).get("state") != "connected":
            pass
        await connection.send(frame)
        await connection.send(frame)
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(drained(connection), PATIENCE_S)
    assert closed.value.rcvd is None
    assert isinstance(closed.value.__cause__, ConnectionResetError)
    recording = await emulator.recorded(session, lambda row: row["sockets"][0]["closed_at_s"] is not None)
    assert (recording["sockets"][0]["close_code"], recording["sockets"][0]["closed_by"]) == (1006, "server")


async def test_while_reading_is_stopped_the_tcp_window_fills_and_then_nothing_is_lost(emulator):
    await emulator.knobs(speed=1000)
    async with emulator.ready() as (session, socket_):
        answer = await arm(emulator, "stop_reading", session.id, for_s=3600)
        sent = 0
        blocked = False
        while not blocked and sent < 400:
            writing = asyncio.ensure_future(socket_.speak(SECOND))
            done, _ = await asyncio.wait([writing], timeout=1)
            blocked = not done
            sent += 1
        assert blocked, f"{sent} packets of 64 000 characters were taken in by a server that does not read"
        assert (await emulator.recording(session))["packet_count"] <= 1
        await emulator.http.delete(answer.headers["location"])
        await writing
        await emulator.recorded(session, lambda row: row["packet_count"] == sent)
        expected = hashlib.sha256(SECOND * sent).hexdigest()
        assert (await emulator.recording(session))["sha256"] == expected


async def test_slow_reading_takes_so_many_bytes_per_second_of_emulator_time(own_emulator):
    async with own_emulator("--clock", "manual", *QUICK) as emulator, emulator.ready() as (session, socket_):
        await arm(emulator, "slow_reading", session.id, bytes_per_s=16_000)
        for _ in range(4):
            await socket_.speak(SECOND)
        size_bytes = len(base64.b64encode(SECOND))
        passed_s = heard = 0
        async with asyncio.timeout(PATIENCE_S):
            while heard < 4:
                await asyncio.sleep(0.01)  # what the client wrote crosses the loopback in real time
                await emulator.advance(0.25)
                passed_s += 0.25
                heard = (await emulator.recording(session))["packet_count"]
                assert heard * size_bytes <= 16_000 * passed_s
        assert passed_s >= 4 * size_bytes / 16_000


async def test_acks_are_swallowed_and_the_speech_is_heard_all_the_same(emulator):
    async with emulator.ready() as (session, socket_):
        await arm(emulator, "swallow_acks", session.id)
        await socket_.speak(SECOND, "u1")
        await socket_.send("agent.speak_end", event_id="u1")
        await socket_.until("agent.speak_ended")
    assert not [kind for kind in socket_.types() if "audio_buffer" in kind]


async def test_acks_come_late_and_the_rest_does_not_wait_for_them(emulator):
    async with emulator.ready() as (session, socket_):
        answer = await arm(emulator, "delay_acks", session.id, delay_ms=3_600_000)
        await socket_.speak(SECOND, "u1")
        await socket_.send("agent.speak_end", event_id="u1")
        await socket_.until("agent.speak_ended")
        assert not [kind for kind in socket_.types() if "audio_buffer" in kind]
        assert (await emulator.http.delete(answer.headers["location"])).status_code == 204


async def test_a_reconnect_is_refused_with_403_or_with_a_reset(emulator):
    session = await emulator.session()
    await arm(emulator, "refuse_sockets", session.id)
    with pytest.raises(InvalidStatus) as refused:
        await connect(session.ws_url)
    assert refused.value.response.status_code == 403
    await arm(emulator, "refuse_sockets", session.id, how="reset")
    where = urlsplit(session.ws_url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    writer.write(f"GET {where.path} HTTP/1.1\r\nHost: x\r\n{handshake}{key}\r\n".encode())
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    await emulator.http.delete("/_emulator/faults")
    async with emulator.socket(session) as socket_:
        await socket_.connected()


async def test_one_session_is_never_told_that_it_is_connected_and_works(emulator):
    first, second = await emulator.session(), await emulator.session()
    await arm(emulator, "never_connected", first.id)
    async with emulator.socket(first) as mute, emulator.socket(second) as other:
        await other.connected()
        await emulator.recorded(first, lambda row: row["phase"] == "ready")
        await mute.speak(SECOND, "u1")
        await mute.until("agent.speak_started")
    assert "connected" not in [event.get("state") for event in mute.events]


async def test_a_fault_on_a_session_that_is_not_there_is_a_conflict(emulator):
    answer = await arm(emulator, "drop", "00000000-0000-4000-8000-000000000000")
    assert answer.status_code == 409
    assert "is running" in answer.json()["detail"]


# -- the whole service


async def refuses(url: str) -> bool:
    where = urlsplit(url)
    try:
        _, writer = await asyncio.open_connection(where.hostname, where.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def serves(url: str) -> bool:
    async with httpx.AsyncClient(base_url=url, verify=False, trust_env=False) as http:
        try:
            return (await http.get("/_emulator/clock")).status_code == 200
        except httpx.TransportError:
            return False


async def test_after_a_restart_sessions_are_still_there_when_they_are_kept(own_emulator):
    async with own_emulator(*QUICK) as emulator:
        async with emulator.ready() as (session, socket_):
            answer = await emulator.http.post("/_emulator/restart", json={"down_s": 4, "keep_sessions": True})
            assert answer.status_code == 202
            assert await socket_.closed() is None
            await until(lambda: refuses(emulator.url))
            await until(lambda: serves(emulator.url))
        async with emulator.socket(session) as socket_:
            await socket_.connected()
            await socket_.speak(SECOND)
            await socket_.until("agent.audio_buffer_appended")
        assert (await emulator.http.post("/v1/sessions/stop", headers=session.bearer)).status_code == 200
        log = (await emulator.http.get("/_emulator/log")).text
        kinds_seen = [json.loads(line)["what"] for line in log.splitlines()]
        assert kinds_seen.index("restart") < kinds_seen.index("socket.detached") < kinds_seen.index("restart.done")


async def test_after_a_restart_sessions_are_gone_when_they_are_not_kept(own_emulator):
    async with own_emulator(*QUICK) as emulator:
        unstarted = (await emulator.mint()).json()["data"]["session_token"]
        async with emulator.ready() as (session, socket_):
            await emulator.http.post("/_emulator/restart", json={"keep_sessions": False})
            assert await socket_.closed() is None
        await until(lambda: serves(emulator.url))
        assert (await emulator.http.post("/v1/sessions/keep-alive", headers=session.bearer)).status_code == 404
        assert (await emulator.historic(session))["end_reason"] == "SERVER_ERROR"
        assert (await emulator.start_with(unstarted)).status_code == 401
        with pytest.raises(InvalidStatus):
            await connect(session.ws_url)
        await emulator.session()


async def test_other_connections_are_reset_by_a_restart(own_emulator):
    async with own_emulator(*QUICK) as emulator:
        where = urlsplit(emulator.url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(b"GET /v1/avatars/public HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await emulator.http.post("/_emulator/restart", json={})
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()
        await until(lambda: serves(emulator.url))


async def test_an_exit_does_not_wait_for_the_end_of_an_outage(own_emulator):
    async with own_emulator(*QUICK) as emulator:
        await emulator.http.post("/_emulator/restart", json={"down_s": 1000})
        await until(lambda: refuses(emulator.url))


async def test_a_session_can_be_told_apart_by_its_number(emulator):
    sessions = [await emulator.session() for _ in range(2)]
    async with emulator.socket(sessions[0]) as first, emulator.socket(sessions[1]) as second:
        await first.connected()
        await second.connected()
        await arm(emulator, "drop", 2, code=4002)
        assert await second.closed() == 4002
        await first.speak(SECOND)
        await first.until("agent.audio_buffer_appended")
