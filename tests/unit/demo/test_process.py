"""The demo's servers see nothing of what the caller's shell has set for others, nor of what earlier ones left."""

import sys
from pathlib import Path

import pytest

from liveavatar_demo.process import Process, StartFailed, clean_environment


def test_settings_and_proxies_of_the_shell_are_left_out():
    environment = {
        "PATH": "/bin",
        "GATEWAY_PORT": "1",
        "EMULATOR_SPEED": "9",
        "LIVEAVATAR_API_KEY": "secret",
        "http_proxy": "http://proxy",
        "HTTPS_PROXY": "http://proxy",
        "GRPC_EXPERIMENTS": "-event_engine_listener",
    }
    assert clean_environment(environment) == {"PATH": "/bin", "GRPC_EXPERIMENTS": "-event_engine_listener"}


def test_the_ready_file_of_an_earlier_process_is_not_taken_for_its_own(tmp_path: Path):
    (tmp_path / "server.ready.json").write_text('{"address": "127.0.0.1:1"}')
    process = Process("server", [sys.executable, "-c", "raise SystemExit(7)"], folder=tmp_path, environment={})
    with pytest.raises(StartFailed):
        process.start()
    assert process.info == {}
