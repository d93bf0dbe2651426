"""Data and headers of the page."""

from liveavatar_emulator.config import LiveKitServer, ServerConfig, Settings
from liveavatar_emulator.service import Emulator
from liveavatar_emulator.viewer import _headers, _same_server


async def test_the_page_sees_running_sessions_and_the_watched_one(service, http):
    ended, running = service.start(), service.start()
    ended.driver.stop("USER_CLOSED")
    status = (await http.get("/_emulator/viewer", params={"session": ended.record.id})).json()
    assert [row["id"] for row in status["running"]] == [running.record.id]
    assert status["session"]["end_reason"] == "USER_CLOSED"
    assert not status["livekit"]


async def test_a_room_is_joined_only_with_a_livekit_server_and_while_the_session_runs(service, http):
    started = service.start()
    path = f"/_emulator/sessions/{started.record.id}/viewer"
    assert "--livekit-url" in (await http.get(path)).json()["detail"]
    started.driver.stop("USER_CLOSED")
    assert "is over" in (await http.get(path)).json()["detail"]


def test_the_page_may_connect_to_the_livekit_server():
    livekit = LiveKitServer(url="wss://rooms.example", api_key="k", api_secret="s")
    policy = _headers(Emulator(ServerConfig(livekit=livekit), Settings()))["Content-Security-Policy"]
    assert "connect-src 'self' wss://rooms.example https://rooms.example;" in policy
    assert _same_server("wss://rooms.example/", livekit.url)
