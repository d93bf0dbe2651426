"""Rooms on a LiveKit server that is a fake: deleted, and kept deleted."""

import asyncio
from types import SimpleNamespace

import pytest
from livekit import api

from liveavatar_emulator.avatar.room_service import RoomService
from liveavatar_emulator.config import LiveKitServer


class FakeServer:
    """LiveKit's room service in memory."""

    def __init__(self) -> None:
        self.rooms: set[str] = set()
        self.deleted: list[str] = []
        self.error: Exception | None = None

    async def create_room(self, request: api.CreateRoomRequest) -> None:
        self.rooms.add(request.name)

    async def list_rooms(self, request: api.ListRoomsRequest) -> SimpleNamespace:
        if self.error is not None:
            raise self.error
        return SimpleNamespace(rooms=[SimpleNamespace(name=name) for name in request.names if name in self.rooms])

    async def delete_room(self, request: api.DeleteRoomRequest) -> None:
        if self.error is not None:
            raise self.error
        self.rooms.discard(request.room)
        self.deleted.append(request.room)


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
async def rooms(server, monkeypatch):
    monkeypatch.setattr("liveavatar_emulator.avatar.room_service.CHECK_PERIOD_S", 0.0)
    service = RoomService(LiveKitServer(url="ws://rooms", api_key="k", api_secret="s"))
    async with service._tasks:
        service._client = SimpleNamespace(room=server)
        yield service
        service._closed_until_s.clear()


async def test_a_deleted_room_is_deleted_again_while_its_tokens_are_valid(rooms, server):
    await rooms.create("r")
    await rooms.close("r", 60)
    assert server.rooms == set()
    server.rooms.add("r")
    for _ in range(20):
        await asyncio.sleep(0)
    assert server.rooms == set()
    assert server.deleted == ["r", "r"]


async def test_the_check_ends_with_the_last_token(rooms, server):
    await rooms.close("r", 0)
    await rooms._keeper
    assert rooms._closed_until_s == {}


async def test_a_server_that_does_not_respond_has_no_rooms_and_fails_no_close(rooms, server):
    server.error = TimeoutError()
    assert await rooms._existing(["r"]) == []
    await rooms.close("r", 0)


def test_a_service_that_is_not_open_says_so():
    with pytest.raises(RuntimeError, match="not open"):
        _ = RoomService(LiveKitServer(url="ws://rooms", api_key="k", api_secret="s"))._rooms
