"""Account routes in memory."""


async def test_the_balance_has_two_decimals(http):
    assert (await http.get("/v1/users/credits")).json()["data"] == {"credits_left": "1000.00"}


async def test_a_secret_is_listed_without_its_value_and_deleted_once(http):
    body = {"secret_type": "OPENAI_API_KEY", "secret_value": "hidden", "secret_name": "n"}
    stored = (await http.post("/v1/secrets", json=body)).json()["data"]
    listed = await http.get("/v1/secrets")
    assert [row["id"] for row in listed.json()["data"]] == [stored["id"]]
    assert "hidden" not in listed.text
    assert (await http.delete(f"/v1/secrets/{stored['id']}")).status_code == 200
    assert (await http.delete(f"/v1/secrets/{stored['id']}")).status_code == 404
