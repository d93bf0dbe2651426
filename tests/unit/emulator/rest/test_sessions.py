"""Session routes in memory: targets, filters, erased events."""


async def test_a_key_names_its_session_and_a_token_need_not(service, http):
    minted, token = service.mint()
    service.emulator.start(minted, "ws://emulator")
    assert (await http.post("/v1/sessions/stop", json={})).status_code == 400
    stopped = await http.post("/v1/sessions/stop", headers={"Authorization": f"Bearer {token}"})
    assert stopped.status_code == 200
    assert service.account.records[minted.session_id].end_reason == "USER_CLOSED"


async def test_sessions_are_listed_by_their_state(service, http):
    ended, active = service.start(), service.start()
    ended.driver.stop("USER_CLOSED")
    for kind, expected in (("active", active), ("historic", ended)):
        rows = (await http.get("/v1/sessions", params={"type": kind})).json()["data"]["results"]
        assert [row["id"] for row in rows] == [expected.record.id]
    embeds = await http.get("/v1/sessions", params={"type": "active", "embed_id": "e"})
    assert embeds.json()["data"]["count"] == 0


async def test_a_token_erases_events_of_its_own_session_only(service, http):
    minted, token = service.mint()
    service.emulator.start(minted, "ws://emulator")
    other = service.start()
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await http.delete(f"/v1/sessions/{other.record.id}/events", headers=bearer)).status_code == 404
    assert (await http.delete(f"/v1/sessions/{minted.session_id}/events", headers=bearer)).status_code == 200
    assert [row.events_erased for row in service.account.records.values()] == [True, False]
