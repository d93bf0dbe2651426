"""Limits of connections: callers beyond them are closed, and those that talk notice nothing."""

import asyncio
import contextlib
import resource
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from liveavatar_demo.process import clean_environment
from liveavatar_gateway.telemetry.endpoint import Endpoint
from liveavatar_gateway.telemetry.metrics import Metrics, Snapshot
from testkit.caller import caller
from testkit.http2 import Connection
from testkit.processes import Gateway, gateway


def is_closed(connection: socket.socket) -> bool:
    """Return whether the peer closes a connection soon."""
    connection.settimeout(10)
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(65_536):
            pass
    return True


def dialled(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


async def test_connections_above_the_limit_are_closed_and_running_streams_go_on(shared_emulator):
    with gateway(shared_emulator.url, max_connections=4, metrics_port=0) as at:
        async with caller(at.address) as talking:
            attached = await talking.attach()
            speech = await talking.speak(attached.session_id)
            with contextlib.ExitStack() as held:
                for _ in range(3):
                    held.enter_context(Connection(at.address))
                assert is_closed(held.enter_context(dialled(at.address)))
                await speech.say(bytes(48_000), "u-1")
                assert (await speech.until("ended")).utterance_id == "u-1"
                assert at.metrics is not None
                async with httpx.AsyncClient() as http:
                    assert (await http.get(at.metrics)).status_code == 200
            async with caller(at.address) as next_one:
                assert (await next_one.get(attached.session_id)).id == attached.session_id


def test_a_connection_without_a_call_is_closed(shared_emulator):
    with gateway(shared_emulator.url, connection_idle_s=1) as at, Connection(at.address) as idle:
        assert is_closed(idle.socket)


def test_a_connection_that_never_says_hello_is_closed(shared_emulator):
    with gateway(shared_emulator.url, handshake_timeout_s=1) as at, dialled(at.address) as silent:
        assert is_closed(silent)


def test_metrics_are_served_beside_connections_that_say_nothing(shared_emulator):
    """A connection too many displaces the oldest that asks for nothing."""
    with gateway(shared_emulator.url, metrics_port=0) as at, contextlib.ExitStack() as held:
        assert at.metrics is not None
        address = at.metrics.removeprefix("http://").removesuffix("/metrics")
        silent = [held.enter_context(dialled(address)) for _ in range(40)]
        for _ in range(3):
            assert httpx.get(at.metrics, timeout=20).status_code == 200
        assert all(map(is_closed, silent[:8]))
        assert httpx.get(at.metrics, timeout=20).status_code == 200


class _SlowMetric(Collector):
    """Metric that is not known before it is released."""

    def __init__(self) -> None:
        self.asked, self.released = threading.Event(), threading.Event()

    def collect(self) -> Iterator[Metric]:
        self.asked.set()
        assert self.released.wait(20)
        yield GaugeMetricFamily("slow", "Slow.", value=1)


async def test_a_scrape_in_progress_is_never_displaced():
    metrics, slow = Metrics(), _SlowMetric()
    snapshot = Snapshot(
        sessions=Counter(),
        tenants=Counter(),
        used_permits=0,
        permits=1,
        waiting=0,
        stops_pending=0,
        draining=False,
        tasks=0,
    )
    endpoint = Endpoint(metrics, lambda: snapshot, str, host="127.0.0.1", port=0)
    async with endpoint, contextlib.AsyncExitStack() as held, httpx.AsyncClient(timeout=20) as http:
        # A collector is asked when it is registered, too.
        slow.released.set()
        metrics.registry.register(slow)
        slow.asked.clear()
        slow.released.clear()
        scrape = asyncio.create_task(http.get(f"http://127.0.0.1:{endpoint.port}/metrics"))
        await asyncio.to_thread(slow.asked.wait, 20)
        silent = []
        for _ in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
            held.callback(writer.close)
            silent.append(reader)
        for reader in silent[:9]:
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), 20) == b""
        slow.released.set()
        assert "slow 1.0" in (await scrape).text


def test_metrics_have_an_address_of_their_own(shared_emulator):
    with gateway(shared_emulator.url, host="127.0.0.1", metrics_host="127.0.0.2", metrics_port=0) as at:
        assert at.metrics is not None
        assert at.metrics.startswith("http://127.0.0.2:")
        assert httpx.get(at.metrics, timeout=20).status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(at.metrics.replace("127.0.0.2", "127.0.0.1"), timeout=20)


def test_a_process_that_may_open_too_few_files_says_how_many_it_needs(shared_gateway: Gateway):
    done = subprocess.run(
        [sys.executable, "-m", "liveavatar_gateway", "serve", "--port", "0"],
        env={
            **clean_environment(),
            "LIVEAVATAR_API_KEY": "key",
            "GATEWAY_MAX_SESSIONS": "500",
            "GATEWAY_REGISTRY_FILE": "off",
        },
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
    assert "ulimit -n 2128" in done.stderr
