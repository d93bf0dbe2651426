"""Metrics and logs of a real gateway under conversations."""

import asyncio
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from liveavatar.gateway.v1 import session_service_pb2 as sessions
from liveavatar_gateway.core.states import SessionState
from testkit import processes
from testkit.caller import caller, refused
from testkit.speech import sound

_OURS = "liveavatar.gateway.v1."


class _Scrape:
    """Content of /metrics at one time."""

    def __init__(self, text: str) -> None:
        self.families = {one.name: one for one in text_string_to_metric_families(text)}
        self._samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self._samples.get((name, *sorted(labels.items())), 0.0)


async def _scrape(url: str) -> _Scrape:
    async with httpx.AsyncClient(timeout=10) as http:
        response = (await http.get(url)).raise_for_status()
    assert response.headers["content-type"].startswith("text/plain")
    return _Scrape(response.text)


async def test_a_conversation_is_seen_whole_in_the_metrics():
    with processes.emulator(speed=4) as emulator, processes.gateway(emulator.url, metrics_port=0) as gateway:
        url = str(gateway.metrics)
        async with caller(gateway.address) as client:
            session = await client.attach()
            await session.until_ready()
            speech = await client.speak(session.session_id)
            spoken = sound(1.0)
            await speech.say(spoken, "whole")
            await speech.until("ended")
            await speech.begin("cut")
            await speech.chunk(sound(2.0))
            await speech.until("started")
            during = await _scrape(url)
            await session.command("stop-it", interrupt={})
            await speech.until("ended")
            await speech.call.done_writing()
            assert (
                await refused(client.sessions.GetSession(sessions.GetSessionRequest(session_id="unknown")))
            ).reason == "SESSION_NOT_FOUND"
            await client.end(session.session_id)
            await session.closed()
        after = await _scrape(url)
    assert during("gateway_sessions", state="ready") == 1
    assert during("gateway_permits_used") == 1
    assert during("gateway_permits_limit") == 200
    assert during("gateway_rpcs_open", method=f"{_OURS}SessionService/Attach") == 1
    assert during("gateway_rpcs_open", method=f"{_OURS}AudioService/StreamAudio") == 1
    assert all(after("gateway_sessions", state=state.value) == 0 for state in SessionState)
    assert after("gateway_sessions_ended_total", reason="CALLER_ENDED") == 1
    assert after("gateway_utterances_total", outcome="completed") == 1
    assert after("gateway_utterances_total", outcome="interrupted") == 1
    assert after("gateway_session_open_seconds_count") == 1
    assert after("gateway_utterance_start_seconds_count") == 2
    assert after("gateway_interrupt_seconds_count") == 1
    assert after("gateway_upstream_packets_total") >= 2
    assert after("gateway_upstream_audio_bytes_total") >= len(spoken)
    assert after("gateway_event_loop_lag_seconds_count") > 0
    assert after("gateway_rpcs_total", method=f"{_OURS}SessionService/Attach", code="OK") == 1
    assert after("gateway_rpcs_total", method=f"{_OURS}SessionService/GetSession", code="NOT_FOUND") == 1
    assert after("gateway_rpcs_open", method=f"{_OURS}SessionService/Attach") == 0
    assert after("process_cpu_seconds_total") > 0


async def test_a_call_that_its_caller_gives_up_is_counted_as_cancelled():
    with (
        processes.emulator(ready_delay_ms=60_000) as emulator,
        processes.gateway(emulator.url, metrics_port=0) as gateway,
    ):
        async with caller(gateway.address) as client:
            creation = asyncio.create_task(client.create())
            await asyncio.to_thread(emulator.wait_active, 1)
            creation.cancel()
            with pytest.raises(asyncio.CancelledError):
                await creation
            await asyncio.to_thread(emulator.wait_active, 0)
        after = await _scrape(str(gateway.metrics))
    method = f"{_OURS}SessionService/CreateSession"
    assert after("gateway_rpcs_total", method=method, code="CANCELLED") == 1


async def test_what_liveavatar_refuses_is_counted_by_reason_although_a_retry_made_it_good():
    with processes.emulator() as emulator, processes.gateway(emulator.url, metrics_port=0) as gateway:
        emulator.fault("token", status=503, times=1)
        async with caller(gateway.address) as client:
            created = await client.create()
            emulator.drop(created.session.upstream_session_id, 1011)
            while (await client.get(created.session.id)).usage.reconnect_count == 0:
                await asyncio.sleep(0.05)
            await client.end(created.session.id)
        after = await _scrape(str(gateway.metrics))
    reasons = {
        sample.labels["reason"]: sample.value
        for sample in after.families["gateway_upstream_errors"].samples
        if sample.name.endswith("_total")
    }
    assert reasons.pop("SOCKET_CLOSED") == 1
    assert after("gateway_upstream_reconnect_seconds_count") == 1
    assert list(reasons.values()) == [1], reasons


async def test_health_and_readiness_follow_the_life_of_the_process():
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, metrics_port=0, drain_grace_s=20) as gateway,
    ):
        base = str(gateway.metrics).removesuffix("/metrics")
        async with httpx.AsyncClient(base_url=base, timeout=10) as http, caller(gateway.address) as client:
            assert (await http.get("/healthz")).status_code == 200
            assert (await http.get("/readyz")).status_code == 200
            created = await client.create()
            speech = await client.speak(created.session.id)
            await speech.begin("long")
            await speech.chunk(sound(3.0))
            await speech.until("started")
            gateway.process.send(signal.SIGTERM)
            while (await http.get("/readyz")).status_code != 503:
                await asyncio.sleep(0.05)
            assert (await http.get("/healthz")).status_code == 200
            assert (await http.get("/metrics")).text.count("gateway_draining 1.0") == 1


async def test_openmetrics_is_given_to_those_who_ask_for_it():
    with processes.emulator() as emulator, processes.gateway(emulator.url, metrics_port=0) as gateway:
        accept = "application/openmetrics-text; version=1.0.0"
        async with httpx.AsyncClient(timeout=10) as http:
            response = await http.get(str(gateway.metrics), headers={"Accept": accept})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


def test_without_a_port_nothing_is_served():
    with processes.emulator() as emulator, processes.gateway(emulator.url) as gateway:
        assert gateway.metrics is None


def test_a_port_that_is_taken_is_named_with_the_setting():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environment = {"LIVEAVATAR_API_KEY": "k", "GATEWAY_PORT": "0", "GATEWAY_METRICS_PORT": str(port)}
        run = subprocess.run(
            [sys.executable, "-m", "liveavatar_gateway", "serve"],
            check=False,
            env={**processes.clean_environment(), **environment},
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert run.returncode == 78
    assert f"GATEWAY_METRICS_PORT: cannot listen on 127.0.0.1:{port}" in run.stderr
