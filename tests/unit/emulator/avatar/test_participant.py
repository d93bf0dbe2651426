"""An avatar whose room refuses it, or that leaves before it has joined."""

from types import SimpleNamespace

import pytest

from liveavatar_emulator.avatar import participant
from liveavatar_emulator.avatar_events import PoseChanged
from liveavatar_emulator.protocol import Pose
from liveavatar_emulator.rooms import RoomAccess


class FakeRoom:
    """An SDK room that refuses every connection."""

    def on(self, _event: str, _callback: object) -> None:
        pass

    async def connect(self, *_arguments: object) -> None:
        raise ConnectionError("token eyJ is refused")

    def isconnected(self) -> bool:
        return False

    async def disconnect(self) -> None:
        pass


class FakeRooms:
    """Rooms that remember what was closed."""

    def __init__(self) -> None:
        self.closed: list[tuple[str, float]] = []

    async def create(self, name: str) -> None:
        pass

    async def close(self, name: str, tokens_valid_s: float) -> None:
        self.closed.append((name, tokens_valid_s))


@pytest.fixture
def avatar(monkeypatch):
    monkeypatch.setattr(participant.rtc, "Room", FakeRoom)
    monkeypatch.setattr(participant, "Face", lambda *_size: None)
    calls: list[str] = []
    rooms = FakeRooms()
    subject = participant.Participant(
        session_id="s1",
        access=RoomAccess("ws://rooms", "r", owned=True, token="t", tokens_valid_s=60),
        quality="low",
        encoding="VP8",
        has_video=True,
        rooms=rooms,
        drawing_executor=None,
        joined=lambda: calls.append("joined"),
        lost=lambda: calls.append("lost"),
    )
    return SimpleNamespace(subject=subject, calls=calls, rooms=rooms)


async def test_a_refused_avatar_is_lost_once_and_its_room_is_closed(avatar):
    await avatar.subject.run()
    assert avatar.calls == ["lost"]
    assert avatar.rooms.closed == [("r", 60)]
    assert (avatar.subject.row()["status"], avatar.subject.row()["joined"]) == ("lost", False)


async def test_an_avatar_that_left_while_joining_is_not_lost(avatar):
    avatar.subject.leave()
    await avatar.subject.run()
    assert avatar.calls == []
    assert avatar.subject.row()["status"] == "left"


def test_a_pose_is_kept_for_the_time_after_joining(avatar):
    avatar.subject.handle(PoseChanged(Pose.LISTENING))
    assert avatar.subject._pose is Pose.LISTENING
    assert avatar.subject.row()["audio_frames"] == 0
