"""More utterances than the gateway keeps in line: they wait for room, in the order they were said."""

import asyncio
from collections import deque

import grpc
import pytest
from clients.python.scripted import AudioPeer, opened, scripted, status

from liveavatar.gateway.speech import PIPELINED_UTTERANCES
from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as audio
from testkit.caller import AVATAR
from testkit.speech import sound

WAIT_S = 0.2


class Line:
    """A gateway with room for so many utterances, each of which is spoken in a moment."""

    def __init__(self, limit: int, *, spoken_s: float = 0.01, wait_s: float | None = WAIT_S) -> None:
        self.limit = limit
        self.order: list[str] = []
        self.heard: dict[str, bytearray] = {}
        self.refused: dict[str, list[float]] = {}
        self.returned: dict[str, list[float]] = {}
        self._line: deque[str] = deque()
        self._sealed: set[str] = set()
        self._spoken_s = spoken_s
        self._wait_s = wait_s

    async def __call__(self, peer: AudioPeer) -> None:
        await peer.ready()
        async with asyncio.TaskGroup() as tasks:
            speaking = tasks.create_task(self._speak(peer))
            while (message := await peer.read()) is not None:
                await self._take(peer, message)
            speaking.cancel()

    async def _take(self, peer: AudioPeer, message: audio.StreamAudioRequest) -> None:
        kind = message.WhichOneof("message")
        part = getattr(message, kind)
        now_s = asyncio.get_running_loop().time()
        if kind == "begin":
            if part.utterance_id in self.refused:
                self.returned.setdefault(part.utterance_id, []).append(now_s)
            if len(self._line) >= self.limit:
                self.refused.setdefault(part.utterance_id, []).append(now_s)
                refusal = status(
                    "CAPACITY_EXHAUSTED",
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    retry_s=self._wait_s,
                    scope="session",
                    limit=self.limit,
                )
                await peer.write(rejected=audio.AudioRejected(utterance_id=part.utterance_id, error=refusal))
                return
            self._line.append(part.utterance_id)
            self.order.append(part.utterance_id)
            self.heard[part.utterance_id] = bytearray()
            await peer.ack(part.utterance_id, 0)
        elif part.utterance_id not in self.heard:
            return  # of one that was refused
        elif kind == "chunk":
            self.heard[part.utterance_id] += part.audio
        elif kind == "end":
            self._sealed.add(part.utterance_id)
        elif part.utterance_id in self._line:
            self._line.remove(part.utterance_id)
            await peer.ended(part.utterance_id, audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED)

    async def _speak(self, peer: AudioPeer) -> None:
        # However slow the caller is, the line is full once.
        while not self.refused:
            await asyncio.sleep(0.001)
        while True:
            await asyncio.sleep(self._spoken_s)
            if self._line and self._line[0] in self._sealed:
                await peer.ended(self._line.popleft())


# The client begins `PIPELINED_UTTERANCES` without waiting for an answer. With less room than that, an utterance in
# flight behind a refused utterance could find the room of an utterance that has just ended, and overtake.
LEAST_ROOM = PIPELINED_UTTERANCES + 1


@pytest.mark.parametrize(("limit", "wait_s"), [(64, WAIT_S), (40, WAIT_S), (LEAST_ROOM, 0.02), (40, None)])
async def test_what_finds_no_room_waits_for_it_in_order(limit, wait_s):
    """Text-to-speech services may deliver a sentence word by word."""
    line = Line(limit, wait_s=wait_s)
    words = [sound(0.01, seed=number) for number in range(100 if limit > LEAST_ROOM else LEAST_ROOM + 8)]
    async with scripted(audios=[line]) as gateway, opened(gateway) as session:
        said = [session.say(word) for word in words]
        outcomes = [await utterance for utterance in said]
    assert {outcome.kind for outcome in outcomes} == {"played"}
    assert line.order == [utterance.id for utterance in said]
    assert [bytes(line.heard[utterance.id]) for utterance in said] == words
    assert line.refused
    for utterance_id, refused_s in line.refused.items():
        waited_s = line.returned[utterance_id][0] - refused_s[0]
        assert waited_s >= (1.0 if wait_s is None else wait_s) * 0.99


async def test_an_utterance_that_waits_for_room_can_be_interrupted():
    """It is dropped here; the one behind it is spoken."""
    line = Line(1, spoken_s=0.05)
    released = asyncio.Event()

    async def long():
        yield bytes(960)
        await released.wait()

    async with scripted(audios=[line]) as gateway, opened(gateway) as session:
        first = session.say(long())
        # The second is begun when the first is sealed, and refused as long as that is spoken.
        second, third = session.say(sound(0.01)), session.say(sound(0.01))
        released.set()
        while second.id not in line.refused:
            await asyncio.sleep(0.001)
        assert (await second.interrupt()).kind == "interrupted"
        assert (await first).kind == "played"
        assert (await third).kind == "played"
    assert line.order == [first.id, third.id]


async def test_a_hundred_words_are_spoken_by_a_gateway_that_keeps_64(client, emulator):
    words = [sound(0.03, seed=number) for number in range(100)]
    async with client.open_session(AVATAR) as session:
        said = [session.say(word) for word in words]
        assert {(await utterance).kind for utterance in said} == {"played"}
        assert emulator.audio(session.record.upstream_session_id) == b"".join(words)
