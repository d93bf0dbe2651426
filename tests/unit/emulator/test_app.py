"""The application: one router per part, sockets beside them."""

from liveavatar_emulator.app import build


async def test_every_part_of_the_api_is_served(http):
    paths = (await http.get("/_emulator/openapi.json")).json()["paths"]
    for path in ("/v1/sessions/start", "/v1/avatars", "/v1/secrets", "/_emulator/state", "/_emulator/viewer"):
        assert path in paths


async def test_sockets_bypass_the_framework(service):
    sent = []

    async def receive() -> dict:
        return {"type": "websocket.connect"}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/ws/none", "extensions": {"emulator.connection": None}}
    await build(service.emulator)(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
