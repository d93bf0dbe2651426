"""Speech of one session: utterances in order, on as many audio streams as their formats need."""

import asyncio
import concurrent.futures
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta

import grpc

from liveavatar.gateway.audio import AudioFormat
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
from liveavatar.gateway.source import pulled
from liveavatar.gateway.targets import Retries
from liveavatar.gateway.timeouts import timeout
from liveavatar.gateway.utterance import Phase, Stop, UtteranceState
from liveavatar.gateway.v1 import audio_service_pb2 as pb
from liveavatar.gateway.words import TimedPiece

_log = logging.getLogger(__name__)

MAX_UTTERANCES = 1000
"""Utterances of a session that may lack an outcome at once; `say` refuses more."""
PIPELINED_UTTERANCES = 32
"""Utterances begun without waiting until the gateway accepts each; half of what the gateway queues."""
_READY_S = 10.0
# A gateway answers a header from memory; a longer wait means that no gateway is there.
_CLOSE_S = 5.0
_LAST_WORDS_S = 1.0
# Longest wait for `words` after the last audio, before the utterance is ended without them.


class Speech:
    """Owner of a session's audio streams. One task (`run`) sends everything.

    Invariant: utterances are begun in the order of `submit`, one at a time, and each is sent in full or ends with
    an error. A stream has one audio format, so another format waits until all earlier utterances were spoken.
    Utterances of a broken stream (`_resumable`, in order) are resumed before any new utterance.
    """

    def __init__(
        self,
        connect: Callable[[str], Awaitable[AudioCall]],
        handle: Callable[[], str],
        resume_timeout: Callable[[], timedelta],
        condition: Condition,
        retries: Retries,
        *,
        on_resumed: Callable[[float, int, str], None],
        chunk_s: float,
    ) -> None:
        """Prepare, without opening a stream.

        Args:
            connect: Starts a StreamAudio call to a target.
            handle: Returns the current handle of the session.
            resume_timeout: Returns how long to try to open or resume a stream while no gateway accepts it.
            condition: Notified of each change.
            retries: Chooses the target and the delay of the next attempt.
            on_resumed: Called when utterances are resumed on another stream, with the seconds since the loss, the
                number of attempts, and the target.
            chunk_s: Longest chunk. Shorter chunks cost more messages; longer chunks delay later audio.
        """
        self._connect = connect
        self._handle = handle
        self._resume_timeout = resume_timeout
        self._condition = condition
        self._retries = retries
        self._on_resumed = on_resumed
        self._chunk_s = chunk_s
        self._queue: deque[UtteranceState] = deque()
        self._live: dict[str, UtteranceState] = {}
        self._interrupt_count = 0
        self._stream: AudioStream | None = None
        self._resumable: deque[UtteranceState] = deque()
        self._lost_mono_s: float | None = None
        self._delay_s = 0.0

    @property
    def idle(self) -> bool:
        """True when every utterance has its outcome."""
        return not self._unfinished()

    def submit(self, utterance: UtteranceState) -> None:
        """Queue an utterance.

        Raises:
            TooManyUtterances: `MAX_UTTERANCES` utterances have no outcome yet.
            UtteranceIdReused: an utterance of the same id has no outcome yet.
        """
        if any(other.id == utterance.id for other in self._unfinished()):
            raise UtteranceIdReused(
                f"utterance id {utterance.id!r} is in use in this session; take a fresh one",
                code=grpc.StatusCode.ALREADY_EXISTS,
                metadata={"utterance_id": utterance.id},
            )
        if len(self._live) >= MAX_UTTERANCES:
            raise TooManyUtterances(
                f"{MAX_UTTERANCES} utterances of this session have not ended; wait for an outcome",
                code=grpc.StatusCode.RESOURCE_EXHAUSTED,
                metadata={"limit": str(MAX_UTTERANCES)},
            )
        self._live[utterance.id] = utterance
        utterance.done.add_done_callback(lambda _: self._forget(utterance))
        self._queue.append(utterance)
        self._condition.notify()

    @contextlib.contextmanager
    def interrupting(self, utterance_id: str) -> Iterator[list[UtteranceState]]:
        """Stop sending an utterance, or all for the id ""; no utterance is begun within this block.

        So an interrupt of all speech, still on its way, cannot cut an utterance that `say` was given later.

        Yields:
            The utterances without an outcome, in order. Those unknown to the gateway are dropped already.
        """
        utterances = [utterance for utterance in self._unfinished() if utterance_id in ("", utterance.id)]
        self._interrupt_count += 1
        try:
            for utterance in utterances:
                utterance.stop_sending(Stop.CANCEL)
                if utterance.phase is Phase.QUEUED:
                    utterance.drop()
            yield utterances
        finally:
            self._interrupt_count -= 1
            self._condition.notify()

    def on_started(self, utterance_id: str) -> None:
        """Note the start of an utterance by the session's events."""
        if utterance_id in self._live:
            self._live[utterance_id].start()

    def on_paused(self, utterance_id: str) -> None:
        """Note a pause of speech by the session's events."""
        if utterance_id in self._live:
            self._live[utterance_id].pause(paused=True)

    def on_continued(self) -> None:
        """Note the end of a pause of speech."""
        for utterance in self._unfinished():
            utterance.pause(paused=False)

    def on_ended(self, outcome: Outcome) -> None:
        """Note the end of an utterance by the session's events.

        The utterance's own stream reports the end too, with the reason of a refusal, so a live stream wins.
        """
        utterance = self._live.get(outcome.utterance_id)
        if utterance is None:
            return
        if self._stream is not None and utterance.id in self._stream.utterances:
            utterance.report(outcome)
        else:
            utterance.finish(outcome)

    def fail_all(self, error: GatewayError, *, orphans_only: bool = False) -> None:
        """Fail all utterances without an outcome, or only those whose outcome only events would report."""
        for utterance in self._unfinished():
            if not orphans_only or utterance.stream_error is not None:
                utterance.fail(error)

    async def run(self) -> None:
        """Send the submitted utterances, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._condition.until(lambda: self._resumable or (self._queue and not self._interrupt_count))
                await self._resume_all(tasks)
                if self._queue and not self._interrupt_count:
                    utterance = self._queue.popleft()
                    if utterance.outcome is None:
                        await self._speak(utterance, tasks)

    async def _speak(self, utterance: UtteranceState, tasks: asyncio.TaskGroup) -> None:
        try:
            audio_format = await self._resolve_format(utterance)
        except BaseException as error:  # noqa: BLE001  a cancellation of ours is raised again
            # The error of a file belongs to the task that awaits the utterance.
            utterance.fail(_source_error(error))
            return
        if audio_format is None:
            return
        utterance.prepare(audio_format)
        stream = await self._free_stream(utterance, tasks)
        if stream is None:
            return
        async with asyncio.TaskGroup() as pumps:
            pump = pumps.create_task(self._pump(utterance), name=f"utterance-{utterance.id}/pump")
            words = pumps.create_task(self._pump_words(utterance), name=f"utterance-{utterance.id}/words")
            await self._send_on(stream, utterance)
            # The stream may have broken meanwhile: then this utterance is the last that needs another stream.
            await self._resume_all(tasks)
            pump.cancel()
            words.cancel()

    async def _resolve_format(self, utterance: UtteranceState) -> AudioFormat | None:
        """Wait for the audio format, which a pipe may withhold; return None when the utterance ended meanwhile."""
        resolving = asyncio.ensure_future(utterance.source.resolve())
        resolving.add_done_callback(lambda _: self._condition.notify())
        try:
            await self._condition.until(lambda: resolving.done() or utterance.outcome is not None)
            return resolving.result() if resolving.done() else None
        finally:
            resolving.cancel()

    async def _send_on(self, stream: AudioStream, utterance: UtteranceState) -> None:
        """Send an utterance on a stream, from its start or resumed, until it is sealed or the stream is over."""
        # Behind so many utterances the gateway may have no room, and the next must not be begun before this one.
        await_acceptance = len(stream.utterances) >= PIPELINED_UTTERANCES or utterance.not_before_mono_s > 0
        if not await stream.begin(utterance):
            await self._condition.until(lambda: stream.phase is StreamPhase.CLOSED)
            return
        try:
            async with timeout(_READY_S):
                await self._condition.until(lambda: stream.is_positioned(utterance))
        except TimeoutError:
            stream.abort()
            await self._condition.until(lambda: stream.phase is StreamPhase.CLOSED)
        if utterance.id in stream.utterances:
            await self._send(stream, utterance)
        if await_acceptance:
            await self._condition.until(lambda: utterance.accepted or utterance.id not in stream.utterances)

    async def _send(self, stream: AudioStream, utterance: UtteranceState) -> None:
        """Send audio as credit allows, then end or cancel the utterance."""
        buffer = utterance.buffer
        chunk_bytes = utterance.format.size_bytes(self._chunk_s)
        while (
            utterance.id in stream.utterances and stream.phase is not StreamPhase.CLOSED and utterance.stop is None
        ):
            await stream.send_text(utterance)
            resend_bytes = utterance.window.resend_bytes
            wanted_bytes = min(resend_bytes or buffer.size_bytes, chunk_bytes)
            size_bytes = stream.sendable_bytes(utterance, wanted_bytes, resend=bool(resend_bytes))
            if size_bytes and resend_bytes:
                await stream.resend(utterance, size_bytes)
            elif size_bytes:
                audio = buffer.take(size_bytes)
                self._condition.notify()  # the pump waits for space in the buffer
                await stream.send(utterance, audio)
            elif buffer.exhausted and not resend_bytes:
                await self._await_last_words(stream, utterance)
                if utterance.stop is None:
                    await stream.send_text(utterance)
                    await stream.end(utterance)
                    return
            else:
                await self._condition.wait()
        if utterance.phase is Phase.QUEUED:
            return
        if utterance.stop is Stop.CANCEL:
            await stream.cancel(utterance)
        elif utterance.stop is Stop.END:
            await stream.end(utterance)

    async def _await_last_words(self, stream: AudioStream, utterance: UtteranceState) -> None:
        """Wait for the words that come a moment after the last audio."""
        text = utterance.text
        with contextlib.suppress(TimeoutError):
            async with timeout(_LAST_WORDS_S):
                await self._condition.until(
                    lambda: text.is_finished or utterance.stop is not None or stream.phase is StreamPhase.CLOSED
                )

    async def _pump_words(self, utterance: UtteranceState) -> None:
        """Read the utterance's `words` beside its audio."""
        text = utterance.text
        try:
            if text.later is not None:
                async with contextlib.aclosing(pulled(text.later)) as pieces:
                    async for words in pieces:
                        text.add(words)
                        self._condition.notify()
        except BaseException as error:  # noqa: BLE001  a cancellation of ours is raised again
            utterance.stop_sending(Stop.CANCEL, _source_error(error))
        finally:
            text.finish()
            self._condition.notify()

    async def _pump(self, utterance: UtteranceState) -> None:
        """Read the utterance's source, at most two chunks ahead of what was sent."""
        buffer = utterance.buffer
        ahead_bytes = 2 * utterance.format.size_bytes(self._chunk_s)
        read_bytes = 0
        try:
            async with contextlib.aclosing(utterance.source.pieces()) as pieces:
                async for piece in pieces:
                    if isinstance(piece, TimedPiece):
                        offset_bytes = read_bytes if piece.is_relative else 0
                        utterance.text.add(piece.words, offset_s=offset_bytes / utterance.format.bytes_per_second)
                        self._condition.notify()
                        continue
                    read_bytes += memoryview(piece).nbytes
                    buffer.put(piece)
                    self._condition.notify()
                    await self._condition.until(lambda: buffer.size_bytes < ahead_bytes)
            if tail_bytes := buffer.finish():
                _log.warning(
                    "utterance %s ends inside a %d-byte sample; the last %d bytes were dropped",
                    utterance.id,
                    utterance.format.frame_bytes,
                    tail_bytes,
                )
            self._condition.notify()
        except BaseException as error:  # noqa: BLE001  a cancellation of ours is raised again
            # The error belongs to the task that awaits the utterance.
            utterance.stop_sending(Stop.CANCEL, _source_error(error))

    async def _resume_all(self, tasks: asyncio.TaskGroup) -> None:
        """Resume the utterances whose stream broke, oldest first, until none is left."""
        while self._resumable:
            utterance = self._resumable[0]
            await self._wait_until_due(utterance)
            stream = await self._connected(utterance, tasks) if utterance.outcome is None else None
            if utterance in self._resumable:
                self._resumable.remove(utterance)
            if stream is not None:
                await self._send_on(stream, utterance)

    def _postpone(self, utterance: UtteranceState, wait_s: float) -> None:
        """Schedule an utterance to be begun again, before all utterances that were submitted later."""
        utterance.postpone(asyncio.get_running_loop().time() + wait_s)
        position = {utterance_id: number for number, utterance_id in enumerate(self._live)}
        waiting = sorted((*self._resumable, utterance), key=lambda other: position.get(other.id, -1))
        self._resumable = deque(waiting)
        _log.info("audio.no_room utterance=%s wait_s=%.3f", utterance.id, wait_s)
        self._condition.notify()

    async def _wait_until_due(self, utterance: UtteranceState) -> None:
        """Wait until an utterance may be begun, or has its outcome."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(utterance.not_before_mono_s):
                await self._condition.until(lambda: utterance.outcome is not None)

    async def _free_stream(self, utterance: UtteranceState, tasks: asyncio.TaskGroup) -> AudioStream | None:
        """Return a stream of a new utterance's format, once all earlier utterances were sent.

        Returns:
            None when the utterance got its outcome meanwhile.
        """
        while utterance.outcome is None:
            await self._resume_all(tasks)
            stream = self._stream
            if stream is None or stream.phase is StreamPhase.CLOSED or stream.format == utterance.format:
                return await self._connected(utterance, tasks)
            await self._condition.until(self._others_ended(stream, utterance))
            if utterance.outcome is None and not stream.utterances and stream.phase is StreamPhase.READY:
                await self._close(stream)
        return None

    @staticmethod
    def _others_ended(stream: AudioStream, utterance: UtteranceState) -> Callable[[], bool]:
        return lambda: not stream.utterances or stream.phase is StreamPhase.CLOSED or utterance.outcome is not None

    async def _connected(self, utterance: UtteranceState, tasks: asyncio.TaskGroup) -> AudioStream | None:
        """Return the live stream, or else a new stream of the utterance's format.

        Returns:
            None when the utterance got its outcome meanwhile, or when no stream can be opened.
        """
        if self._stream is not None and self._stream.phase is StreamPhase.READY:
            return self._stream if utterance.outcome is None else None
        loop = asyncio.get_running_loop()
        if not self._resumable:
            self._lost_mono_s = None
        begun_mono_s = loop.time() if self._lost_mono_s is None else self._lost_mono_s
        delay_s, self._delay_s = self._delay_s, 0.0
        while utterance.outcome is None:
            await asyncio.sleep(delay_s)
            target = self._retries.route.current
            error = await self._open(utterance.format, target, tasks)
            if error is None:
                self._opened(target)
                return self._stream if utterance.outcome is None else None
            lost_s = loop.time() - begun_mono_s
            next_delay_s = self._retries.next_delay_s(target, error, lost_s=lost_s)
            left_s = self._resume_timeout().total_seconds() - lost_s
            if next_delay_s is None or left_s <= 0:
                final = next_delay_s is None or moved(error)
                self._give_up(utterance, error if final else given_up(error, self._resume_timeout()))
                return None
            delay_s = min(next_delay_s, left_s)
            _log.info("audio.retry delay_s=%.3f cause=%s", delay_s, error)
        return None

    async def _open(self, audio_format: AudioFormat, target: str, tasks: asyncio.TaskGroup) -> GatewayError | None:
        """Open a stream and wait for its answer; return the error of a stream that could not be opened."""
        header = pb.AudioHeader(handle=self._handle(), format=audio_format.to_proto())
        try:
            stream = AudioStream(
                await self._connect(target), header, audio_format, self._condition, on_no_room=self._postpone
            )
        except ClientError as error:
            return error
        self._stream = stream
        tasks.create_task(self._read_stream(stream, target), name="audio/read")
        try:
            async with timeout(_READY_S):
                await self._condition.until(lambda: stream.phase is not StreamPhase.OPENING)
        except TimeoutError:
            stream.abort()
            return connection_lost("the gateway did not answer the audio stream")
        if stream.phase is StreamPhase.READY:
            return None
        return stream.error or connection_lost("the gateway closed the audio stream at once")

    def _opened(self, target: str) -> None:
        if self._lost_mono_s is not None and self._resumable:
            gap_s = asyncio.get_running_loop().time() - self._lost_mono_s
            self._on_resumed(gap_s, self._retries.attempt_count, target)
        self._retries.reached()

    async def _read_stream(self, stream: AudioStream, target: str) -> None:
        """Read a stream to its end, then schedule its unfinished utterances for another stream."""
        await stream.run()
        error = stream.error or connection_lost("the gateway closed the audio stream before its utterances ended")
        left = stream.take_unfinished()
        if not left:
            # An idle stream is opened again with the next utterance.
            if isinstance(error, AudioStreamSuperseded):
                self._give_up_waiting(error)
            return
        if stream.made_progress:
            self._retries.stable()
        now_mono_s = asyncio.get_running_loop().time()
        # A gateway that accepts streams but never any audio must not extend the time for resuming.
        if stream.made_progress or self._lost_mono_s is None:
            self._lost_mono_s = now_mono_s
            late = False
        else:
            late = now_mono_s - self._lost_mono_s >= self._resume_timeout().total_seconds()
        for utterance in left:
            if utterance.reported is not None:
                utterance.finish(utterance.reported)
        self._resumable.extendleft(utterance for utterance in reversed(left) if utterance.outcome is None)
        delay_s = self._retries.next_delay_s(target, error, held=True)
        if delay_s is None or late:
            self._give_up(None, error if delay_s is None else given_up(error, self._resume_timeout()))
        else:
            self._delay_s = delay_s
            _log.info("audio.lost utterances=%d cause=%s", len(left), error)
        self._condition.notify()

    def _give_up(self, new: UtteranceState | None, error: GatewayError) -> None:
        """Fail what needs a stream. Session events still report the end of utterances that were sent in full."""
        left = list(self._resumable)
        self._resumable.clear()
        self._lost_mono_s = None
        for utterance in left:
            utterance.orphan(error)
            complete = utterance.phase is Phase.SEALED or isinstance(error, SessionEnded)
            if not (utterance.accepted and complete):
                utterance.fail(error)
        if new is not None and new not in left:
            new.fail(error)
        if isinstance(error, AudioStreamSuperseded):
            self._give_up_waiting(error)

    def _give_up_waiting(self, error: GatewayError) -> None:
        # Not only the queue: an utterance may have left the queue and wait for a stream.
        for utterance in self._unfinished():
            if utterance.phase is Phase.QUEUED:
                utterance.fail(error)
        self._condition.notify()

    async def _close(self, stream: AudioStream) -> None:
        """Close a stream whose utterances have ended."""
        await stream.half_close()
        try:
            async with timeout(_CLOSE_S):
                await self._condition.until(lambda: stream.phase is StreamPhase.CLOSED)
        except TimeoutError:
            stream.abort()
            await self._condition.until(lambda: stream.phase is StreamPhase.CLOSED)

    def _unfinished(self) -> list[UtteranceState]:
        """Return the utterances without an outcome, in order. Others are forgotten a moment later."""
        return [utterance for utterance in self._live.values() if utterance.outcome is None]

    def _forget(self, utterance: UtteranceState) -> None:
        if self._live.get(utterance.id) is utterance:
            del self._live[utterance.id]
            self._condition.notify()


def _source_error(error: BaseException) -> Exception:
    """Return the error of an utterance whose source raised `error`.

    SystemExit and KeyboardInterrupt would end the event loop, and with it every session, so they are wrapped and
    become the `__cause__`. So is a cancelled future of the source's own, which asyncio would deliver as a
    cancellation of the task that awaits the utterance.

    Raises:
        CancelledError: the task that draws from the source was cancelled, not the source.
    """
    is_cancelled = isinstance(error, asyncio.CancelledError | concurrent.futures.CancelledError)
    if isinstance(error, Exception) and not is_cancelled:
        return error
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error
    event = "was cancelled" if is_cancelled else f"raised {error!r}"
    failure = RuntimeError(f"the iterator of the audio {event}")
    failure.__cause__ = error
    return failure
