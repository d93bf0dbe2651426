"""All speech of one session: utterances in order, on as many audio streams as their formats need."""

import asyncio
import concurrent.futures
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta

import grpc

from liveavatar.gateway.audio import AudioFormat, ChunkBuffer
from liveavatar.gateway.audio_stream import AudioCall, AudioStream, StreamPhase
from liveavatar.gateway.channel import moved
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.errors import (
    AudioStreamSuperseded,
    ClientError,
    GatewayError,
    SessionEnded,
    TooManyUtterances,
    UtteranceIdReused,
)
from liveavatar.gateway.model import Outcome
from liveavatar.gateway.refusals import connection_lost, given_up
from liveavatar.gateway.targets import Retries
from liveavatar.gateway.timeouts import timeout
from liveavatar.gateway.utterance import Phase, Stop, UtteranceState
from liveavatar.gateway.v1 import audio_service_pb2 as pb

_log = logging.getLogger(__name__)

MAX_UTTERANCES = 1000
"""Utterances of a session that may be alive at once; `say` refuses more."""
PIPELINED_UTTERANCES = 32
"""Utterances that are begun at the gateway without waiting until each was taken; half of what it keeps in line."""
_READY_S = 10.0
# A gateway answers a header from memory; longer means that it is not there.
_CLOSE_S = 5.0


class Speech:
    """Owns the audio streams of a session. One task (`run`) sends everything.

    Invariant: utterances are begun in the order of `submit`, one at a time, each in full or with a reason. A
    stream carries one format, so another format waits until all before it was spoken. Utterances that a broken
    stream leaves behind (`_stranded`, in order) come before any new one.
    """

    def __init__(
        self,
        connect: Callable[[str], AudioCall],
        handle: Callable[[], str],
        patience: Callable[[], timedelta],
        changes: Condition,
        retries: Retries,
        *,
        on_resumed: Callable[[float, int, str], None],
        chunk_s: float,
    ) -> None:
        """Prepare, without opening a stream.

        Args:
            connect: Starts a StreamAudio call to a target.
            handle: The session's handle as it is now.
            patience: How long a stream is tried to be opened, or opened again, while no gateway takes it.
            changes: Notified whenever something here changed.
            retries: Which target to try next, and when.
            on_resumed: Told when utterances go on on another stream: after how many seconds and attempts, and
                with which target.
            chunk_s: Longest chunk. Shorter ones cost more messages; longer ones hold later audio up.
        """
        self._connect = connect
        self._handle = handle
        self._patience = patience
        self._changes = changes
        self._retries = retries
        self._on_resumed = on_resumed
        self._chunk_s = chunk_s
        self._queue: deque[UtteranceState] = deque()
        self._live: dict[str, UtteranceState] = {}
        self._holds = 0
        self._stream: AudioStream | None = None
        self._stranded: deque[UtteranceState] = deque()
        self._lost_mono_s: float | None = None
        self._delay_s = 0.0

    @property
    def idle(self) -> bool:
        """Whether every utterance has its outcome."""
        return not self._living()

    def submit(self, turn: UtteranceState) -> None:
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
    def silencing(self, utterance_id: str) -> Iterator[list[UtteranceState]]:
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

        Its own stream says so too, and is waited for while it lives: with its refusals it knows more.
        """
        turn = self._live.get(outcome.utterance_id)
        if turn is None:
            return
        if self._stream is not None and turn.id in self._stream.turns:
            turn.told = outcome
        else:
            turn.finish(outcome)

    def fail_all(self, error: GatewayError, *, orphans_only: bool = False) -> None:
        """Nothing more will be said of the utterances that live, or of those that only events would tell of."""
        for turn in self._living():
            if not orphans_only or turn.lost is not None:
                turn.fail(error)

    async def run(self) -> None:
        """Send what is submitted, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._changes.until(lambda: self._stranded or (self._queue and not self._holds))
                await self._rescue(tasks)
                if self._queue and not self._holds:
                    turn = self._queue.popleft()
                    if turn.outcome is None:
                        await self._speak(turn, tasks)

    async def _speak(self, turn: UtteranceState, tasks: asyncio.TaskGroup) -> None:
        try:
            audio_format = await self._resolved(turn)
        except BaseException as error:  # noqa: BLE001  a cancellation of ours is raised again
            # A file's own error belongs to the one who awaits the utterance.
            turn.fail(_source_error(error))
            return
        if audio_format is None:
            return
        turn.format = audio_format
        turn.buffer = ChunkBuffer(turn.format)
        stream = await self._free_stream(turn, tasks)
        if stream is None:
            return
        async with asyncio.TaskGroup() as pumps:
            pump = pumps.create_task(self._pump(turn), name=f"utterance-{turn.id}/pump")
            await self._carry(stream, turn)
            # Its stream may have broken under it: then it is the last of those that need another.
            await self._rescue(tasks)
            pump.cancel()

    async def _resolved(self, turn: UtteranceState) -> AudioFormat | None:
        """Wait for the format of an utterance's audio, which a pipe may keep back; None if it ended."""
        resolving = asyncio.ensure_future(turn.source.resolve())
        resolving.add_done_callback(lambda _: self._changes.notify())
        try:
            await self._changes.until(lambda: resolving.done() or turn.outcome is not None)
            return resolving.result() if resolving.done() else None
        finally:
            resolving.cancel()

    async def _carry(self, stream: AudioStream, turn: UtteranceState) -> None:
        """Begin an utterance on a stream, or go on with it there, until it is sealed or the stream is over."""
        # Behind so many the next may find no room, and may not be begun before this one has found its own.
        careful = len(stream.turns) >= PIPELINED_UTTERANCES or turn.begin_mono_s > 0
        if not await stream.begin(turn):
            await self._changes.until(lambda: stream.phase is StreamPhase.CLOSED)
            return
        try:
            async with timeout(_READY_S):
                await self._changes.until(lambda: stream.answered(turn))
        except TimeoutError:
            stream.cut()
            await self._changes.until(lambda: stream.phase is StreamPhase.CLOSED)
        if turn.id in stream.turns:
            await self._send(stream, turn)
        if careful:
            await self._changes.until(lambda: turn.taken or turn.id not in stream.turns)

    async def _send(self, stream: AudioStream, turn: UtteranceState) -> None:
        """Send an utterance's audio as credit allows, and close it in the way it stopped."""
        buffer = turn.buffer
        chunk_bytes = turn.format.size_bytes(self._chunk_s)
        while turn.id in stream.turns and stream.phase is not StreamPhase.CLOSED and turn.stop is None:
            again_bytes = turn.window.again_bytes
            wanted_bytes = min(again_bytes or buffer.size_bytes, chunk_bytes)
            size_bytes = stream.room_bytes(turn, wanted_bytes, again=bool(again_bytes))
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
        if turn.phase is Phase.QUEUED:
            return
        if turn.stop is Stop.CANCEL:
            await stream.cancel(turn)
        elif turn.stop is Stop.END:
            await stream.end(turn)

    async def _pump(self, turn: UtteranceState) -> None:
        """Draw from the utterance's source, at most two chunks ahead of the wire."""
        buffer = turn.buffer
        ahead_bytes = 2 * turn.format.size_bytes(self._chunk_s)
        try:
            async with contextlib.aclosing(turn.source.pieces()) as pieces:
                async for piece in pieces:
                    buffer.put(piece)
                    self._changes.notify()
                    await self._changes.until(lambda: buffer.size_bytes < ahead_bytes)
            if tail_bytes := buffer.finish():
                _log.warning(
                    "utterance %s ends inside a %d-byte sample: its last %d bytes were dropped",
                    turn.id,
                    turn.format.frame_bytes,
                    tail_bytes,
                )
            self._changes.notify()
        except BaseException as error:  # noqa: BLE001  a cancellation of ours is raised again
            # The source's own error, or its own cancelled task: for the one who awaits the utterance.
            turn.failure = _source_error(error)
            turn.halt(Stop.CANCEL)

    async def _rescue(self, tasks: asyncio.TaskGroup) -> None:
        """Go on with the utterances whose stream broke, oldest first, until none is left."""
        while self._stranded:
            turn = self._stranded[0]
            await self._rested(turn)
            stream = await self._connected(turn, tasks) if turn.outcome is None else None
            if turn in self._stranded:
                self._stranded.remove(turn)
            if stream is not None:
                await self._carry(stream, turn)

    def _crowded(self, turn: UtteranceState, wait_s: float) -> None:
        """Begin an utterance again later, before all that were submitted behind it."""
        turn.begin_mono_s = asyncio.get_running_loop().time() + wait_s
        order = {utterance_id: place for place, utterance_id in enumerate(self._live)}
        waiting = sorted((*self._stranded, turn), key=lambda one: order.get(one.id, -1))
        self._stranded = deque(waiting)
        _log.info("audio.crowded utterance=%s wait_s=%.3f", turn.id, wait_s)
        self._changes.notify()

    async def _rested(self, turn: UtteranceState) -> None:
        """Wait until an utterance that found no room may be begun again, or has its outcome."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(turn.begin_mono_s):
                await self._changes.until(lambda: turn.outcome is not None)

    async def _free_stream(self, turn: UtteranceState, tasks: asyncio.TaskGroup) -> AudioStream | None:
        """A stream of a new utterance's format, with all that came before it on its way.

        Returns:
            None when the utterance got its outcome meanwhile.
        """
        while turn.outcome is None:
            await self._rescue(tasks)
            stream = self._stream
            if stream is None or stream.phase is StreamPhase.CLOSED or stream.format == turn.format:
                return await self._connected(turn, tasks)
            await self._changes.until(self._others_ended(stream, turn))
            if turn.outcome is None and not stream.turns and stream.phase is StreamPhase.READY:
                await self._close(stream)
        return None

    @staticmethod
    def _others_ended(stream: AudioStream, turn: UtteranceState) -> Callable[[], bool]:
        return lambda: not stream.turns or stream.phase is StreamPhase.CLOSED or turn.outcome is not None

    async def _connected(self, turn: UtteranceState, tasks: asyncio.TaskGroup) -> AudioStream | None:
        """The stream that lives, or else a new one of the utterance's format.

        Returns:
            None when the utterance got its outcome meanwhile, or when there is no way to go on with it.
        """
        if self._stream is not None and self._stream.phase is StreamPhase.READY:
            return self._stream if turn.outcome is None else None
        loop = asyncio.get_running_loop()
        if not self._stranded:
            self._lost_mono_s = None
        begun_mono_s = loop.time() if self._lost_mono_s is None else self._lost_mono_s
        delay_s, self._delay_s = self._delay_s, 0.0
        while turn.outcome is None:
            await asyncio.sleep(delay_s)
            target = self._retries.route.current
            error = await self._open(turn.format, target, tasks)
            if error is None:
                self._opened(target)
                return self._stream if turn.outcome is None else None
            lost_s = loop.time() - begun_mono_s
            next_delay_s = self._retries.next_delay_s(target, error, lost_s=lost_s)
            left_s = self._patience().total_seconds() - lost_s
            if next_delay_s is None or left_s <= 0:
                final = next_delay_s is None or moved(error)
                self._give_up(turn, error if final else given_up(error, self._patience()))
                return None
            delay_s = min(next_delay_s, left_s)
            _log.info("audio.retry delay_s=%.3f cause=%s", delay_s, error)
        return None

    async def _open(self, audio_format: AudioFormat, target: str, tasks: asyncio.TaskGroup) -> GatewayError | None:
        """Open a stream and wait for its answer; says why it could not be had."""
        header = pb.AudioHeader(handle=self._handle(), format=audio_format.to_proto())
        try:
            stream = AudioStream(
                self._connect(target), header, audio_format, self._changes, on_crowded=self._crowded
            )
        except ClientError as error:
            return error
        self._stream = stream
        tasks.create_task(self._watch(stream, target), name="audio/read")
        try:
            async with timeout(_READY_S):
                await self._changes.until(lambda: stream.phase is not StreamPhase.OPENING)
        except TimeoutError:
            stream.cut()
            return connection_lost("the gateway did not answer the audio stream")
        if stream.phase is StreamPhase.READY:
            return None
        return stream.error or connection_lost("the gateway closed the audio stream at once")

    def _opened(self, target: str) -> None:
        if self._lost_mono_s is not None and self._stranded:
            gap_s = asyncio.get_running_loop().time() - self._lost_mono_s
            self._on_resumed(gap_s, self._retries.attempt_count, target)
        self._retries.reached()

    async def _watch(self, stream: AudioStream, target: str) -> None:
        """Read a stream to its end, and see to the utterances it leaves behind."""
        await stream.run()
        error = stream.error or connection_lost("the gateway closed the audio stream before its utterances ended")
        left = [turn for turn in stream.turns.values() if turn.outcome is None]
        stream.turns.clear()
        if not left:
            # A stream nobody speaks on is opened again when somebody does.
            if isinstance(error, AudioStreamSuperseded):
                self._give_up_waiting(error)
            return
        if stream.useful:
            self._retries.stable()
        now_mono_s = asyncio.get_running_loop().time()
        # A gateway that takes the stream and never anything on it does not get more time each time.
        if stream.useful or self._lost_mono_s is None:
            self._lost_mono_s = now_mono_s
            late = False
        else:
            late = now_mono_s - self._lost_mono_s >= self._patience().total_seconds()
        for turn in left:
            if turn.told is not None:
                turn.finish(turn.told)
        self._stranded.extendleft(turn for turn in reversed(left) if turn.outcome is None)
        delay_s = self._retries.next_delay_s(target, error, held=True)
        if delay_s is None or late:
            self._give_up(None, error if delay_s is None else given_up(error, self._patience()))
        else:
            self._delay_s = delay_s
            _log.info("audio.lost utterances=%d cause=%s", len(left), error)
        self._changes.notify()

    def _give_up(self, new: UtteranceState | None, error: GatewayError) -> None:
        """No stream can be had. The session's events still tell how an utterance ends that was sent in full."""
        left = list(self._stranded)
        self._stranded.clear()
        self._lost_mono_s = None
        for turn in left:
            turn.lost = error
            told = turn.taken and (turn.phase is Phase.SEALED or isinstance(error, SessionEnded))
            if not told:
                turn.fail(error)
        if new is not None and new not in left:
            new.fail(error)
        if isinstance(error, AudioStreamSuperseded):
            self._give_up_waiting(error)

    def _give_up_waiting(self, error: GatewayError) -> None:
        # All that the gateway does not know, not only the queue: one may have left it and wait for a stream.
        for turn in self._living():
            if turn.phase is Phase.QUEUED:
                turn.fail(error)
        self._changes.notify()

    async def _close(self, stream: AudioStream) -> None:
        """Let a stream go whose utterances have ended."""
        await stream.half_close()
        try:
            async with timeout(_CLOSE_S):
                await self._changes.until(lambda: stream.phase is StreamPhase.CLOSED)
        except TimeoutError:
            stream.cut()
            await self._changes.until(lambda: stream.phase is StreamPhase.CLOSED)

    def _living(self) -> list[UtteranceState]:
        """Utterances without an outcome, in order. One with an outcome is forgotten a moment later."""
        return [turn for turn in self._live.values() if turn.outcome is None]

    def _forget(self, turn: UtteranceState) -> None:
        if self._live.get(turn.id) is turn:
            del self._live[turn.id]
            self._changes.notify()


def _source_error(error: BaseException) -> Exception:
    """Return what an utterance fails with when its source raised `error`.

    SystemExit and KeyboardInterrupt would end the event loop, and with it every session, if they were raised in
    it: they come wrapped, as their `__cause__`. So does a cancelled future of the source's own, which asyncio
    would hand on as a cancellation of whoever waits for the utterance.

    Raises:
        CancelledError: the task that draws from the source was cancelled, not the source.
    """
    is_cancelled = isinstance(error, asyncio.CancelledError | concurrent.futures.CancelledError)
    if isinstance(error, Exception) and not is_cancelled:
        return error
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error
    said = "was cancelled" if is_cancelled else f"raised {error!r}"
    failure = RuntimeError(f"the audio's iterator {said}")
    failure.__cause__ = error
    return failure
