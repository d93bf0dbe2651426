"""LiveAvatar's REST API as it may be answered: by itself, by a proxy, without end, or with impossible numbers."""

import asyncio
import contextlib
import gzip
import json
import tracemalloc

import httpx
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_gateway.core import errors as e
from liveavatar_gateway.upstream import rest as module
from liveavatar_gateway.upstream.avatars import SANDBOX_AVATAR_ID
from liveavatar_gateway.upstream.bounds import MAX_SESSION_S, bounded, session_seconds
from liveavatar_gateway.upstream.connectors import Connector, ConnectorKind
from liveavatar_gateway.upstream.model import AvatarRequest, Minted, RemoteStatus
from liveavatar_gateway.upstream.rest import Rest, RestConfig
from liveavatar_gateway.upstream.stopper import Stopped
from testkit.answering import answering, envelope, http
from testkit.tcp import tcp_server

STOP, START, TOKEN, LIST, GET = (
    "/v1/sessions/stop",
    "/v1/sessions/start",
    "/v1/sessions/token",
    "/v1/sessions",
    "/v1/sessions/s-1",
)
GONE = http(404, envelope(None, code=404, message="Session not found"))
PAGE = b"<html><h1>404 Not Found</h1>nginx</html>"
FOREIGN = [
    http(404, PAGE),
    http(410, PAGE),
    http(200, PAGE),
    http(200, {}),
    http(200, {"status": "ok"}),
    http(204),
    http(404, {"message": "no Route matched with those values"}),
    http(404, {"code": 404, "message": "HTTP 404 Not Found"}),
    http(404, {"detail": "Not Found"}),
    http(302, PAGE, Location="https://login.example/"),
    http(401, PAGE),
    http(403, PAGE),
]
REQUEST = AvatarRequest(avatar_id="a")
MINTED = Minted(session_id="s-1", token="t")


@contextlib.asynccontextmanager
async def rest(*, timeout_s: float = 5.0):
    async with answering() as server:
        one = Rest(RestConfig(base_url=server.url, timeout_s=timeout_s, backoff_s=0.001, attempts=1), "key")
        try:
            yield one, server
        finally:
            await one.aclose()


async def test_a_connection_that_servers_are_about_to_close_is_not_used_again():
    """uvicorn and Node close one that was idle for 5 s: a start that meets it fails, and is not repeated."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(GONE.replace(b"Connection: close\r\n", b""))

    async with tcp_server(serve) as address, contextlib.AsyncExitStack() as stack:
        one = Rest(RestConfig(base_url=f"http://{address}"), "key")
        stack.push_async_callback(one.aclose)
        await one.remote_status("s-1")
        await one.remote_status("s-1")
        assert connections == 1
        await asyncio.sleep(4.5)
        await one.remote_status("s-1")
        assert connections == 2


@pytest.mark.parametrize("answer", FOREIGN, ids=lambda answer: answer[:60].decode().replace("\r\n", " "))
async def test_no_page_of_a_proxy_proves_that_a_session_is_gone(answer):
    async with rest() as (one, server):
        server.answers = {STOP: answer, GET: answer, LIST: answer}
        for call in (one.stop("s-1", "USER_CLOSED"), one.remote_status("s-1"), one.active()):
            with pytest.raises(e.UpstreamProtocol) as refused:
                await call
            assert refused.value.metadata["foreign_answer"] == "true"


async def test_no_response_that_repeats_its_request_gives_a_credential_away():
    key = "sk-liveavatar-0123456789"
    echo = f"X-API-KEY {key} is not known"
    async with answering() as server:
        one = Rest(RestConfig(base_url=server.url, backoff_s=0.001, attempts=1), key)
        server.answers = {LIST: http(401, envelope(None, code=401, message=echo)), STOP: http(400, echo.encode())}
        with structlog.testing.capture_logs() as lines:
            for call in (one.active(), one.stop("s-1", "USER_CLOSED")):
                with pytest.raises(e.UpstreamError) as refused:
                    await call
                assert key not in f"{refused.value.message}{refused.value.metadata}"
        await one.aclose()
    (line,) = [line for line in lines if line["event"] == "upstream.foreign_answer"]
    assert line["excerpt"] == "X-API-KEY (hidden) is not known"
    assert refused.value.metadata["incident"] == line["incident"]


async def test_liveavatars_own_word_is_believed():
    async with rest() as (one, server):
        server.answers = {STOP: [http(200, envelope(None)), GONE], GET: GONE}
        assert await one.stop("s-1", "USER_CLOSED") is Stopped.NOW
        assert await one.stop("s-1", "USER_CLOSED") is Stopped.BEFORE
        assert await one.remote_status("s-1") == RemoteStatus(over=True)
        server.answers[GET] = http(200, envelope({"id": "s-1", "end_reason": "IDLE_TIMEOUT"}))
        assert await one.remote_status("s-1") == RemoteStatus(over=True, reason="IDLE_TIMEOUT")
        server.answers[GET] = http(200, envelope({"id": "s-1", "end_reason": None, "end_at": None}))
        assert await one.remote_status("s-1") == RemoteStatus(over=False)


async def test_a_list_without_results_says_nothing():
    async with rest() as (one, server):
        server.answers = {LIST: http(200, envelope({"count": 0}))}
        with pytest.raises(e.UpstreamProtocol):
            await one.active()
        server.answers = {LIST: http(200, envelope({"results": [7, {"id": 8}, {"id": "s-1"}, None]}))}
        assert await one.active() == ["s-1"]


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def drip_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(10_000):
        if writer.is_closing():
            return
        writer.write(b"X-%d: 1\r\n" % number)
        await writer.drain()
        await asyncio.sleep(0.02)


async def flood(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x" * 100_000)
        await writer.drain()


@pytest.mark.parametrize("answer", [drip, drip_headers])
async def test_an_answer_that_drips_ends_with_the_deadline_of_its_call(answer):
    async with rest(timeout_s=0.3) as (one, server):
        server.answers = {START: answer}
        async with asyncio.timeout(10):
            with pytest.raises(e.UpstreamTimeout) as refused:
                await one.start(MINTED)
        assert refused.value.metadata == {"endpoint": START, "timeout_s": "0.3"}


BOMB = gzip.compress(bytes(200_000_000), 9)


@pytest.mark.parametrize("status", [200, 201, 404, 500])
async def test_a_compressed_answer_is_unpacked_no_further_than_the_limit(status):
    """194 kB that would take 200 MB; httpx unpacks each part whole."""
    async with rest() as (one, server):
        server.answers = {START: http(status, BOMB, Content_Encoding="gzip")}
        tracemalloc.start()
        try:
            with pytest.raises(e.UpstreamProtocol, match="more than"):
                await one.start(MINTED)
            assert tracemalloc.get_traced_memory()[1] < 8_000_000
        finally:
            tracemalloc.stop()


async def test_a_compressed_answer_within_the_limit_is_read():
    async with rest() as (one, server):
        body = gzip.compress(json.dumps(envelope({"session_id": "s-1", "ws_url": "ws://127.0.0.1:9/"})).encode())
        server.answers = {START: http(201, body, Content_Encoding="gzip")}
        assert (await one.start(MINTED)).ws_url == "ws://127.0.0.1:9/"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", b"x"),
        ("deflate", b"x"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0)),
        ("gzip", b"no gzip"),
        ("gzip", b""),
        ("gzip", gzip.compress(b"{}" * 500, mtime=0)[:-9]),
    ],
)
async def test_an_answer_of_another_encoding_is_refused(encoding, body):
    async with rest() as (one, server):
        server.answers = {START: http(201, body, Content_Encoding=encoding)}
        with pytest.raises(e.UpstreamProtocol):
            await one.start(MINTED)


async def test_a_redirect_takes_the_key_nowhere():
    async with rest() as (one, server), answering() as other:
        server.answers = {STOP: http(307, Location=f"{other.url}{STOP}")}
        with pytest.raises(e.UpstreamProtocol):
            await one.stop("s-1", "USER_CLOSED")
        assert other.asked == []


async def test_an_answer_without_end_is_refused_for_its_size():
    async with rest() as (one, server):
        server.answers = {START: flood}
        with pytest.raises(e.UpstreamProtocol, match="more than"):
            await one.start(MINTED)


@pytest.mark.parametrize(
    "ws_url",
    [
        "wss://host/" + "x" * 5000,
        "",
        7,
        None,
    ],
)
async def test_an_address_of_a_socket_that_is_none_is_refused_as_such(ws_url):
    async with rest() as (one, server):
        server.answers = {START: http(201, envelope({"session_id": "s-1", "ws_url": ws_url}))}
        with pytest.raises(e.UpstreamProtocol) as refused:
            await one.start(MINTED)
        assert "ws_url" in refused.value.metadata.values()


@pytest.mark.parametrize("session_id", ["../users/credits", "a/b", "a?b", "a b", "ä", "x" * 129, "a\n", ".", ".."])
async def test_an_id_that_would_change_the_path_it_is_sent_back_in_is_refused(session_id):
    async with rest() as (one, server):
        server.answers = {TOKEN: http(200, envelope({"session_id": session_id, "session_token": "t"}))}
        with pytest.raises(e.UpstreamProtocol) as refused:
            await one.mint(REQUEST)
        assert refused.value.metadata["invalid"] == "session_id"


@pytest.mark.parametrize("token", ["tök", "a\nX-Other: b", "a b", "\x00"])
async def test_a_token_that_cannot_go_into_a_header_is_refused_as_such(token):
    async with rest() as (one, server):
        server.answers = {TOKEN: http(200, envelope({"session_id": "s-1", "session_token": token}))}
        with pytest.raises(e.UpstreamProtocol) as refused:
            await one.mint(REQUEST)
        assert refused.value.metadata["invalid"] == "session_token"
        assert token not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (600, 600.0),
        ("600", 600.0),
        (1.5, 1.5),
        (0.5, None),
        (1e-300, None),
        (10**12, None),
        ("1e400", None),
        ("nan", None),
        (-1, None),
        (0, None),
        (True, None),
        ([], None),
        (None, None),
        ("soon", None),
    ],
)
async def test_a_limit_that_cannot_be_true_is_none(said, seconds):
    async with rest() as (one, server):
        data = {"session_id": "s-1", "ws_url": "ws://127.0.0.1:9/", "max_session_duration": said}
        server.answers = {START: http(201, envelope(data))}
        assert (await one.start(MINTED)).max_duration_s == seconds


@given(st.one_of(st.floats(), st.integers(), st.text(max_size=20), st.integers(10**300, 10**310)))
def test_no_number_is_too_strange_for_a_limit(value):
    seconds = session_seconds(value)
    assert seconds is None or 1 <= seconds <= MAX_SESSION_S


@settings(max_examples=300)
@given(st.text(max_size=300), st.integers(20, 200))
def test_a_text_is_cut_between_two_characters_and_says_so(text, limit):
    cut = bounded(text, limit)
    assert len(cut.encode()) <= limit
    assert cut == text or (cut.endswith("… (cut)") and text.startswith(cut.removesuffix("… (cut)")))
    assert (cut == text) is (len(text.encode()) <= limit)


async def test_a_pause_that_is_longer_than_callers_wait_is_passed_on_and_not_waited_for():
    async with answering() as server:
        one = Rest(RestConfig(base_url=server.url), "key")
        server.answers = {TOKEN: http(429, envelope(None, code=4290, message="busy"), Retry_After="3600")}
        async with asyncio.timeout(5):
            with pytest.raises(e.UpstreamRateLimited) as refused:
                await one.mint(REQUEST)
        await one.aclose()
    assert refused.value.retry_after_s == 60.0
    assert server.asked == [TOKEN]


ADA, OWN = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11", "7b0f5f58-1c3f-4d0e-8a54-0f4f7e6a9c10"


def listed(*ids: str, **more: object) -> bytes:
    entries = [{"id": avatar_id, "name": avatar_id[:4], "status": "ACTIVE"} for avatar_id in ids]
    return http(200, envelope({"results": entries, "next": None} | more))


async def test_avatars_are_those_of_all_pages_of_both_lists_and_that_of_the_sandbox():
    async with rest() as (one, server):
        server.answers = {
            "/v1/avatars": listed(OWN),
            "/v1/avatars/public": [listed(OWN, next="https://elsewhere.example/"), listed(ADA)],
        }
        assert {avatar.id for avatar in await one.avatars()} == {OWN, ADA, SANDBOX_AVATAR_ID}
        assert server.asked == ["/v1/avatars", "/v1/avatars/public", "/v1/avatars/public"]


@pytest.mark.parametrize("answer", FOREIGN[2:4])
async def test_no_page_of_a_proxy_is_a_list_of_avatars(answer):
    async with rest() as (one, server):
        server.answers = {"/v1/avatars": listed(OWN), "/v1/avatars/public": answer}
        with pytest.raises(e.UpstreamProtocol):
            await one.avatars()


async def test_pages_without_end_are_cut():
    async with rest() as (one, server):
        server.answers = {"/v1/avatars": listed(), "/v1/avatars/public": listed(ADA, next="...")}
        assert {avatar.id for avatar in await one.avatars()} == {ADA, SANDBOX_AVATAR_ID}
        assert server.asked.count("/v1/avatars/public") == 100


async def test_slow_pages_end_with_the_deadline_of_the_whole_call():
    async def slowly(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(listed(ADA, next="..."))
        await writer.drain()

    async with answering() as server, contextlib.AsyncExitStack() as stack:
        one = Rest(RestConfig(base_url=server.url, avatars_timeout_s=0.5), "key")
        stack.push_async_callback(one.aclose)
        server.answers = {"/v1/avatars": slowly}
        async with asyncio.timeout(10):
            with pytest.raises(e.UpstreamTimeout, match="lists of avatars"):
                await one.avatars()


MINT = envelope({"session_id": "s-1", "session_token": "t"})


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X_RateLimit_Limit": "10", "X_RateLimit_Remaining": "3", "X_RateLimit_Reset": "1"}, (10, 3, 1.0)),
        ({"X_RateLimit_Limit": "10", "X_RateLimit_Remaining": "3", "X_RateLimit_Reset": "1796062077"}, None),
        ({"X_RateLimit_Limit": "10", "X_RateLimit_Remaining": "11", "X_RateLimit_Reset": "1"}, None),
        ({"X_RateLimit_Limit": "x", "X_RateLimit_Remaining": "3", "X_RateLimit_Reset": "1"}, None),
        ({"X_RateLimit_Limit": "10", "X_RateLimit_Remaining": "3", "X_RateLimit_Reset": "nan"}, None),
        ({"X_RateLimit_Limit": "10"}, None),
        ({}, None),
    ],
)
async def test_the_rate_limit_of_the_key_is_read_from_possible_headers_alone(headers, expected):
    seen = []
    async with answering() as server:
        server.answers = {TOKEN: http(200, MINT, **headers)}
        rest = Rest(RestConfig(base_url=server.url), "key", on_budget=seen.append)
        await rest.mint(AvatarRequest(avatar_id="a"))
        await rest.aclose()
    assert [(one.limit, one.remaining, one.reset_s) for one in seen] == ([] if expected is None else [expected])


async def test_a_mint_that_another_account_can_make_is_not_repeated():
    async with answering() as server:
        server.answers = {TOKEN: http(503, envelope(None, code=503, message="down"))}
        rest = Rest(RestConfig(base_url=server.url, backoff_s=0.01), "key")
        with pytest.raises(e.UpstreamUnreachable):
            await rest.mint(AvatarRequest(avatar_id="a"), retries=False)
        await rest.aclose()
        assert server.asked == [TOKEN]


async def test_clients_share_one_tls_context(monkeypatch):
    module._tls_context.cache_clear()
    made = []
    create = httpx.create_ssl_context
    monkeypatch.setattr(httpx, "create_ssl_context", lambda: made.append(create()) or made[-1])
    for key in ("one", "two"):
        await Rest(RestConfig(), key).aclose()
    assert len(made) == 1
    module._tls_context.cache_clear()


@pytest.mark.parametrize(("given", "expected"), [("for-the-agent", "for-the-agent"), (None, "")])
async def test_the_agents_token_of_a_start_is_kept_and_hidden(given, expected):
    async with rest() as (one, server):
        answer = {"session_id": "s-1", "ws_url": "wss://x/", "livekit_agent_token": given}
        server.answers[START] = http(201, envelope(answer))
        started = await one.start(MINTED)
    assert started.agent_token == expected
    assert "for-the-agent" not in repr(started)


AGENT = Connector(
    kind=ConnectorKind.GEMINI_REALTIME, secret_id="7f1d0f9e-8a3c-4b7e-9d55-0c2f6a1e4b22", voice="Puck"
)
ROOM = {"livekit_url": "wss://rooms.example.com", "livekit_client_token": "for-a-viewer"}


async def test_a_hosted_agent_is_asked_for_and_starts_without_a_socket():
    async with rest() as (one, server):
        server.answers = {
            TOKEN: http(200, envelope({"session_id": "s-1", "session_token": "t"})),
            START: http(201, envelope({"session_id": "s-1", "ws_url": None, **ROOM})),
        }
        await one.mint(AvatarRequest(avatar_id="a", connector=AGENT))
        body = json.loads(server.bodies[-1])
        assert body["gemini_realtime_config"] == {"secret_id": AGENT.secret_id, "voice": "Puck"}
        started = await one.start(MINTED, has_socket=False)
    assert (started.ws_url, started.room_url, started.viewer_token) == ("", *ROOM.values())


async def test_an_avatar_that_starts_without_its_agent_is_refused():
    """A service that does not know a connector ignores its field: the avatar would be silent, and billed."""
    async with rest() as (one, server):
        server.answers = {START: http(201, envelope({"session_id": "s-1", "ws_url": "wss://x/", **ROOM}))}
        with pytest.raises(e.UpstreamRejected) as refused:
            await one.start(MINTED, has_socket=False)
    assert refused.value.field == "connector"


@pytest.mark.parametrize("missing", ROOM)
async def test_a_hosted_agent_without_a_room_is_no_session(missing):
    async with rest() as (one, server):
        server.answers = {START: http(201, envelope({"session_id": "s-1", **ROOM, missing: None}))}
        with pytest.raises(e.UpstreamProtocol) as refused:
            await one.start(MINTED, has_socket=False)
    assert refused.value.metadata["missing"] == missing
