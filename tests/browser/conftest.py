"""A real browser, a real room, and somebody who makes the avatar speak."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from playwright.async_api import Browser, Page, async_playwright
from websockets.asyncio.client import ClientConnection, connect

import liveavatar_emulator
from liveavatar_demo import recordings, run
from liveavatar_demo.livekit_server import LiveKitServer
from liveavatar_gateway.audio.convert import convert_all
from testkit import processes
from testkit.browsers import FLAGS, HEARS, chromium

AVATAR = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
PACKET_BYTES = 48_000
PATIENCE_MS = 30_000
"""Timeout for awaited events; far beyond their usual time, so that a busy machine fails no test."""

PAGE = Path(liveavatar_emulator.__file__).parent / "viewer_page"


WEB_SDK = Path(__file__).parents[2] / "viewer" / "build" / "web-sdk"


@pytest.fixture(scope="session")
def web_sdk_page() -> Iterator[str]:
    """The address of a page with LiveAvatar's web SDK, on an origin of its own."""
    if not (WEB_SDK / "index.html").is_file():
        pytest.fail("the web SDK's page is not built; this builds it: make viewer")
    handler = partial(QuietFiles, directory=str(WEB_SDK))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, name="web-sdk-page")
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class QuietFiles(SimpleHTTPRequestHandler):
    """Serve files without a line for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@asynccontextmanager
async def browser(*flags: str) -> AsyncIterator[Browser]:
    if not (PAGE / "index.html").is_file():
        pytest.fail("the page is not built; this builds it: make viewer")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium(), args=[*FLAGS, *flags])
        yield launched
        await launched.close()


@asynccontextmanager
async def page_of(launched: Browser, **options: object) -> AsyncIterator[Page]:
    """A page that must not complain: a script's error or a breach of its security policy fails the test."""
    context = await launched.new_context(**{"viewport": {"width": 1040, "height": 860}, **options})
    page = await context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    yield page
    await context.close()
    assert complaints == []


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """A page of a browser that plays sound without being clicked."""
    async with browser(HEARS) as launched, page_of(launched) as found:
        yield found


@pytest.fixture
async def shy_page() -> AsyncIterator[Page]:
    """A page of a browser with the usual policy: no sound before a click."""
    async with browser() as launched, page_of(launched) as found:
        yield found


@pytest.fixture(scope="module")
def roomy(livekit: LiveKitServer) -> Iterator[processes.Emulator]:
    """An emulator with rooms."""
    with processes.emulator(livekit=livekit) as found:
        yield found


@dataclass(frozen=True)
class Speaker:
    """Somebody who drives a session and can make the avatar speak."""

    id: str
    socket: ClientConnection

    async def say(self, pcm: bytes) -> None:
        """Hand over all of it at once; the avatar plays it in its own time."""
        for start in range(0, len(pcm), PACKET_BYTES):
            audio = base64.b64encode(pcm[start : start + PACKET_BYTES]).decode()
            await self.send("agent.speak", audio=audio)
        await self.send("agent.speak_end")

    async def send(self, kind: str, **fields: str) -> None:
        await self.socket.send(json.dumps({"type": kind, "event_id": "u", **fields}))


@asynccontextmanager
async def speaker(emulator: processes.Emulator, quality: str = "high") -> AsyncIterator[Speaker]:
    """A ready session; stopped at the end."""
    order = {"avatar_id": AVATAR, "video_settings": {"quality": quality}}
    async with httpx.AsyncClient(base_url=emulator.url, trust_env=False, timeout=10) as http:
        minted = await http.post("/v1/sessions/token", json=order, headers={"X-API-KEY": processes.API_KEY})
        bearer = {"Authorization": f"Bearer {minted.raise_for_status().json()['data']['session_token']}"}
        session = (await http.post("/v1/sessions/start", headers=bearer)).raise_for_status().json()["data"]
        async with connect(session["ws_url"], compression=None) as socket:
            while json.loads(await socket.recv()).get("state") != "connected":
                pass
            yield Speaker(session["session_id"], socket)
        (await http.post("/v1/sessions/stop", headers=bearer)).raise_for_status()


@pytest.fixture
def speaking() -> Callable[..., AbstractAsyncContextManager[Speaker]]:
    """Makes an avatar of an emulator speak."""
    return speaker


@pytest.fixture(scope="session")
def speech() -> bytes:
    """Nine seconds of a real voice, 24 kHz mono s16le."""
    return convert_all(*recordings.read(run.GREETING))
