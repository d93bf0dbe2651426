"""Sessions of the emulator that have a real room."""

import asyncio
import base64
import json
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from livekit import api
from livekit.api.room_service import RoomService
from websockets.asyncio.client import ClientConnection, connect

from liveavatar_demo import run as demo
from testkit import processes

AVATAR = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
RATE_HZ = 24_000
PATIENCE_S = 30.0


def recorded_speech(name: str, seconds: float, first_s: float = 0.0) -> bytes:
    """Return a piece of one of the demo's recordings, in the format avatars speak."""
    with wave.open(str(demo.GREETING.with_stem(name)), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        resampled = soxr.resample(samples.astype(np.float32), file.getframerate(), RATE_HZ)
    first = round(first_s * RATE_HZ)
    piece = resampled[first : first + round(seconds * RATE_HZ)]
    return np.clip(np.rint(piece), -32_768, 32_767).astype("<i2").tobytes()


@dataclass(frozen=True, slots=True)
class Call:
    """A started session: what start answered, and its socket once it is connected."""

    emulator: processes.Emulator
    answer: dict[str, Any]
    bearer: dict[str, str]

    @property
    def id(self) -> str:
        return str(self.answer["session_id"])

    @property
    def url(self) -> str:
        return str(self.answer["livekit_url"])

    @property
    def viewer_token(self) -> str:
        return str(self.answer["livekit_client_token"])

    def recording(self) -> dict[str, Any]:
        return self.emulator.session(self.id)

    @property
    def media(self) -> dict[str, Any]:
        return dict(self.recording()["media"])

    @staticmethod
    def mono_s(recording: dict[str, Any], at_s: float) -> float:
        """Convert a time of a recording to the clock of `time.monotonic()`."""
        return float(recording["started_mono_s"]) + at_s

    def stop(self) -> None:
        self.emulator.http.post("/v1/sessions/stop", headers=self.bearer).raise_for_status()

    @asynccontextmanager
    async def socket(self) -> AsyncIterator["Mouth"]:
        async with connect(str(self.answer["ws_url"]), compression=None) as connection:
            mouth = Mouth(connection)
            await mouth.until("session.state_updated", state="connected")
            yield mouth

    async def media_until(self, **fields: Any) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            while not fields.items() <= (media := self.media).items():
                await asyncio.sleep(0.05)
        return media

    async def ended(self) -> str:
        async with asyncio.timeout(PATIENCE_S):
            while (reason := self.recording()["end_reason"]) is None:
                await asyncio.sleep(0.05)
        return str(reason)


@dataclass(frozen=True, slots=True)
class Mouth:
    """The command socket of one session."""

    connection: ClientConnection

    async def send(self, kind: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"type": kind, **fields}))

    async def say(self, pcm: bytes, event_id: str) -> None:
        await self.say_part(pcm, event_id)
        await self.send("agent.speak_end", event_id=event_id)

    async def say_part(self, pcm: bytes, event_id: str) -> None:
        """Speech without its end."""
        for first in range(0, len(pcm), 48_000):
            audio = base64.b64encode(pcm[first : first + 48_000]).decode()
            await self.send("agent.speak", event_id=event_id, audio=audio)

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                event = json.loads(await self.connection.recv())
                if event["type"] == kind and fields.items() <= event.items():
                    return event


def start(emulator: processes.Emulator, **order: Any) -> Call:
    body = {"avatar_id": AVATAR, "video_settings": {"quality": "low", "encoding": "VP8"}, **order}
    minted = emulator.http.post("/v1/sessions/token", json=body, headers={"X-API-KEY": processes.API_KEY})
    bearer = {"Authorization": f"Bearer {minted.raise_for_status().json()['data']['session_token']}"}
    started = emulator.http.post("/v1/sessions/start", headers=bearer)
    return Call(emulator, started.raise_for_status().json()["data"], bearer)


async def names(service: RoomService) -> set[str]:
    return {room.name for room in (await service.list_rooms(api.ListRoomsRequest())).rooms}


async def identities(service: RoomService, room: str) -> set[str]:
    found = await service.list_participants(api.ListParticipantsRequest(room=room))
    return {participant.identity for participant in found.participants}
