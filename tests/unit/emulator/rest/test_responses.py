"""Pages of a list."""


async def test_pages_have_links_that_keep_the_query(http):
    first = (await http.get("/v1/avatars/public", params={"page_size": 3})).json()["data"]
    assert (first["count"], len(first["results"]), first["previous"]) == (4, 3, None)
    second = (await http.get(first["next"])).json()["data"]
    assert (len(second["results"]), second["next"]) == (1, None)
    assert second["previous"].endswith("page=1&page_size=3") or "page_size=3" in second["previous"]


async def test_the_success_code_follows_the_knob(service, http):
    service.emulator.change_settings({"success_code": 100})
    assert (await http.get("/v1/users/credits")).json()["code"] == 100
