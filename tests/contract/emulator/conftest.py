"""The emulator as a real process, talked to over real sockets."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from liveavatar_demo.process import Process
from testkit.processes import server as server_process

KEY = {"X-API-KEY": "emulator-key"}
AVATAR = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
PATIENCE_S = 15
"""Timeout for awaited events; far beyond their usual time, so that a busy machine fails no test."""


@contextmanager
def running(folder: Path, *options: str, exit_code: int = 0) -> Iterator[Process]:
    """Run an emulator for a block; it must end with `exit_code`."""
    with server_process("liveavatar_emulator", {}, folder, *options) as process:
        yield process
    assert process.exit_code == exit_code


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with running(
        tmp_path_factory.mktemp("emulator"),
        *("--ready-delay-ms", "20", "--start-delay-ms", "20", "--interrupt-ack-ms", "20", "--speed", "20"),
        *("--rate", "0", "--concurrency", "5", "--api-key", "emulator-key", "--api-key", "other-key"),
    ) as process:
        yield process


@pytest.fixture(scope="session")
def still_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Its clock stands still, so every delay is the default and exact."""
    with running(
        tmp_path_factory.mktemp("still"),
        *("--clock", "manual", "--rate", "0", "--concurrency", "50"),
        *("--api-key", "emulator-key", "--api-key", "other-key"),
        *("--api-key", "twins=twin-key-1", "--api-key", "twins=twin-key-2"),
    ) as process:
        yield process


class Socket:
    """A command socket and its received events."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.events: list[dict[str, Any]] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"type": kind, **fields}))

    async def speak(self, pcm: bytes, event_id: str | None = None) -> None:
        await self.send("agent.speak", event_id=event_id, audio=base64.b64encode(pcm).decode())

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Read on until an event of this type with these fields comes."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                event = json.loads(await self.connection.recv())
                self.events.append(event)
                if event["type"] == kind and fields.items() <= event.items():
                    return event

    async def connected(self) -> None:
        await self.until("session.state_updated", state="connected")

    async def closed(self) -> int | None:
        """Read on until the socket is closed, and return the code; None when no close frame came."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while True:
                    self.events.append(json.loads(await self.connection.recv()))
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else None

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


@dataclass(frozen=True, slots=True)
class Session:
    """A started session's credentials."""

    id: str
    token: str
    ws_url: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


class Emulator:
    """A test's view of the emulator: the service it stands in for, and the control API beside it."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url = url
        self.http = http

    async def knobs(self, **changes: Any) -> None:
        answer = await self.http.patch("/_emulator/settings", json=changes)
        assert answer.status_code == 200, answer.text

    async def fault(self, endpoint: str, **fields: Any) -> None:
        answer = await self.http.post("/_emulator/faults", json={"endpoint": endpoint, **fields})
        assert answer.status_code == 201, answer.text

    async def advance(self, seconds: float) -> dict[str, Any]:
        """Move a manual clock."""
        answer = await self.http.post("/_emulator/clock/advance", json={"seconds": seconds})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def mint(self, **order: Any) -> httpx.Response:
        body = {"mode": "LITE", "avatar_id": AVATAR, **order}
        return await self.http.post("/v1/sessions/token", json=body, headers=KEY)

    async def start_with(self, token: str) -> httpx.Response:
        return await self.http.post("/v1/sessions/start", headers={"Authorization": f"Bearer {token}"})

    async def session(self, **order: Any) -> Session:
        minted = await self.mint(**order)
        assert minted.status_code == 200, minted.text
        token = minted.json()["data"]["session_token"]
        started = await self.start_with(token)
        assert started.status_code == 201, started.text
        data = started.json()["data"]
        return Session(data["session_id"], token, data["ws_url"])

    @asynccontextmanager
    async def socket(self, session: Session) -> AsyncIterator[Socket]:
        async with connect(session.ws_url, compression=None, max_size=None) as connection:
            yield Socket(connection)

    @asynccontextmanager
    async def ready(self, **order: Any) -> AsyncIterator[tuple[Session, Socket]]:
        """A started session with a socket that was told `connected`."""
        session = await self.session(**order)
        async with self.socket(session) as socket:
            await socket.connected()
            yield session, socket

    async def recording(self, session: Session) -> dict[str, Any]:
        answer = await self.http.get(f"/_emulator/sessions/{session.id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def recorded(self, session: Session, so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The session's recording, once it is `so`."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                recording = await self.recording(session)
                if so(recording):
                    return recording
                await asyncio.sleep(0.02)

    async def state(self) -> dict[str, Any]:
        return dict((await self.http.get("/_emulator/state")).json())

    async def historic(self, session: Session) -> dict[str, Any]:
        """The session's entry in the account's history, once it is there."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer = await self.http.get("/v1/sessions", params={"type": "historic"}, headers=KEY)
                for entry in answer.json()["data"]["results"]:
                    if entry["id"] == session.id:
                        return dict(entry)
                await asyncio.sleep(0.02)


def client(url: str) -> httpx.AsyncClient:
    """Without a TLS context, which takes longer to build than most of these tests take to run."""
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, verify=False, trust_env=False)


@asynccontextmanager
async def without_a_past(process: Process) -> AsyncIterator[Emulator]:
    async with client(process.info["url"]) as http:
        assert (await http.post("/_emulator/reset", params={"settings": True})).status_code == 204
        yield Emulator(process.info["url"], http)


@pytest.fixture
async def emulator(server: Process) -> AsyncIterator[Emulator]:
    """An emulator without a past."""
    async with without_a_past(server) as emulator:
        yield emulator


@pytest.fixture
async def still_emulator(still_server: Process) -> AsyncIterator[Emulator]:
    """The same under a clock that only `advance` moves."""
    async with without_a_past(still_server) as emulator:
        yield emulator


@pytest.fixture
def own_emulator(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Emulator]]:
    """Runs an emulator of a test's own with the options given."""
    numbers = count()

    @asynccontextmanager
    async def run(*options: str) -> AsyncIterator[Emulator]:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        with running(folder, *options) as process:
            async with client(process.info["url"]) as http:
                yield Emulator(process.info["url"], http)

    return run
