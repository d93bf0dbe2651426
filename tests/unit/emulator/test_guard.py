"""Foreign pages, names of the emulator, and control tokens."""

import httpx
import pytest
from starlette.datastructures import Headers

from liveavatar_emulator.config import InvalidSetting, ServerConfig
from liveavatar_emulator.guard import (
    Guard,
    is_foreign,
    is_known_host,
    is_loopback,
    read_or_make_token,
    require_token,
)

LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),
        ({"origin": "http://emulator:8787"}, False),
        ({"origin": "HTTP://Emulator:8787"}, False),
        ({"origin": "https://emulator:8787"}, True),
        ({"origin": "http://emulator:3000"}, True),
        ({"origin": "http://emulator:8787.evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": ""}, True),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}, True),
        ({**LINK, "sec-fetch-dest": "iframe"}, True),
        (LINK, False),
    ],
)
def test_a_page_is_foreign_unless_it_comes_from_the_requests_address(headers, foreign):
    assert is_foreign(Headers({"host": "emulator:8787", **headers})) is foreign


def test_a_link_reads_and_changes_nothing():
    assert is_foreign(Headers({"host": "emulator:8787", **LINK}), "POST")


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost:8787", True),
        ("LOCALHOST", True),
        ("localhost.:8787", True),
        ("127.0.0.1:8787", True),
        ("127.9.9.9", True),
        ("[::1]:8787", True),
        ("emulator:8787", True),
        ("EMULATOR.:8787", True),
        ("192.0.2.7:8787", True),
        ("192.0.2.8:8787", False),
        ("evil.example:8787", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("evil.example@127.0.0.1:8787", False),
        ("server-name", False),
        ("0.0.0.0:8787", False),
        ("2130706433", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_a_name_that_somebody_else_may_give_away_is_unknown(host, known):
    assert is_known_host(host, {"emulator"}, {"server": ("192.0.2.7", 8787)}) is known
    assert not is_known_host("server-name", {"emulator"}, {"server": ("server-name", 8787)})


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("x", False)],
)
def test_an_emulator_on_loopback_is_for_its_machine_alone(host, alone):
    assert is_loopback(host) is alone


def test_a_token_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "token"
    token = read_or_make_token(path)
    assert len(token) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_or_make_token(path) == token
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "short", "x" * 15, "with space 0123456789", "ä" * 20])
def test_a_token_that_is_no_secret_is_refused(tmp_path, text):
    with pytest.raises(InvalidSetting):
        require_token(text, "control_token")
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(InvalidSetting):
        read_or_make_token(path)
    with pytest.raises(InvalidSetting):
        read_or_make_token(tmp_path / "no" / "folder")


async def passed(config: ServerConfig, path: str, **headers: str) -> int:
    """Status of a request through a guard in front of an application that accepts everything."""

    async def accept(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    transport = httpx.ASGITransport(Guard(accept, config))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return (await client.get(path, headers=headers)).status_code


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "emulator.example"])
async def test_an_emulator_that_others_reach_has_a_control_api_only_with_a_token(host):
    token = "control-token-0123456789"
    assert await passed(ServerConfig(host=host), "/_emulator/state") == 403
    guarded = ServerConfig(host=host, control_token=token)
    assert await passed(guarded, "/_emulator/state") == 401
    assert await passed(guarded, "/_emulator/state", Authorization=f"Bearer {token}") == 204
    assert await passed(guarded, "/viewer") == 204
    assert token not in repr(guarded)
