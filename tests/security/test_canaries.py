"""No secret of any kind is found where it does not belong: logs, metrics, errors, files, process lists."""

import asyncio
import base64
import json
import re
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from security.canaries import Canaries, Finding, forms
from testkit import processes, speech
from testkit.caller import Attachment, Caller, write
from testkit.certificates import make_certificate
from testkit.forwarding import PASSWORD, ForwardProxy, forward_proxy
from testkit.tenants import TenantsFile, caller_with
from testkit.tokens import TokenIssuer

pytestmark = pytest.mark.timeout(240)

ANSWERED = {
    "session token of LiveAvatar": re.compile(rb'"session_token":"([^"]+)"'),
    "path of the command socket": re.compile(rb'"ws_url":"[^"]*/ws/([^"]+)"'),
    "viewer token of LiveAvatar's room": re.compile(rb'"livekit_client_token":"([^"]+)"'),
    "agent token of LiveAvatar's room": re.compile(rb'"livekit_agent_token":"([^"]+)"'),
    "token of the avatar": re.compile(rb'"livekit_client_token": ?"([^"]+)"'),
}
"""Secrets in LiveAvatar's answers, and in the requests to it."""

FAULT = "fault-of-a-test"
BROKEN = f"""
import functools

from liveavatar_gateway.sessions import directory


def broken(method):
    @functools.wraps(method)
    async def call(self, handle, **arguments):
        if handle.endswith("{FAULT}"):
            secret = dict(handle=handle, settings=self)
            raise ZeroDivisionError("a test broke the directory")
        return await method(self, handle, **arguments)

    return call


directory.Directory.by_handle = broken(directory.Directory.by_handle)
"""
"""Fault of the gateway's own that a caller can provoke, with secrets in the variables of its frames."""


class Errors:
    """All that callers read of refusals: status, message, details and trailers."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def of(self, awaitable: Any) -> grpc.StatusCode:
        """Await what may be refused."""
        try:
            await asyncio.wait_for(awaitable, 30)
        except grpc.aio.AioRpcError as error:
            trailers = [
                f"{key}={value!r} {base64.b64encode(value) if isinstance(value, bytes) else ''}"
                for key, value in (*(error.initial_metadata() or ()), *(error.trailing_metadata() or ()))
            ]
            self.texts.append(" ".join([str(error.code()), str(error.details()), repr(error), *trailers]))
            return error.code()
        return grpc.StatusCode.OK


class World:
    """A gateway with secrets of every kind, and what it leaves behind."""

    def __init__(self, folder: Path, form: str) -> None:
        self.canaries = Canaries()
        self.errors = Errors()
        self.findings: list[Finding] = []
        self.state = folder / "state"
        self.private = folder / "private"
        self.broken = folder / "broken"
        for path in (self.state, self.private, self.broken):
            path.mkdir(mode=0o700)
        (self.broken / "sitecustomize.py").write_text(BROKEN)
        self.api_key = self._made("LiveAvatar API key")
        self.issuer = TokenIssuer()
        self.tenants = TenantsFile(self.private / "tenants.toml")
        for name in ("acme", "beta"):
            self.tenants.tenant(name)
        jwks = self.private / "jwks.json"
        jwks.write_bytes(self.issuer.jwks)
        roles = ["open", "speak", "listen", "control", "watch"]
        self.tenants.issuer(
            issuer=self.issuer.name,
            audience=["gateway"],
            jwks_file=jwks,
            algorithms=["ES256"],
            tenant="beta",
            roles=roles,
        )
        self.key = self.canaries.plant("API key of a caller", self.tenants.key("acme"))
        self.canaries.plant("API key of a caller", self.key.split("_", 2)[2])
        certificate, tls_key = make_certificate(self.private)
        self.authority = certificate.read_bytes()
        for line in tls_key.read_text().splitlines()[1:-1]:
            self.canaries.plant("TLS key", line)
        self.canaries.plant("password of the proxy", PASSWORD)
        self.livekit_secret = self._made("LiveKit secret")
        self.settings: dict[str, Any] = {
            "api_key_file": self._file("api.key", self.api_key),
            "retired_api_keys_file": self._file("retired.key", self._made("retired API key")),
            "registry_key_file": self._file("registry.key", self._made("registry key", secrets.token_hex(32))),
            "registry_file": self.state / "registry.db",
            "audit_file": self.state / "audit.jsonl",
            "auth_file": self.tenants.path,
            "tls_cert_file": certificate,
            "tls_key_file": tls_key,
            "livekit_url": "wss://rooms.example.com",
            "livekit_key": "room-key",
            "livekit_secret": self.livekit_secret,
            "metrics_port": 0,
            # Each failure of LiveAvatar is to be seen, not the breaker's refusal after the third.
            "breaker_failures": 100,
            "log_level": "debug",
            "log_format": form,
            "reconnect_budget_s": 5,
            "detach_grace_s": 60,
        }

    def token(self, **claims: Any) -> str:
        """Make a web token of a caller."""
        return self.canaries.plant("web token of a caller", self.issuer.token(**claims))

    def _made(self, name: str, text: str = "") -> str:
        return self.canaries.plant(name, text or f"canary-{secrets.token_urlsafe(32)}")

    def _file(self, name: str, text: str) -> Path:
        path = self.private / name
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    def opened(self, handle: str, room: session_pb2.RoomAccess) -> None:
        """Remember what a caller was given."""
        self.canaries.plant("session handle", handle)
        self.canaries.plant("session handle", handle.rpartition(".")[2])
        self.canaries.plant("viewer token", room.viewer_token)

    def learn(self, passed: bytes) -> None:
        """Remember what LiveAvatar was sent, and what it answered."""
        for name, pattern in ANSWERED.items():
            for text in dict.fromkeys(pattern.findall(passed)):
                self.canaries.plant(name, text.decode())

    def search(self, place: str, content: str | bytes, *, allowed: frozenset[str] = frozenset()) -> None:
        """Search a place, and keep what is found."""
        self.findings += self.canaries.search(place, content, allowed=allowed)

    @asynccontextmanager
    async def gateway(self, emulator: processes.Emulator, proxy: ForwardProxy) -> AsyncIterator[processes.Gateway]:
        """Run a gateway, not from the loop of the proxy, whose callers it waits for."""
        variables = {"ALL_PROXY": proxy.url, "PYTHONPATH": str(self.broken)}
        running = processes.gateway(emulator.url, variables=variables, fresh=True, **self.settings)
        found = await asyncio.to_thread(running.__enter__)
        try:
            yield found
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)

    @asynccontextmanager
    async def caller(self, gateway: processes.Gateway, credential: str) -> AsyncIterator[Caller]:
        """Connect over TLS."""
        channel = grpc.ssl_channel_credentials(self.authority)
        async with caller_with(gateway.address, credential, channel_credentials=channel) as found:
            yield found


async def converse(world: World, caller: Caller, emulator: processes.Emulator, room: str = "") -> Attachment:
    """Hold a conversation in which the socket is lost, and that another stream continues."""
    spec: dict[str, Any] = {"labels": {"desk": "7"}}
    if room:
        spec["livekit_room"] = session_pb2.LiveKitRoom(name=room)
    attached = await caller.attach(**spec)
    world.opened(attached.opened.handle, attached.opened.room)
    await attached.until_ready()
    stream = await caller.speak(attached.session_id)
    await stream.say(speech.sound(0.5, seed=1), "first")
    upstream_id = (await caller.get(attached.session_id)).upstream_session_id
    emulator.inject(upstream_id, {"type": "error", "error": {"type": "x", "message": "\x1b[2J no such command"}})
    emulator.drop(upstream_id, None)
    await stream.say(speech.sound(0.5, seed=2), "second")
    await stream.until("ended")
    resumed = await caller.resume(attached.opened.handle)
    world.opened(resumed.opened.handle, resumed.opened.room)
    await resumed.command("c-1", interrupt=p.Interrupt())
    return resumed


async def refuse(world: World, caller: Caller, gateway: processes.Gateway, handle: str, other: str) -> None:
    """Make calls that are refused, with secrets where none belong."""
    errors = world.errors
    for wrong in (f"{handle}x", other, handle[:-1], f"{handle}{FAULT}", f"x.{world.key}"):
        await errors.of(caller.resume(wrong))
    for name in (handle, world.key):
        for attempt in (caller.get(name), caller.end(name), caller.speak(name)):
            await errors.of(attempt)
    wrong_credentials = (
        f"{world.key[:-4]}AAAA",
        world.key.replace("lag_", "lag-"),
        world.token(exp=1),
        world.token(aud="others"),
        world.token(iss="https://others.example"),
        world.token()[:-6] + "AAAAAA",
    )
    for credential in wrong_credentials:
        async with world.caller(gateway, credential) as stranger:
            await errors.of(stranger.create())
    channel = caller.channel
    for method in ("CreateSession", "GetSession", "EndSession"):
        call = channel.unary_unary(f"/liveavatar.gateway.v1.SessionService/{method}")
        await errors.of(call(b"\xff\xff" + handle.encode() + world.key.encode()))
    attach = channel.stream_stream("/liveavatar.gateway.v1.SessionService/Attach")()
    await write(attach, b"\x0a\xff" + handle.encode())
    await errors.of(attach.read())


async def break_upstream(world: World, caller: Caller, emulator: processes.Emulator) -> None:
    """Let LiveAvatar, or what stands in its place, fail in every way while sessions are opened."""
    page = f"<html>denied: X-API-KEY: {world.api_key}, Proxy-Authorization: Basic user:{PASSWORD}</html>"
    for endpoint in ("token", "start"):
        for fault in (
            {"status": 401, "code": 401, "message": f"no such key {world.api_key}"},
            {"status": 502, "body": page},
            {"status": 200, "body": page},
            {"status": 500, "body": json.dumps({"error": f"header X-API-KEY {world.api_key}"})},
            {"truncate": True},
            {"status": 500, "after_effect": True},
        ):
            emulator.fault(endpoint, times=3, **fault)
            await world.errors.of(caller.create())
            emulator.clear_faults()
    emulator.fault("stop", status=502, body=page, times=2)
    created = await caller.create()
    world.opened(created.handle, created.room)
    await caller.end(created.session.id)
    emulator.clear_faults()
    doomed = await caller.attach()
    world.opened(doomed.opened.handle, doomed.opened.room)
    await doomed.until_ready()
    upstream_id = (await caller.get(doomed.session_id)).upstream_session_id
    emulator.socket_fault("refuse_sockets", upstream_id)
    emulator.drop(upstream_id, 1011)
    await world.errors.of(doomed.event("ended"))
    emulator.clear_faults()


async def look_on(world: World, caller: Caller, session_id: str) -> None:
    """Search what a caller may read of sessions that it did not open."""
    watch = caller.watch()
    await watch.filter(desk="7")
    await watch.add(session_id)
    await watch.until("snapshot")
    messages = [*watch.received, await caller.get(session_id)]
    messages.append(await caller.sessions.ListSessions(p.ListSessionsRequest()))
    messages.append(await caller.sessions.GetServerInfo(p.GetServerInfoRequest()))
    for message in messages:
        world.search("lists and watches", message.SerializeToString())


def search_process(world: World, gateway: processes.Gateway) -> None:
    """Search what other programs see of a running process."""
    proc = Path(f"/proc/{gateway.process.pid}")
    world.search("command line", (proc / "cmdline").read_bytes())
    # What the operator has put there: the LiveKit secret and the proxy's password.
    own = frozenset({"LiveKit secret", "password of the proxy"})
    world.search("environment", (proc / "environ").read_bytes(), allowed=own)
    for task in (proc / "task").iterdir():
        world.search("name of a thread", (task / "comm").read_bytes())
    assert gateway.metrics is not None
    base = gateway.metrics.removesuffix("/metrics")
    for path in ("/metrics", "/healthz", "/readyz", "/readyz/create"):
        world.search(f"page {path}", httpx.get(f"{base}{path}", trust_env=False).content)


@pytest.mark.parametrize("form", ["console", "json"])
async def test_no_secret_is_found_where_it_does_not_belong(tmp_path, form):
    world = World(tmp_path, form)
    logs = []
    async with AsyncExitStack() as stack:
        emulator = stack.enter_context(processes.emulator(api_keys=world.api_key))
        proxy = await stack.enter_async_context(forward_proxy())
        async with world.gateway(emulator, proxy) as gateway:
            async with (
                world.caller(gateway, world.key) as keyed,
                world.caller(gateway, world.token()) as tokened,
            ):
                mine = await converse(world, keyed, emulator, room="acme-desk")
                theirs = await converse(world, tokened, emulator)
                world.learn(bytes(proxy.passed))
                await look_on(world, keyed, mine.session_id)
                await refuse(world, keyed, gateway, mine.opened.handle, theirs.opened.handle)
                await break_upstream(world, keyed, emulator)
                gateway.process.send(signal.SIGHUP)
                assert await asyncio.to_thread(gateway.process.logged, "serve.reload")
            world.learn(bytes(proxy.passed))
            search_process(world, gateway)
            # The next process opens what this one sealed.
            await asyncio.to_thread(gateway.process.kill)
            logs.append(gateway.process.log)
        async with world.gateway(emulator, proxy) as gateway:
            async with world.caller(gateway, world.key) as keyed:
                again = await keyed.resume(mine.opened.handle, skip_compacted=True)
                world.opened(again.opened.handle, again.opened.room)
                await keyed.end(again.session_id)
            search_process(world, gateway)
            await asyncio.to_thread(gateway.process.stop)
            logs.append(gateway.process.log)
        world.learn(bytes(proxy.passed))
    for number, log in enumerate(logs, 1):
        world.search(f"log of gateway {number}", log)
    for text in world.errors.texts:
        world.search("error", text)
    for file in sorted(world.state.rglob("*")):
        if file.is_file():
            world.search(f"file {file.name}", file.read_bytes())
    assert not world.findings, "\n".join(map(str, dict.fromkeys(world.findings)))
    require_all(world, logs)


def require_all(world: World, logs: list[str]) -> None:
    """Refuse a run in which a secret was not there to be found, or a fault did not happen."""
    assert set(world.canaries.texts) >= {*ANSWERED, "viewer token", "session handle", "registry key", "TLS key"}
    for event in (
        "rpc.fault",
        "upstream.foreign_answer",
        "Traceback",
        "ZeroDivisionError",
        "upstream.connect_failed",
    ):
        assert event in "".join(logs), event
    assert len(world.errors.texts) > 20
    assert {file.name for file in world.state.iterdir()} >= {"registry.db", "audit.jsonl"}


SECRET = "canary/with+signs=and_0123456789"


@pytest.mark.parametrize(
    "content",
    [
        SECRET,
        f"https://x/?key={SECRET.replace('/', '%2F').replace('+', '%2B').replace('=', '%3D')}",
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        *(base64.b64encode(f"{'abc'[:number]}{SECRET}!".encode()).decode() for number in range(4)),
        *(base64.urlsafe_b64encode(f"{'abc'[:number]}{SECRET}".encode()).decode() for number in range(4)),
    ],
)
def test_the_search_finds_a_secret_in_every_form(content):
    canaries = Canaries()
    canaries.plant("secret", SECRET)
    assert canaries.search("log", f"before {content} after")
    assert not canaries.search("log", f"before {content} after", allowed=frozenset({"secret"}))
    assert not canaries.search("log", "nothing of the kind")


def test_of_a_web_token_the_signature_alone_is_found():
    canaries = Canaries()
    token = canaries.plant("token", TokenIssuer().token())
    assert canaries.search("log", f"signature {token.rpartition('.')[2]}")
    assert all(len(encoded) >= 12 for _, encoded in forms(token))
