"""Cross-origin rules of the service's API."""


async def test_a_foreign_page_reaches_the_service_and_nothing_else(http):
    page = {"Origin": "http://shop.example"}
    assert (await http.get("/v1/avatars/public", headers=page)).status_code == 200
    assert (await http.get("/_emulator/state", headers=page)).status_code == 403
