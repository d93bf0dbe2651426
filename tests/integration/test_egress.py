"""A LiveAvatar that names addresses of the gateway's network, redirects, or sends too much, gains nothing."""

import asyncio
import contextlib
import http
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest
from google.protobuf import duration_pb2
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from liveavatar.gateway.v1 import session_pb2
from liveavatar_gateway.registry.rows import access_context
from liveavatar_gateway.registry.sealing import Sealer, parse_key
from testkit import processes
from testkit.caller import Refusal, refused
from testkit.caller import caller as connect
from testkit.tcp import tcp_server

SECRET = "secret-of-the-address"
CONNECTED = '{"type":"session.state_updated","state":"connected"}'

pytestmark = pytest.mark.timeout(120)


def started(**data: object) -> dict[str, object]:
    """Fault of a start that takes effect, and answers with other addresses."""
    body = json.dumps({"code": 1000, "message": "Success", "data": {"session_id": "s", **data}})
    return {"status": 201, "body": body, "after_effect": True}


async def used_permits(gateway: processes.Gateway) -> int:
    async with httpx.AsyncClient() as client:
        text = (await client.get(str(gateway.metrics))).text
    return int(float(re.findall(r"^gateway_permits_used (\S+)$", text, re.MULTILINE)[0]))


async def until_free(gateway: processes.Gateway) -> None:
    async with asyncio.timeout(30):
        while await used_permits(gateway):
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def narrow(shared_emulator):
    """A gateway with one permit, whose use its metrics show."""
    with processes.gateway(shared_emulator.url, max_sessions=1, metrics_port=0, fresh=True) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("data", "address", "cause"),
    [
        ({"ws_url": f"wss://169.254.169.254/{SECRET}"}, "ws_url", "address"),
        ({"ws_url": f"ws://[::ffff:169.254.169.254]/{SECRET}"}, "ws_url", "address"),
        ({"ws_url": f"ws://0.0.0.0:9/{SECRET}"}, "ws_url", "address"),
        ({"ws_url": f"ws://user:{SECRET}@127.0.0.1:9/"}, "ws_url", "userinfo"),
        ({"ws_url": f"ws://127.0.0.1:9/#{SECRET}"}, "ws_url", "fragment"),
        ({"ws_url": f"http://127.0.0.1:9/{SECRET}"}, "ws_url", "scheme"),
        ({"ws_url": f"ws://2130706433/{SECRET}"}, "ws_url", "form"),
        ({"ws_url": "ws://127.0.0.1:9/", "livekit_url": f"javascript:{SECRET}"}, "livekit_url", "form"),
        ({"ws_url": "ws://127.0.0.1:9/", "livekit_url": f"ftp://127.0.0.1/{SECRET}"}, "livekit_url", "scheme"),
        ({"ws_url": "ws://127.0.0.1:9/", "livekit_url": f"wss://a:{SECRET}@rooms.com"}, "livekit_url", "userinfo"),
    ],
)  # fmt: skip
async def test_a_refused_address_ends_its_paid_session_and_the_caller_waits_for_no_stop(
    narrow, emulator, data, address, cause
):
    emulator.fault("start", **started(**data))
    emulator.fault("stop", status=503, times=100)
    async with connect(narrow.address) as caller:
        why = await refused(caller.create())
        assert (why.reason, why.code) == ("UPSTREAM_ADDRESS_REFUSED", grpc.StatusCode.FAILED_PRECONDITION)
        assert (why.metadata["address"], why.metadata["cause"]) == (address, cause)
        assert not why.has("RetryInfo")
        assert SECRET not in f"{why.message} {why.metadata}"
        # LiveAvatar has not confirmed the stop yet.
        assert (emulator.active(), await used_permits(narrow)) == (1, 1)
        emulator.clear_faults()
        await asyncio.to_thread(emulator.wait_active, 0)
        await until_free(narrow)
        session = (await caller.create()).session
        await caller.end(session.id)
    assert narrow.process.logged("upstream.address_refused", cause)
    assert SECRET not in narrow.process.log


async def test_only_listed_hosts_may_be_named(emulator):
    settings = {"upstream_hosts": "*.liveavatar.com, 127.0.0.1", "max_sessions": 1}
    with processes.gateway(emulator.url, **settings) as gateway:
        async with connect(gateway.address) as caller:
            emulator.fault("start", **started(ws_url="wss://8.8.8.8/"))
            why = await refused(caller.create())
            assert why.metadata["cause"] == "host_not_listed"
            await asyncio.to_thread(emulator.wait_active, 0)


# --- sockets


@contextlib.asynccontextmanager
async def avatar(redirects: list[str], *, notices: int = 0) -> AsyncIterator[str]:
    """Command socket of an avatar that is ready at once; with an address in `redirects` it drops and redirects."""

    def redirect(connection: ServerConnection, request: Request) -> Response | None:
        if not redirects:
            return None
        answer = connection.respond(http.HTTPStatus.FOUND, "")
        answer.headers["Location"] = redirects[0]
        return answer

    async def act(connection: ServerConnection) -> None:
        await connection.send(CONNECTED)
        for number in range(notices):
            text = f"{number} " + "x" * 900_000
            await connection.send(json.dumps({"type": "warning", "warning": {"type": "w", "message": text}}))
        gone = asyncio.create_task(connection.wait_closed())
        while not (redirects or gone.done()):
            await asyncio.wait([gone], timeout=0.05)
        connection.transport.abort()
        await gone

    async with serve(act, "127.0.0.1", 0, process_request=redirect, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}/{SECRET}"


@contextlib.asynccontextmanager
async def bystander() -> AsyncIterator[tuple[str, list[str]]]:
    """A server that nobody is to call, and the requests that it got nevertheless."""
    asked: list[str] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n")).decode())

    async with tcp_server(note) as address:
        yield f"ws://{address}/", asked


async def ended_as_refused(attachment, emulator, gateway) -> None:
    """Check that an attachment ends while LiveAvatar has not confirmed the stop, which holds the permit."""
    last = await asyncio.wait_for(attachment.event("ended"), 10)
    assert last.session.end_reason == session_pb2.END_REASON_UPSTREAM_FAILED
    why = Refusal(last.error)
    assert why.reason == "UPSTREAM_ADDRESS_REFUSED"
    assert SECRET not in f"{why.message} {why.metadata}"
    assert (emulator.active(), await used_permits(gateway)) == (1, 1)
    emulator.clear_faults()
    await asyncio.to_thread(emulator.wait_active, 0)
    await until_free(gateway)


async def test_a_first_socket_that_redirects_ends_the_session(narrow, emulator):
    async with bystander() as (other, asked), avatar([other]) as url, connect(narrow.address) as caller:
        emulator.fault("start", **started(ws_url=url))
        emulator.fault("stop", status=503, times=100)
        attachment = await caller.attach()
        await ended_as_refused(attachment, emulator, narrow)
        assert asked == []


async def test_a_reconnection_that_is_redirected_ends_the_session(narrow, emulator):
    redirects: list[str] = []
    async with bystander() as (other, asked), avatar(redirects) as url, connect(narrow.address) as caller:
        emulator.fault("start", **started(ws_url=url))
        attachment = await caller.attach()
        await attachment.until_ready()
        emulator.fault("stop", status=503, times=100)
        redirects.append(other)
        await ended_as_refused(attachment, emulator, narrow)
        assert asked == []


async def test_a_refused_standby_is_stopped_and_no_other_is_paid_for():
    with processes.emulator() as emulator, processes.gateway(emulator.url, expiring_notice_s=4) as gateway:
        async with connect(gateway.address) as caller:
            limit = duration_pb2.Duration(seconds=16)
            attachment = await caller.attach(auto_rotate=True, max_duration=limit)
            await attachment.until_ready()
            emulator.fault("start", times=100, **started(ws_url="ws://169.254.169.254/"))
            await asyncio.wait_for(attachment.event("ended"), 30)
        assert len(emulator.sessions()) == 2
        emulator.wait_active(0)


async def test_an_address_that_somebody_wrote_into_the_registry_is_checked_before_its_use(tmp_path):
    path = tmp_path / "registry.db"
    settings = {"registry_file": str(path), "detach_grace_s": 60, "max_sessions": 1, "metrics_port": 0}
    with processes.emulator() as emulator:
        with processes.gateway(emulator.url, **settings) as first:
            async with connect(first.address) as caller:
                attachment = await caller.attach()
                await attachment.until_ready()
                await asyncio.sleep(1.0)
                first.process.kill()
        key = parse_key((tmp_path / "registry.db.key").read_text())
        context = access_context(attachment.session_id, attachment.upstream_id)
        access = {
            "session_id": attachment.upstream_id,
            "ws_url": f"ws://169.254.169.254/{SECRET}",
            "room_url": f"javascript:{SECRET}",
            "viewer_token": "t",
            "max_duration_s": 600,
        }
        sealed = Sealer(key).seal(json.dumps(access).encode(), context=context)
        connection = sqlite3.connect(path)
        with connection:
            connection.execute(
                "UPDATE upstreams SET access = ?",
                (sealed,),
            )
        connection.close()
        emulator.fault("stop", status=503, times=100)
        with processes.gateway(emulator.url, **settings) as second:
            async with connect(second.address) as caller:
                resumed = await caller.resume(attachment.opened.handle, skip_compacted=True)
                assert SECRET not in str(resumed.opened)
                await ended_as_refused(resumed, emulator, second)
            assert SECRET not in second.process.log


# --- amounts


def rss_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) * 1024


async def test_many_large_notices_are_kept_in_a_few_hundred_bytes_each(narrow, emulator):
    async with avatar([], notices=400) as url, connect(narrow.address) as caller:
        emulator.fault("start", **started(ws_url=url))
        before = rss_bytes(narrow.process.pid)
        attachment = await caller.attach()
        for _ in range(400):
            notice = await asyncio.wait_for(attachment.event("notice"), 60)
            assert len(notice.message.encode()) <= 500
        assert rss_bytes(narrow.process.pid) - before < 40_000_000
        await caller.end(attachment.session_id)
