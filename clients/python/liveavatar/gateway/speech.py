"""All speech of one session: utterances in order, on as many audio streams as their formats need."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta

import grpc

from liveavatar.gateway.audio import AudioFormat, ChunkBuffer
from liveavatar.gateway.audio_stream import AudioCall, AudioStream, StreamPhase
from liveavatar.gateway.backoff import Backoff
from liveavatar.gateway.changes import Changes
from liveavatar.gateway.channel import transient
from liveavatar.gateway.errors import (
    AudioMisaligned,
    AudioStreamSuperseded,
    ClientClosed,
    ConnectionLost,
    GatewayError,
    TooManyUtterances,
    UtteranceIdReused,
)
from liveavatar.gateway.model import Outcome
from liveavatar.gateway.utterance import Phase, Stop, Turn
from liveavatar.gateway.v1 import audio_service_pb2 as pb

_log = logging.getLogger(__name__)

MAX_UTTERANCES = 1000
"""Utterances of a session that may be alive at once; `say` refuses more."""
_READY_S = 10.0
# A gateway answers a header from memory; longer means that it is not there.
_CLOSE_S = 5.0


class Speech:
    """Owns the audio streams of a session. One task (`run`) sends everything.

    Invariant: utterances are begun in the order of `submit`, one at a time, each in full or with a reason. A
    stream carries one format, so another format waits until all before it was spoken.
    """

    def __init__(
        self,
        connect: Callable[[], AudioCall],
        handle: Callable[[], str],
        grace: Callable[[], timedelta],
        changes: Changes,
        backoff: Backoff,
        *,
        chunk_s: float,
    ) -> None:
        """Prepare, without opening a stream.

        Args:
            connect: Starts a StreamAudio call.
            handle: The session's handle as it is now.
            grace: How long a stream is tried to be opened while the gateway cannot be reached.
            changes: Notified whenever something here changed.
            backoff: Delays between attempts.
            chunk_s: Longest chunk. Shorter ones cost more messages; longer ones hold later audio up.
        """
        self._connect = connect
        self._handle = handle
        self._grace = grace
        self._changes = changes
        self._backoff = backoff
        self._chunk_s = chunk_s
        self._queue: deque[Turn] = deque()
        self._live: dict[str, Turn] = {}
        self._holds = 0
        self._stream: AudioStream | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether every utterance has its outcome."""
        return not self._living()

    def submit(self, turn: Turn) -> None:
        """Queue an utterance.

        Raises:
            TooManyUtterances: `MAX_UTTERANCES` are alive.
            UtteranceIdReused: one of the same id is alive.
        """
        if any(living.id == turn.id for living in self._living()):
            raise UtteranceIdReused(
                f"utterance id {turn.id!r} is in use in this session; take a fresh one",
                code=grpc.StatusCode.ALREADY_EXISTS,
                metadata={"utterance_id": turn.id},
            )
        if len(self._live) >= MAX_UTTERANCES:
            raise TooManyUtterances(
                f"{MAX_UTTERANCES} utterances are alive in this session; wait for one to end",
                code=grpc.StatusCode.RESOURCE_EXHAUSTED,
                metadata={"limit": str(MAX_UTTERANCES)},
            )
        self._live[turn.id] = turn
        turn.done.add_done_callback(lambda _: self._forget(turn))
        self._queue.append(turn)
        self._changes.notify()

    @contextlib.contextmanager
    def silencing(self, utterance_id: str) -> Iterator[list[Turn]]:
        """Send nothing more of an utterance, or of all; while this lasts no new one is begun.

        So an interrupt that names none, still on its way, cannot cut an utterance that was asked for after it.

        Yields:
            The utterances that were alive, in order. Those the gateway did not know are dropped already.
        """
        turns = [turn for turn in self._living() if utterance_id in ("", turn.id)]
        self._holds += 1
        try:
            for turn in turns:
                turn.halt(Stop.CANCEL)
                if turn.phase is Phase.QUEUED:
                    turn.drop()
            yield turns
        finally:
            self._holds -= 1
            self._changes.notify()

    def heard(self, utterance_id: str) -> None:
        """The session's events say that an utterance has started."""
        if utterance_id in self._live:
            self._live[utterance_id].start()

    def settle(self, outcome: Outcome) -> None:
        """The session's events say how an utterance ended.

        Its own stream says so too, and is waited for while it lives: an end that came of its breaking looks
        like an interrupt here, and the break is told only there.
        """
        turn = self._live.get(outcome.utterance_id)
        if turn is None:
            return
        if self._stream is not None and turn.id in self._stream.turns:
            turn.told = outcome
        else:
            turn.finish(outcome)

    def fail_all(self, error: GatewayError, *, orphans_only: bool = False) -> None:
        """Nothing more will be said of the utterances that live, or of those without a stream."""
        streamed = self._stream.turns if orphans_only and self._stream is not None else {}
        for turn in self._living():
            if not orphans_only or (turn.phase is not Phase.QUEUED and turn.id not in streamed):
                turn.fail(error)

    async def run(self) -> None:
        """Send what is submitted, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._changes.until(lambda: self._queue and not self._holds)
                turn = self._queue.popleft()
                if turn.outcome is None:
                    await self._speak(turn, tasks)

    async def _speak(self, turn: Turn, tasks: asyncio.TaskGroup) -> None:
        try:
            turn.format = await turn.source.resolve()
        except Exception as error:  # noqa: BLE001  a file's own error belongs to the one who awaits the utterance
            turn.fail(error)
            return
        stream = await self._stream_for(turn, tasks)
        if stream is None or not await stream.begin(turn):
            return
        buffer = ChunkBuffer(turn.format)
        async with asyncio.TaskGroup() as pumps:
            pump = pumps.create_task(self._pump(turn, buffer), name=f"utterance-{turn.id}/pump")
            await self._send(stream, turn, buffer)
            pump.cancel()

    async def _send(self, stream: AudioStream, turn: Turn, buffer: ChunkBuffer) -> None:
        """Send an utterance's audio as credit allows, and close it in the way it stopped."""
        chunk_bytes = turn.format.size_bytes(self._chunk_s)
        while stream.phase is not StreamPhase.CLOSED and turn.stop is None:
            again_bytes = turn.window.again_bytes
            size_bytes = stream.room_bytes(turn, min(again_bytes or buffer.size_bytes, chunk_bytes))
            if size_bytes and again_bytes:
                await stream.send_again(turn, size_bytes)
            elif size_bytes:
                audio = buffer.take(size_bytes)
                self._changes.notify()  # the pump waits for room
                await stream.send(turn, audio)
            elif buffer.exhausted and not again_bytes:
                await stream.end(turn)
                return
            else:
                await self._changes.wait()
        if turn.stop is Stop.CANCEL:
            await stream.cancel(turn)
        elif turn.stop is Stop.END:
            await stream.end(turn)

    async def _pump(self, turn: Turn, buffer: ChunkBuffer) -> None:
        """Draw from the utterance's source, at most two chunks ahead of the wire."""
        ahead_bytes = 2 * turn.format.size_bytes(self._chunk_s)
        try:
            async with contextlib.aclosing(turn.source.pieces()) as pieces:
                async for piece in pieces:
                    buffer.put(piece)
                    self._changes.notify()
                    await self._changes.until(lambda: buffer.size_bytes < ahead_bytes)
            if buffer.finish():
                turn.failure = AudioMisaligned(
                    f"the audio ends inside a {turn.format.frame_bytes}-byte sample; all before it was sent",
                    code=grpc.StatusCode.INVALID_ARGUMENT,
                    metadata={"frame_bytes": str(turn.format.frame_bytes)},
                )
            self._changes.notify()
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            # The source's own error, or its own cancelled task: for the one who awaits the utterance.
            turn.failure = (
                error if isinstance(error, Exception) else RuntimeError("the audio's iterator was cancelled")
            )
            turn.halt(Stop.CANCEL)

    async def _stream_for(self, turn: Turn, tasks: asyncio.TaskGroup) -> AudioStream | None:
        """A stream of the utterance's format; None when the utterance got its outcome meanwhile."""
        stream = self._stream
        if stream is not None and stream.phase is StreamPhase.READY:
            if stream.format == turn.format:
                return stream if turn.outcome is None else None
            await self._changes.until(
                lambda: not stream.turns or stream.phase is StreamPhase.CLOSED or turn.outcome is not None
            )
            if turn.outcome is not None:
                return None
            await self._close(stream)
        deadline_mono_s = asyncio.get_running_loop().time() + self._grace().total_seconds()
        while turn.outcome is None:
            error = await self._open(turn.format, tasks)
            if error is None:
                self._backoff.reset()
                return self._stream if turn.outcome is None else None
            delay_s = self._backoff.next_delay_s(error.retry_after)
            if not transient(error) or asyncio.get_running_loop().time() + delay_s > deadline_mono_s:
                turn.fail(error)
            else:
                _log.info("audio.retry delay_s=%.3f cause=%s", delay_s, error)
                await asyncio.sleep(delay_s)
        return None

    async def _open(self, audio_format: AudioFormat, tasks: asyncio.TaskGroup) -> GatewayError | None:
        """Open a stream and wait for its answer; says why it could not be had."""
        header = pb.AudioHeader(handle=self._handle(), format=audio_format.to_proto())
        try:
            stream = AudioStream(self._connect(), header, audio_format, self._changes)
        except ClientClosed as error:
            return error
        self._stream = stream
        self._watching = tasks.create_task(self._watch(stream), name="audio/read")
        try:
            async with asyncio.timeout(_READY_S):
                await self._changes.until(lambda: stream.phase is not StreamPhase.OPENING)
        except TimeoutError:
            self._watching.cancel()
            return _lost("the gateway did not answer the audio stream")
        if stream.phase is StreamPhase.READY:
            return None
        return stream.error or _lost("the gateway closed the audio stream at once")

    async def _watch(self, stream: AudioStream) -> None:
        """Read a stream to its end, and see to the utterances it leaves behind."""
        await stream.run()
        error = stream.error or _lost("the gateway closed the audio stream before its utterances had ended")
        for turn in list(stream.turns.values()):
            # The session's events tell how it ended, unless the gateway never heard of it.
            turn.lost = error
            if turn.told is not None or not turn.taken:
                turn.fail(error)
        stream.turns.clear()
        if isinstance(error, AudioStreamSuperseded):
            for turn in list(self._queue):
                turn.fail(error)
        self._changes.notify()

    async def _close(self, stream: AudioStream) -> None:
        """Let a stream go whose utterances have ended."""
        await stream.half_close()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._changes.until(lambda: stream.phase is StreamPhase.CLOSED)
        except TimeoutError:
            if self._watching is not None:
                self._watching.cancel()

    def _living(self) -> list[Turn]:
        """Utterances without an outcome, in order. One with an outcome is forgotten a moment later."""
        return [turn for turn in self._live.values() if turn.outcome is None]

    def _forget(self, turn: Turn) -> None:
        if self._live.get(turn.id) is turn:
            del self._live[turn.id]
            self._changes.notify()


def _lost(message: str) -> ConnectionLost:
    return ConnectionLost(message, code=grpc.StatusCode.UNAVAILABLE)
