"""Callers that talk in real time over gRPC: one process, cheap enough for many sessions.

Each session holds one `StreamAudio` and speaks utterance after utterance without a pause. Chunks are due on a
schedule that is fixed when the session starts; a late one is sent at once and does not shift those behind it.
A write counts from before `call.write`, so what gRPC takes on this side is part of the latency.
"""

import argparse
import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import grpc.aio
import uvloop

from bench.settings import AVATAR_ID
from bench.speech import Spoken, SpokenSession, Write, noise, say_ready, stop_signal
from liveavatar.gateway.v1 import (
    audio_pb2,
    audio_service_pb2,
    audio_service_pb2_grpc,
    session_pb2,
    session_service_pb2,
    session_service_pb2_grpc,
)

_OPENING = 8
"""Sessions that are created or ended at the same time."""
_OPEN_WITHIN_S = 30.0
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each channel, not one for all
    ("grpc.http2.bdp_probe", 0),
    ("grpc.enable_retries", 0),
)

_Call: TypeAlias = (
    "grpc.aio.StreamStreamCall[audio_service_pb2.StreamAudioRequest, audio_service_pb2.StreamAudioResponse]"
)


class Talker:
    """One session that talks until it is cancelled."""

    def __init__(self, channel: grpc.aio.Channel, *, chunk_ms: int, utterance_ms: int) -> None:
        self._audio = audio_service_pb2_grpc.AudioServiceStub(channel)
        self._sessions = session_service_pb2_grpc.SessionServiceStub(channel)
        pcm = noise(chunk_ms)
        self._chunk = audio_service_pb2.StreamAudioRequest(chunk=audio_service_pb2.AudioChunk(audio=pcm))
        self._chunk_bytes = len(pcm)
        self._chunk_s = chunk_ms / 1000
        self._chunks = utterance_ms // chunk_ms
        self._id = ""
        self.spoken = SpokenSession("")
        self.problems: list[str] = []
        self.talks = asyncio.Event()

    async def open(self) -> None:
        """Create the session; it is ready when this returns."""
        answer = await self._sessions.CreateSession(
            session_service_pb2.CreateSessionRequest(spec=session_pb2.SessionSpec(avatar_id=AVATAR_ID)),
            timeout=_OPEN_WITHIN_S,
        )
        self._id = answer.session.id
        self.spoken = SpokenSession(answer.session.upstream_session_id)

    async def end(self) -> None:
        """End the session, as well as that goes."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._sessions.EndSession(
                session_service_pb2.EndSessionRequest(session_id=self._id), timeout=_OPEN_WITHIN_S
            )

    async def talk(self, start_s: float) -> None:
        """Speak from a moment on. What goes wrong is noted in `problems`."""
        call: _Call = self._audio.StreamAudio()
        try:
            header = audio_service_pb2.AudioHeader(session_id=self._id)
            await call.write(audio_service_pb2.StreamAudioRequest(header=header))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(call), name=f"session-{self._id}/listen")
                tasks.create_task(self._speak(call, start_s), name=f"session-{self._id}/speak")
        except* (grpc.aio.AioRpcError, asyncio.InvalidStateError) as errors:
            self.problems.extend(f"session {self._id}: {error!r}" for error in errors.exceptions)
        finally:
            self.talks.set()
            call.cancel()

    async def _listen(self, call: _Call) -> None:
        """Take what comes back, as a caller must; acks need no answer when audio comes in real time."""
        async for response in call:
            kind = response.WhichOneof("message")
            if kind == "rejected":
                self.problems.append(f"session {self._id}: audio was refused: {response.rejected.error.message}")
            elif kind == "ended" and response.ended.outcome != audio_pb2.UTTERANCE_OUTCOME_COMPLETED:
                outcome = audio_pb2.UtteranceOutcome.Name(response.ended.outcome)
                self.problems.append(
                    f"session {self._id}: an utterance ended {outcome}: {response.ended.error.message}"
                )
        self.problems.append(f"session {self._id}: the gateway closed the stream")

    async def _speak(self, call: _Call, start_s: float) -> None:
        begin = audio_service_pb2.StreamAudioRequest(begin=audio_service_pb2.BeginUtterance())
        end = audio_service_pb2.StreamAudioRequest(end=audio_service_pb2.EndUtterance())
        writes, size, chunk = self.spoken.writes, self._chunk_bytes, self._chunk
        for due_s, utterance, index in self._schedule(start_s):
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if index == 0:
                await call.write(begin)
            writes.append(Write(utterance, (index + 1) * size, due_s, time.monotonic()))
            await call.write(chunk)
            if index == self._chunks - 1:
                await call.write(end)
            self.talks.set()

    def _schedule(self, start_s: float) -> Iterator[tuple[float, int, int]]:
        """When each chunk is due, its utterance and its number in it."""
        number = 0
        while True:
            utterance, index = divmod(number, self._chunks)
            yield start_s + number * self._chunk_s, utterance, index
            number += 1


async def run(options: argparse.Namespace) -> None:
    """Open all sessions, talk until SIGTERM, leave the result file."""
    stop = stop_signal()
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(options.address, options=_OPTIONS))
            for _ in range(options.connections or options.sessions)
        ]
        talkers = [
            Talker(channels[number % len(channels)], chunk_ms=options.chunk_ms, utterance_ms=options.utterance_ms)
            for number in range(options.sessions)
        ]
        limit = asyncio.Semaphore(_OPENING)
        await _for_all(limit, [talker.open for talker in talkers])
        async with asyncio.TaskGroup() as tasks:
            now_s = time.monotonic() + 0.1
            talking = [
                tasks.create_task(talker.talk(now_s + options.stagger_s * number / len(talkers)))
                for number, talker in enumerate(talkers)
            ]
            for talker in talkers:
                await talker.talks.wait()
            say_ready(options.ready_file)
            await stop.wait()
            problems = [problem for talker in talkers for problem in talker.problems]
            for task in talking:
                task.cancel()
        Spoken([talker.spoken for talker in talkers], problems).save(options.result_file)
        await _for_all(limit, [talker.end for talker in talkers])


async def _for_all(limit: asyncio.Semaphore, steps: Sequence[Any]) -> None:
    async def one(step: Any) -> None:
        async with limit:
            await step()

    async with asyncio.TaskGroup() as tasks:
        for step in steps:
            tasks.create_task(one(step))


def main() -> None:
    """Run as a process of its own: `python -m bench.generator`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--sessions", type=int, required=True)
    parser.add_argument("--chunk-ms", type=int, required=True)
    parser.add_argument("--utterance-ms", type=int, required=True)
    parser.add_argument("--stagger-s", type=float, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--ready-file", type=Path, required=True)
    parser.add_argument("--result-file", type=Path, required=True)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
