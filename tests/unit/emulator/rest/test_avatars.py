"""Avatar routes in memory."""

from liveavatar_emulator import catalog


async def test_an_own_avatar_is_renamed_and_deleted_and_a_stock_one_is_not(service, http):
    service.emulator.change_settings({"own_avatars": 1})
    own = (await http.get("/v1/avatars")).json()["data"]["results"][0]["id"]
    assert (await http.patch(f"/v1/avatars/{own}", json={"name": "New"})).json()["data"]["name"] == "New"
    assert (await http.patch(f"/v1/avatars/{own}", json={"default_voice_id": "x"})).status_code == 400
    assert (await http.delete(f"/v1/avatars/{own}")).status_code == 200
    assert (await http.get(f"/v1/avatars/{own}")).status_code == 404
    stock = catalog.PUBLIC_AVATARS[0]["id"]
    assert (await http.patch(f"/v1/avatars/{stock}", json={"name": "New"})).status_code == 400


async def test_private_voices_and_contexts_are_empty(http):
    assert (await http.get("/v1/voices")).json()["data"]["count"] == len(catalog.VOICES)
    assert (await http.get("/v1/voices", params={"voice_type": "private"})).json()["data"]["count"] == 0
    assert (await http.get("/v1/contexts")).json()["data"]["count"] == 0
