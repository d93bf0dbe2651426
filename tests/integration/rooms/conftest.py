"""The emulator with real rooms."""

from collections.abc import AsyncIterator, Iterator

import pytest
from livekit import api
from livekit.api.room_service import RoomService

from liveavatar_demo.livekit_server import LiveKitServer
from testkit import processes


@pytest.fixture(scope="module")
def rooms(request: pytest.FixtureRequest, livekit: LiveKitServer) -> Iterator[processes.Emulator]:
    """Run an emulator with rooms, shared by the tests of one file.

    A file with `AVATAR_VIDEO = False` looks at no picture: drawing and encoding would take most of the CPU.
    """
    with processes.emulator(livekit=livekit, avatar_video=getattr(request.module, "AVATAR_VIDEO", True)) as found:
        yield found


@pytest.fixture
async def service(livekit: LiveKitServer) -> AsyncIterator[RoomService]:
    """Connect to the LiveKit server's own view of its rooms."""
    async with api.LiveKitAPI(livekit.url, livekit.api_key, livekit.api_secret) as client:
        yield client.room
