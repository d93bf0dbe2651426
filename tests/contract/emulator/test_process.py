"""The emulator as a program: options, ready file, logs, exit."""

import os
import signal
import subprocess
import sys

import httpx
import pytest
from websockets.asyncio.client import connect

from testkit.processes import server as run_server


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "liveavatar_emulator", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_it_leaves_at_once_with_status_0_even_with_an_open_socket(tmp_path, how):
    with run_server("liveavatar_emulator", {}, tmp_path, "--ready-delay-ms", "0") as emulator:
        async with httpx.AsyncClient(base_url=emulator.info["url"]) as http:
            body = {"avatar_id": "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"}
            minted = await http.post("/v1/sessions/token", json=body, headers={"X-API-KEY": "emulator-key"})
            token = minted.json()["data"]["session_token"]
            started = await http.post("/v1/sessions/start", headers={"Authorization": f"Bearer {token}"})
            ws_url = started.json()["data"]["ws_url"]
            secret = {"secret_type": "LLM_API_KEY", "secret_value": "sk-not-for-logs", "secret_name": "x"}
            await http.post("/v1/secrets", json=secret, headers={"X-API-KEY": "emulator-key"})
        async with connect(ws_url) as socket:
            await socket.recv()
            emulator.send(how)
            await socket.wait_closed()
        assert emulator.wait(15) == 0
    log = emulator.log
    assert "Traceback" not in log
    assert "LiveAvatar emulator on http://127.0.0.1:" in log
    for secret in (token, ws_url.rpartition("/")[2], "emulator-key", "sk-not-for-logs"):
        assert secret not in log


def test_help_names_every_knob():
    text = run("serve", "--help").stdout
    for flag in ("--ready-delay-ms", "--speed", "--concurrency", "--never-connected", "EMULATOR_READY_DELAY_MS"):
        assert flag in text


def test_a_value_out_of_range_is_refused_with_status_78_and_its_name():
    done = run("serve", "--speed", "0")
    assert done.returncode == 78
    assert "speed" in done.stderr
    assert "EMULATOR_SPEED" in done.stderr


def test_a_knob_in_the_environment_counts():
    done = run("serve", EMULATOR_IDLE_S="-5")
    assert done.returncode == 78
    assert "idle_s" in done.stderr


def test_a_taken_port_is_an_error_and_not_a_traceback(server):
    done = run("serve", "--port", server.info["url"].rpartition(":")[2])
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_manual_clock_with_a_speed_is_refused_with_status_78():
    done = run("serve", "--clock", "manual", "--clock-speed", "2")
    assert done.returncode == 78
    assert "--clock-speed" in done.stderr
