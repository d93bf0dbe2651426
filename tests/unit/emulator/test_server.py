"""Parts of the server process that need no running server."""

from types import SimpleNamespace

import pytest

from liveavatar_emulator.config import LiveKitServer, ServerConfig, Settings
from liveavatar_emulator.server import _banner, _is_answering_control, _write_atomically


@pytest.mark.parametrize(
    ("path", "complete", "answering"),
    [("/_emulator/restart", False, True), ("/_emulator/restart", True, False), ("/v1/sessions", False, False)],
)
def test_only_a_control_call_without_a_response_outlives_a_restart(path, complete, answering):
    cycle = SimpleNamespace(response_complete=complete, scope={"path": path})
    assert _is_answering_control(SimpleNamespace(cycle=cycle)) is answering
    assert not _is_answering_control(SimpleNamespace(cycle=None))


def test_the_banner_names_what_is_off_and_how_time_runs():
    assert "video and audio in rooms" in _banner("http://h", ServerConfig(), Settings())
    assert "time stands still" in _banner("http://h", ServerConfig(clock="manual"), Settings(rate=0))
    assert "rate limit" in _banner("http://h", ServerConfig(), Settings(rate=0))
    assert "5 times as fast" in _banner("http://h", ServerConfig(clock_speed=5), Settings())
    livekit = LiveKitServer(url="ws://rooms", api_key="k", api_secret="s")
    assert "watch them on http://h/viewer" in _banner("http://h", ServerConfig(livekit=livekit), Settings())


def test_the_ready_file_is_complete_or_absent(tmp_path):
    _write_atomically(tmp_path / "ready.json", b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["ready.json"]
