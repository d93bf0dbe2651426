"""Foreign pages, by the Origin header."""

import pytest
from starlette.datastructures import Headers

from liveavatar_emulator.cors import is_foreign


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({"host": "emulator:8787"}, False),
        ({"host": "emulator:8787", "origin": "http://emulator:8787"}, False),
        ({"host": "emulator:8787", "origin": "http://emulator:3000"}, True),
        ({"host": "emulator:8787", "origin": "null"}, True),
    ],
)
def test_a_page_is_foreign_unless_it_comes_from_the_requests_address(headers, foreign):
    assert is_foreign(Headers(headers)) is foreign


async def test_a_foreign_page_reaches_the_service_and_nothing_else(http):
    page = {"Origin": "http://shop.example"}
    assert (await http.get("/v1/avatars/public", headers=page)).status_code == 200
    assert (await http.get("/_emulator/state", headers=page)).status_code == 403
