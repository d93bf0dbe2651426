"""Ears of an avatar: which tracks are subscribed to, and when a user has finished."""

import asyncio
from types import SimpleNamespace

import pytest
from livekit import rtc

from liveavatar_emulator.avatar import ears
from liveavatar_emulator.avatar.ears import Ears

AUDIO, VIDEO = rtc.TrackKind.KIND_AUDIO, rtc.TrackKind.KIND_VIDEO
USER, AGENT = (
    rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD,
    rtc.ParticipantKind.PARTICIPANT_KIND_AGENT,
)


class Publication:
    """A track of a participant."""

    def __init__(self, sid: str, kind: int = AUDIO) -> None:
        self.sid, self.kind, self.subscribed = sid, kind, False

    def set_subscribed(self, subscribed: bool) -> None:  # noqa: FBT001 - as in the SDK
        self.subscribed = subscribed


class Room:
    """An SDK room with participants."""

    def __init__(self, *participants) -> None:
        self.remote_participants = {one.identity: one for one in participants}
        self.listeners = {}

    def on(self, event: str, callback) -> None:
        self.listeners[event] = callback


class Stream:
    """An SDK stream with two frames, then none forever."""

    fails = False

    def __init__(self, _track: object, **_options: object) -> None:
        self.frames = [b"\x01\x00", b"\x02\x00"]
        self.closed = False

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.frames:
            data = memoryview(self.frames.pop(0))
            return SimpleNamespace(frame=SimpleNamespace(data=data))
        if self.fails:
            raise RuntimeError("the SDK failed")
        await asyncio.Event().wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


def participant(identity: str, *publications: Publication, kind: int = USER):
    return SimpleNamespace(identity=identity, kind=kind, track_publications={one.sid: one for one in publications})


@pytest.fixture
def heard(monkeypatch):
    monkeypatch.setattr(ears.rtc, "AudioStream", Stream)
    return []


async def until(so) -> None:
    async with asyncio.timeout(10):
        while not so():
            await asyncio.sleep(0)


async def test_microphones_of_users_are_heard_and_programs_and_pictures_are_not(heard):
    voice, picture, program = Publication("voice"), Publication("picture", VIDEO), Publication("program")
    room = Room(participant("ann", voice, picture), participant("bot", program, kind=AGENT))
    subject = Ears(lambda *found: heard.append(found))
    subject.choose()
    subject.attach(room)
    room.listeners["track_published"]()
    assert [one.subscribed for one in (voice, picture, program)] == [True, False, False]
    await subject.close()
    late = Publication("late")
    room.remote_participants["ben"] = participant("ben", late)
    subject.choose()
    assert not late.subscribed


async def test_a_user_is_heard_until_the_track_is_gone(heard):
    voice = Publication("voice")
    room = Room(participant("ann", voice))
    subject = Ears(lambda *found: heard.append(found))
    subject.attach(room)
    room.listeners["track_subscribed"](object(), Publication("picture", VIDEO), participant("ann"))
    room.listeners["track_subscribed"](object(), voice, participant("ann"))
    await until(lambda: len(heard) == 2)
    room.listeners["track_unsubscribed"](object(), voice, participant("ann"))
    await until(lambda: len(heard) == 3)
    assert heard == [("ann", b"\x01\x00"), ("ann", b"\x02\x00"), ("ann", b"")]
    await subject.close()
    room.listeners["track_subscribed"](object(), voice, participant("ann"))
    assert len(heard) == 3


async def test_a_stream_that_fails_ends_the_turn_and_closing_ends_nothing_else(heard, monkeypatch):
    room = Room()
    subject = Ears(lambda *found: heard.append(found))
    subject.attach(room)
    room.listeners["track_subscribed"](object(), Publication("voice"), participant("ann"))
    await until(lambda: len(heard) == 2)
    await subject.close()
    assert len(heard) == 2, "an avatar that leaves answers nobody"
    monkeypatch.setattr(Stream, "fails", True)
    other = Ears(lambda *found: heard.append(found))
    other.attach(room)
    room.listeners["track_subscribed"](object(), Publication("voice"), participant("ben"))
    await until(lambda: ("ben", b"") in heard)
    await other.close()
