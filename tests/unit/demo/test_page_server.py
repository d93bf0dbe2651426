"""The server of the page answers its own page, and nobody else."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import grpc
import pytest

from liveavatar.gateway import SessionEnded
from liveavatar_demo import page_server
from liveavatar_demo.conversation import Conversation, Kind
from liveavatar_demo.page_server import Command, PageServer, PortTaken, Refused, is_foreign


class Demo:
    """Controls that note what they are asked for."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.failure: Exception | None = None

    async def access(self) -> Mapping[str, str]:
        return {"url": "ws://127.0.0.1:7880", "token": "secret"}

    async def command(self, command: Command) -> None:
        if self.failure is not None:
            raise self.failure
        self.commands.append(command)


class Browser:
    """Caller of the server, with the page's token unless told otherwise."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        parts = urlsplit(url)
        self.origin = f"http://{parts.netloc}"
        self.token = parts.fragment.removeprefix("token=")
        self._http = http

    async def ask(self, method: str, path: str, **headers: str) -> tuple[int, dict, Mapping[str, str]]:
        headers = {"Authorization": f"Bearer {self.token}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        async with self._http.request(method, self.origin + path, headers=headers) as response:
            is_json = response.content_type == "application/json"
            return response.status, await response.json() if is_json else {}, response.headers

    def events(self, query: str = "") -> aiohttp.client._RequestContextManager:
        return self._http.get(
            f"{self.origin}/api/events{query}", headers={"Authorization": f"Bearer {self.token}"}
        )


@pytest.fixture
def demo() -> Demo:
    return Demo()


@pytest.fixture
async def conversation() -> Conversation:
    return Conversation()


@pytest.fixture
async def browser(
    demo: Demo, conversation: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Browser]:
    monkeypatch.setattr(page_server, "PAGE", tmp_path)
    (tmp_path / "index.html").write_text("<!doctype html><title>page</title>")
    (tmp_path / "page.js").write_text("1;")
    (tmp_path / "secret.txt").write_text("not for pages")
    server = PageServer(demo, conversation, livekit_url="wss://rooms.example.com:7880/x")
    async with server.running(0), aiohttp.ClientSession(trust_env=False) as http:
        yield Browser(http, server.url)


async def test_the_page_needs_no_token_and_its_policy_names_both_servers(browser):
    status, _, headers = await browser.ask("GET", "/", Authorization="")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "connect-src 'self' wss://rooms.example.com:7880 https://rooms.example.com:7880;" in policy
    assert "default-src 'none'" in policy
    assert headers["Permissions-Policy"].startswith("microphone=(self)")
    assert (await browser.ask("GET", "/page.js"))[0] == 200


@pytest.mark.parametrize("path", ["/secret.txt", "/..%2fconftest.py", "/no-such-file", "/api/no-such-call"])
async def test_no_other_file_is_served(browser, path):
    assert (await browser.ask("GET", path))[0] == 404


@pytest.mark.parametrize("command", Command)
async def test_commands_reach_the_demo(browser, demo, command):
    assert (await browser.ask("POST", f"/api/commands/{command}"))[:2] == (200, {})
    assert demo.commands == [command]


async def test_access_is_passed_on_and_never_stored(browser):
    status, body, headers = await browser.ask("GET", "/api/access")
    assert (status, body["token"]) == (200, "secret")
    assert headers["Cache-Control"] == "no-store"


async def test_an_unknown_command_and_a_wrong_method_are_refused(browser, demo):
    assert (await browser.ask("POST", "/api/commands/shutdown"))[0] == 404
    assert (await browser.ask("GET", "/api/commands/pause"))[0] == 405
    assert demo.commands == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic {token}"}, 401),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:{port}"}, 403),
        ({"Host": "127.0.0.1:1"}, 403),
    ],
)
async def test_a_foreign_page_gets_nothing_although_it_had_the_token(browser, demo, headers, status):
    port = browser.origin.rpartition(":")[2]
    filled = {name: value.format(token=browser.token, port=port) for name, value in headers.items()}
    for method, path in (("POST", "/api/commands/pause"), ("GET", "/api/access"), ("GET", "/api/events")):
        found, body, _ = await browser.ask(method, path, **filled)
        assert (found, bool(body["message"])) == (status, True)
    assert demo.commands == []


async def test_the_own_origin_and_localhost_are_known(browser):
    assert (await browser.ask("POST", "/api/commands/pause", Origin=browser.origin))[0] == 200
    name = browser.origin.removeprefix("http://").replace("127.0.0.1", "localhost")
    assert (await browser.ask("POST", "/api/commands/pause", Host=name, Origin=f"http://{name}"))[0] == 200


def test_a_link_may_open_the_page_but_a_frame_may_not():
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert not is_foreign(link)
    assert is_foreign({**link, "Sec-Fetch-Dest": "iframe"})
    assert not is_foreign({})


@pytest.mark.parametrize(
    ("failure", "status", "words"),
    [
        (Refused("The avatar is not paused."), 409, "not paused"),
        (SessionEnded("the session has ended", code=grpc.StatusCode.FAILED_PRECONDITION), 409, "has ended"),
        (TimeoutError(), 504, "in time"),
    ],
)
async def test_a_failure_is_said_to_the_user(browser, demo, failure, status, words):
    demo.failure = failure
    found, body, _ = await browser.ask("POST", "/api/commands/continue")
    assert found == status
    assert words in body["message"]


async def read(lines: aiohttp.StreamReader) -> tuple[str, dict]:
    event = (await lines.readline()).decode().removeprefix("event: ").strip()
    data = json.loads((await lines.readline()).decode().removeprefix("data: "))
    assert await lines.readline() == b"\n"
    return event, data


async def test_events_are_the_past_then_the_present(browser, conversation):
    conversation.add(Kind.USER_BEGAN, 1.5)
    async with asyncio.timeout(20), browser.events() as response:
        assert response.content_type == "text/event-stream"
        hello, data = await read(response.content)
        assert (hello, data["session"]) == ("hello", "")
        event, data = await read(response.content)
        assert (event, data["number"], data["at_ms"], data["kind"]) == ("entry", 1, 1500, "user_began")
        conversation.add(Kind.USER_ENDED, 2.0, duration_ms=500)
        assert (await read(response.content))[1]["duration_ms"] == 500
    async with asyncio.timeout(20), browser.events("?after=1") as response:
        await read(response.content)
        assert (await read(response.content))[1]["number"] == 2


async def test_a_silent_stream_has_beats(browser, monkeypatch):
    monkeypatch.setattr(page_server, "_BEAT_S", 0.05)
    async with asyncio.timeout(20), browser.events() as response:
        await read(response.content)
        assert (await read(response.content))[0] == "beat"


@pytest.mark.parametrize("after", ["-1", "x", "9" * 13, "%C2%B2"])
async def test_a_position_must_be_a_number(browser, after):
    assert (await browser.ask("GET", f"/api/events?after={after}"))[0] == 400


async def test_readers_are_bounded(browser, monkeypatch):
    monkeypatch.setattr(page_server, "_MAX_READERS", 1)
    async with asyncio.timeout(20), browser.events() as first:
        await read(first.content)
        assert (await browser.ask("GET", "/api/events"))[0] == 503


async def test_a_port_in_use_is_said_with_the_option_for_another(demo, conversation):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = PageServer(demo, conversation, livekit_url="ws://127.0.0.1:1")
        with pytest.raises(PortTaken, match="--port"):
            async with server.running(taken.getsockname()[1]):
                pass


async def test_an_open_stream_does_not_delay_the_end(demo, conversation):
    server = PageServer(demo, conversation, livekit_url="ws://127.0.0.1:1")
    async with asyncio.timeout(20), aiohttp.ClientSession(trust_env=False) as http:
        async with server.running(0):
            browser = Browser(http, server.url)
            response = await browser.events()
            await read(response.content)
        response.close()
