"""Behind a company's proxy both ways to LiveAvatar go through it, or the gateway does not start."""

import asyncio
import subprocess
import sys

import pytest

from testkit import processes, speech
from testkit.caller import caller as connect
from testkit.forwarding import PASSWORD, forward_proxy


async def test_calls_and_sockets_go_through_one_proxy_whose_password_nobody_sees(emulator):
    async with forward_proxy() as proxy:
        # Not from the loop of the proxy: the process is waited for.
        running = processes.gateway(emulator.url, variables={"ALL_PROXY": proxy.url}, log_level="debug")
        gateway = await asyncio.to_thread(running.__enter__)
        try:
            async with connect(gateway.address) as caller:
                session = (await caller.create()).session
                stream = await caller.speak(session.id)
                await stream.say(speech.sound(0.3, seed=1), "word")
                await stream.until("ended")
                await caller.end(session.id)
            host = emulator.url.removeprefix("http://")
            assert f"CONNECT {host}" in proxy.asked
            for path in ("token", "start", "stop"):
                assert f"POST {emulator.url}/v1/sessions/{path}" in proxy.asked
            assert gateway.process.logged("***@127.0.0.1")
            assert PASSWORD not in gateway.process.log
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_a_proxy_that_sockets_cannot_use_is_refused_at_start_by_name(command):
    environment = processes.clean_environment() | {
        "LIVEAVATAR_API_KEY": "key",
        "HTTPS_PROXY": f"socks5://user:{PASSWORD}@127.0.0.1:1080",
    }
    arguments = [sys.executable, "-m", "liveavatar_gateway", command]
    run = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=50)
    assert run.returncode == 78
    assert "HTTPS_PROXY" in run.stderr
    assert "socks5" in run.stderr
    assert "Traceback" not in run.stderr
    assert PASSWORD not in run.stderr + run.stdout


def test_check_config_prints_what_is_used_without_its_password():
    environment = processes.clean_environment() | {
        "LIVEAVATAR_API_KEY": "key",
        "https_proxy": f"http://user:{PASSWORD}@proxy.example:3128",
        "NO_PROXY": "liveavatar.com",
    }
    arguments = [sys.executable, "-m", "liveavatar_gateway", "check-config"]
    run = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=50)
    assert run.returncode == 0
    shown = dict(line.split(maxsplit=1) for line in run.stdout.splitlines() if len(line.split(maxsplit=1)) == 2)
    assert shown["rest_proxy"].strip() == "none"
    assert shown["socket_proxy"].strip() == "http://***@proxy.example:3128 (HTTPS_PROXY)"
    assert shown["no_proxy"].strip() == "liveavatar.com"
    assert PASSWORD not in run.stdout
