"""Two answers for balancers: streams are taken, and a create can succeed."""

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import AsyncIterator

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from testkit import processes
from testkit.caller import caller as connect
from testkit.caller import refused
from testkit.processes import API_KEY

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Balancer:
    """Watches one health service, as a balancer does."""

    def __init__(self, channel: grpc.aio.Channel, service: str) -> None:
        self._call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service))

    async def until(self, status: int) -> None:
        async with asyncio.timeout(20):
            while (await self._call.read()).status != status:
                pass


@contextlib.asynccontextmanager
async def _served(url: str, **settings: object) -> AsyncIterator[tuple[processes.Gateway, httpx.AsyncClient]]:
    with processes.gateway(url, metrics_port=0, **settings) as gateway:
        base = str(gateway.metrics).removesuffix("/metrics")
        async with httpx.AsyncClient(base_url=base, timeout=10) as http:
            yield gateway, http


async def test_a_key_that_liveavatar_refuses_is_seen_before_the_first_create_and_mended_by_a_reload(
    emulator, tmp_path
):
    key = tmp_path / "key"
    key.write_text("another-key")
    async with _served(emulator.url, api_key_file=key) as (gateway, http), connect(gateway.address) as caller:
        create = Balancer(caller.channel, "create")
        await create.until(NOT_SERVING)
        response = await http.get("/readyz/create")
        assert (response.status_code, response.text) == (503, "UPSTREAM_UNAUTHENTICATED\n")
        assert (await http.get("/readyz")).status_code == 200
        await Balancer(caller.channel, "").until(SERVING)
        key.write_text(API_KEY)
        gateway.process.send(signal.SIGHUP)
        await create.until(SERVING)
        assert (await http.get("/readyz/create")).status_code == 200


async def test_a_registry_that_cannot_be_written_refuses_creates_and_no_streams(emulator, tmp_path):
    file = tmp_path / "registry.db"
    async with (
        _served(emulator.url, registry_file=file, lease_s=1) as (gateway, http),
        connect(gateway.address) as caller,
    ):
        create, streams = Balancer(caller.channel, "create"), Balancer(caller.channel, "")
        await create.until(SERVING)
        attachment = await caller.attach()
        await attachment.until_ready()
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await create.until(NOT_SERVING)
            assert (await http.get("/readyz/create")).text == "REGISTRY_UNAVAILABLE\n"
            assert (await http.get("/readyz")).status_code == 200
            other.execute("ROLLBACK")
        await create.until(SERVING)
        await streams.until(SERVING)
        await caller.end(attachment.session_id)


async def test_a_registry_that_was_removed_refuses_creates_and_no_streams(emulator, tmp_path):
    file = tmp_path / "registry.db"
    async with (
        _served(emulator.url, registry_file=file, lease_s=1) as (gateway, http),
        connect(gateway.address) as caller,
    ):
        attachment = await caller.attach()
        await attachment.until_ready()
        for left in tmp_path.glob("registry.db*"):
            left.unlink()
        assert (await refused(caller.create())).reason == "REGISTRY_UNAVAILABLE"
        await Balancer(caller.channel, "create").until(NOT_SERVING)
        assert (await http.get("/readyz")).status_code == 200
        await caller.end(attachment.session_id)
        assert "removed or replaced" in gateway.process.log


async def test_a_full_line_refuses_creates(emulator):
    async with (
        _served(emulator.url, max_sessions=1, max_waiting=0) as (gateway, http),
        connect(gateway.address) as caller,
    ):
        create = Balancer(caller.channel, "create")
        await create.until(SERVING)
        attachment = await caller.attach()
        await create.until(NOT_SERVING)
        assert (await http.get("/readyz/create")).text == "CAPACITY_EXHAUSTED\n"
        await caller.end(attachment.session_id)
        await create.until(SERVING)


async def test_a_liveavatar_that_does_not_answer_any_more_refuses_creates_until_it_does():
    with processes.emulator() as emulator:
        async with _served(emulator.url) as (gateway, http), connect(gateway.address) as caller:
            create = Balancer(caller.channel, "create")
            await create.until(SERVING)
            emulator.fault("token", status=500, times=3)
            emulator.fault("credits", status=500, times=6)
            assert (await refused(caller.create())).reason == "UPSTREAM_UNREACHABLE"
            await create.until(NOT_SERVING)
            assert (await http.get("/readyz/create")).text == "UPSTREAM_UNREACHABLE\n"
            assert (await http.get("/readyz")).status_code == 200
            emulator.clear_faults()
            await create.until(SERVING)


async def test_a_drain_takes_both_away(emulator):
    async with (
        _served(emulator.url, drain_grace_s=20) as (gateway, http),
        connect(gateway.address) as caller,
    ):
        create, streams = Balancer(caller.channel, "create"), Balancer(caller.channel, "")
        await create.until(SERVING)
        attachment = await caller.attach()
        stream = await caller.speak(attachment.session_id)
        await stream.begin("u")
        await stream.chunk(bytes(96_000))
        gateway.process.send(signal.SIGTERM)
        await create.until(NOT_SERVING)
        await streams.until(NOT_SERVING)
        assert (await http.get("/readyz")).status_code == 503
        assert (await http.get("/readyz/create")).text == "DRAINING\n"
        await stream.end()
