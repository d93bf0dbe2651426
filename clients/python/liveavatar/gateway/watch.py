"""Watch of many sessions: one iteration over `WatchSessions` streams, which are opened again when they break."""

import asyncio
import enum
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc

from liveavatar.gateway.channel import Stream
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.errors import ClientError, GatewayError, InternalError, SessionClosed
from liveavatar.gateway.refusals import connection_lost, given_up
from liveavatar.gateway.root import RootTask
from liveavatar.gateway.runtime import ClientRuntime
from liveavatar.gateway.targets import Retries, Route
from liveavatar.gateway.v1 import session_service_pb2 as pb
from liveavatar.gateway.watch_state import (
    MAIN,
    OPEN_ATTEMPTS,
    Refusal,
    WatchChange,
    WatchedEvent,
    WatchGap,
    WatchRemoved,
    WatchResumed,
    WatchSnapshot,
    WatchState,
)

_log = logging.getLogger(__name__)

_Resumed: TypeAlias = Callable[[], Iterable[WatchChange]]
WatchCall: TypeAlias = Stream[pb.WatchSessionsRequest, pb.WatchSessionsResponse]

RESUME_TIMEOUT = timedelta(seconds=60)
"""Time for which to try to open a lost watch again, unless the client has a `resume_timeout`."""
_STABLE_S = 5.0
_RENEWED_S = 0.1
# Delay of a side stream with a renewed credential: a gateway may accept and refuse it in turn.


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPace:
    """Bound of a watch's buffer, and the times after which a stream counts as dead."""

    max_unread: int = 1000
    """Changes that wait for the reader. At this number reading pauses, and a WatchGap may follow."""
    answer_s: float = 10.0
    """Longest wait for an answer. Lower retries sooner, higher suits slow networks."""
    silence_s: float = 20.0
    """Silence of the gateway after which it is asked for progress; above its usual interval of 15 s."""
    write_silence_s: float = 20.0
    """Silence of this side after which the gateway is asked for progress, so that no proxy takes the stream for
    idle. Below the 60 s of most proxies."""
    check_s: float = 1.0
    """Interval of these checks."""


class _CallPhase(enum.Enum):
    """State of one call of a watch."""

    OPENING = enum.auto()
    """Nothing was received yet."""
    LIVE = enum.auto()
    """The gateway has answered."""
    UNANSWERED = enum.auto()
    """Cancelled by this side, since the gateway never answered."""
    SILENT = enum.auto()
    """Cancelled by this side, since the gateway stopped answering."""


_CANCELLED = {_CallPhase.OPENING: _CallPhase.UNANSWERED, _CallPhase.LIVE: _CallPhase.SILENT}


class _WatchStream:
    """Call of a watch, and the time of its last message."""

    def __init__(self, call: WatchCall, now_mono_s: float) -> None:
        self.call = call
        # Bound: one entry per session that is added or removed, and one request for progress.
        self.outbox: asyncio.Queue[pb.WatchSessionsRequest] = asyncio.Queue()
        self.phase = _CallPhase.OPENING
        self.received_mono_s = now_mono_s
        self._delivering = False
        self._progress_requested = False

    @property
    def answered(self) -> bool:
        """True once a message was received."""
        return self.phase in (_CallPhase.LIVE, _CallPhase.SILENT)

    def begin_delivery(self) -> None:
        """Note a message that is being handed to the reader, who may be slow."""
        self._progress_requested, self._delivering = False, True

    def end_delivery(self, now_mono_s: float) -> None:
        """Note that the message was handed to the reader."""
        self._delivering, self.received_mono_s = False, now_mono_s

    def answer(self) -> bool:
        """Note a message; return True for the first message."""
        first = self.phase is _CallPhase.OPENING
        if first:
            self.phase = _CallPhase.LIVE
        return first

    def check(self, now_mono_s: float, pace: WatchPace) -> bool:
        """Ask for progress if need be; return False after cancelling a call without an answer.

        A slow reader is no reason to cancel.
        """
        silent_s = now_mono_s - self.received_mono_s
        if self.answered and self.call.unwritten_s >= pace.write_silence_s:
            self._request_progress()
        if self._delivering or silent_s < pace.answer_s:
            return True
        if not self.answered or silent_s >= pace.silence_s + pace.answer_s:
            self.phase = _CANCELLED[self.phase]
            self.call.cancel()
            return False
        if silent_s >= pace.silence_s:
            self._request_progress()
        return True

    def _request_progress(self) -> None:
        """Ask for progress, once until the next message."""
        if not self._progress_requested:
            self._progress_requested = True
            self.outbox.put_nowait(pb.WatchSessionsRequest(progress=pb.ProgressRequest()))


class WatchPhase(enum.Enum):
    """State of a watch. Each phase is entered once, in this order; OPENING may be followed by OVER."""

    OPENING = enum.auto()
    """No gateway has answered yet."""
    OPEN = enum.auto()
    """A gateway has answered. A broken stream is opened again."""
    OVER = enum.auto()
    """Closed, complete or failed."""


class AsyncWatch:
    """Events of many sessions, until the reader leaves the block.

    Use it as `async with client.watch(...) as changes:` and iterate over it. Watching neither attaches to a
    session nor slows it down. A broken stream is opened again, at any of the client's targets, and continues
    behind the last event of each session. A session that another gateway process owns is watched at that process.

    One task reads. A watch belongs to the event loop in which it was opened.
    """

    def __init__(
        self,
        runtime: ClientRuntime,
        sessions: Mapping[str, int],
        labels: Mapping[str, str] | None,
        *,
        open_timeout_s: float | None,
        resume_timeout: timedelta | None,
        pace: WatchPace | None = None,
    ) -> None:
        """Prepare a watch; clients do this in `watch`."""
        self._runtime = runtime
        self._labels = labels
        self._open_timeout_s = open_timeout_s
        self._resume_timeout = RESUME_TIMEOUT if resume_timeout is None else resume_timeout
        self._pace = pace or WatchPace()
        self._condition = Condition()
        self._route = Route(runtime.targets, runtime.route.current)
        self._state = WatchState(runtime.targets)
        for session_id, after_sequence in sessions.items():
            self._state.add(session_id, after_sequence)
        self._read = dict(sessions)
        self._unread: deque[WatchChange] = deque()
        self._streams: dict[str, _WatchStream] = {}
        self._side_tasks: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._root = RootTask("watch", runtime, self._condition, self.close)
        self._phase = WatchPhase.OPENING
        self._error: GatewayError | None = None

    def __repr__(self) -> str:
        state = "not open" if self._phase is WatchPhase.OPENING else self._phase.name.lower()
        return f"<{type(self).__name__} {len(self._state)} sessions {state}>"

    @property
    def sequences(self) -> Mapping[str, int]:
        """Sequence of the last event read of each watched session; given to `watch`, it continues from here."""
        return dict(self._read)

    @property
    def connected(self) -> bool:
        """True while the stream is up; otherwise it is being opened again, or is over."""
        stream = self._streams.get(MAIN)
        return stream is not None and stream.phase is _CallPhase.LIVE

    async def open(self) -> Self:
        """Open the watch and wait until the gateway has answered. `async with` does this.

        Raises:
            DeadlineExceeded: no answer within the `timeout` of `watch`.
            GatewayError: the gateway refused.
        """
        await self._root.open(
            self._run,
            opened=lambda: self._phase is WatchPhase.OPEN or (self._is_over() and self._error is None),
            failure=lambda: self._error,
            abandon=self._abandon,
            timeout_s=self._open_timeout_s,
        )
        return self

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchChange:
        change = await self.next()
        if change is None:
            raise StopAsyncIteration
        return change

    async def next(self) -> WatchChange | None:
        """Wait for the next change; None after `close`, or once the last session named by id has ended.

        Raises:
            ConnectionLost: no gateway was reachable for `resume_timeout` (default 60 s).
            GatewayError: the gateway refused the watch.
        """
        if not self._root.started:
            raise SessionClosed(
                "the watch is not open; use `async with`, or await open()",
                code=grpc.StatusCode.FAILED_PRECONDITION,
            )
        await self._condition.until(lambda: self._unread or self._is_over())
        if self._unread:
            change = self._unread.popleft()
            self._note(change)
            self._condition.notify()
            return change
        if self._error is not None:
            raise self._error
        return None

    def add(self, session_id: str, after_sequence: int = 0) -> None:
        """Watch another session. Has no effect when the watch is over.

        Args:
            session_id: Id of the session. An unknown id is answered by a `WatchRemoved`.
            after_sequence: Sequence of the last known event. Default: begin with a snapshot.
        """
        self._state.add(session_id, after_sequence)
        self._read[session_id] = after_sequence
        self._ask(session_id)

    def remove(self, session_id: str) -> None:
        """Stop watching a session, also if its labels match; a `WatchRemoved` confirms the removal."""
        stream = self._state.stream(session_id)
        self._state.remove(session_id)
        self._unread.append(WatchRemoved(session_id=session_id, error=None))
        if stream in self._streams:
            request = pb.WatchSessionsRequest(remove=pb.RemoveWatch(session_id=session_id))
            self._streams[stream].outbox.put_nowait(request)
        self._condition.notify()

    async def close(self) -> None:
        """Stop watching. Idempotent."""
        await self._abandon()

    def _abandon(self) -> Coroutine[Any, Any, None]:
        """Mark the watch as over at once; the returned coroutine waits for its tasks."""
        self._phase = WatchPhase.OVER
        return self._root.close()

    async def _run(self) -> None:
        """Run all streams to their end."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                main = tasks.create_task(self._main(), name="watch/main")
                await self._condition.until(lambda: self._is_over() or self._complete())
                self._phase = WatchPhase.OVER
                for task in (main, *self._side_tasks.values()):
                    task.cancel()
        except Exception as bug:  # noqa: BLE001  a task's root: the watch ends with this error
            _log.exception("watch.fault")
            self._error = InternalError(f"a bug in this library: {bug!r}", code=grpc.StatusCode.INTERNAL)
        finally:
            self._phase = WatchPhase.OVER
            self._condition.notify()

    def _is_over(self) -> bool:
        return self._phase is WatchPhase.OVER

    def _complete(self) -> bool:
        """Return True when no session named by id is left to watch."""
        return self._labels is None and self._phase is WatchPhase.OPEN and not self._state

    async def _main(self) -> None:
        """Keep the main stream open, at any target, until it fails for good."""
        try:
            self._error = await self._kept()
        finally:
            self._phase = WatchPhase.OVER
            self._condition.notify()

    async def _kept(self) -> GatewayError:
        loop = asyncio.get_running_loop()
        retries = Retries(self._route, renewal=self._runtime.renewal())
        lost_mono_s: float | None = None
        while True:
            target, began_mono_s = self._route.current, loop.time()

            def resumed(target: str = target, since_mono_s: float | None = lost_mono_s) -> Iterator[WatchResumed]:
                if since_mono_s is not None:
                    gap = timedelta(seconds=loop.time() - since_mono_s)
                    yield WatchResumed(gap=gap, attempt_count=retries.attempt_count, target=target)
                retries.reached()

            error, held = await self._stream(MAIN, target, resumed)
            now_mono_s = loop.time()
            self._state.lost(MAIN, now_mono_s)
            if held:
                lost_mono_s = now_mono_s
                if now_mono_s - began_mono_s >= _STABLE_S:
                    retries.stable()
            lost_s = inf if lost_mono_s is None else now_mono_s - lost_mono_s
            delay_s = retries.next_delay_s(target, error, held=held, lost_s=lost_s)
            if delay_s is None or (lost_mono_s is None and retries.round_count >= OPEN_ATTEMPTS):
                return error
            left_s = self._resume_timeout.total_seconds() - lost_s
            if lost_mono_s is not None:
                if left_s <= 0 and not held:
                    return given_up(error, self._resume_timeout)
                delay_s = min(delay_s, max(left_s, 0))
            _log.info("watch.retry delay_s=%.3f cause=%s", delay_s, error)
            await asyncio.sleep(delay_s)

    async def _side(self, target: str) -> None:
        """Run a stream to a process that was named as the owner of sessions."""
        renewal = self._runtime.renewal()
        while True:
            error, held = await self._stream(target, target, tuple)
            if held:
                renewal.reset()
            if not renewal.allows(error):
                break
            self._state.lost(target, asyncio.get_running_loop().time())
            await asyncio.sleep(_RENEWED_S)
        del self._side_tasks[target]
        self._state.lost(target, asyncio.get_running_loop().time())
        for session_id in self._state.sessions_on(target):
            await self._relocate(session_id, target, error)

    async def _stream(self, name: str, target: str, resumed: _Resumed) -> tuple[GatewayError, bool]:
        """Run one call to its end; return the error that ended it, and True if the gateway had answered."""
        try:
            stream = _WatchStream(await self._runtime.watch(target), asyncio.get_running_loop().time())
        except ClientError as refusal:
            return refusal, False
        self._streams[name] = stream
        try:
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(self._write_all(name, stream), name="watch/write")
                probing = tasks.create_task(self._probe(stream), name="watch/probe")
                error = await self._read_all(name, target, stream, resumed)
                writing.cancel()
                probing.cancel()
        finally:
            del self._streams[name]
            stream.call.cancel()
        return error, stream.answered

    async def _read_all(self, name: str, target: str, stream: _WatchStream, resumed: _Resumed) -> GatewayError:
        loop = asyncio.get_running_loop()
        try:
            while (message := await stream.call.read()) is not None:
                if stream.answer():
                    await self._put(resumed())
                    if self._phase is WatchPhase.OPENING:
                        self._phase = WatchPhase.OPEN
                        self._condition.notify()
                stream.begin_delivery()
                for change in self._state.take(name, message):
                    if isinstance(change, Refusal):
                        await self._relocate(change.session_id, target, change.error)
                    else:
                        await self._put((change,))
                stream.end_delivery(loop.time())
                if not self._state.wants(name):
                    break
        except GatewayError as error:
            was_cancelled = stream.phase in _CANCELLED.values()
            return connection_lost("the gateway did not answer the watch") if was_cancelled else error
        return connection_lost("the gateway closed the watch")

    async def _write_all(self, name: str, stream: _WatchStream) -> None:
        """Send requests for the watched sessions, then the requests of the outbox.

        Known sessions come first, so that the filter by labels brings no snapshot of them.
        """
        for session_id in self._state.sessions_on(name):
            if self._state.stream(session_id) == name and not await stream.call.write(
                self._state.request(session_id)
            ):
                return
        if name == MAIN and self._labels is not None:
            filtering = pb.WatchSessionsRequest(filter=pb.WatchFilter(labels=self._labels))
            if not await stream.call.write(filtering):
                return
        # The answer proves that the gateway lives, and comes once all present sessions were reported.
        if not await stream.call.write(pb.WatchSessionsRequest(progress=pb.ProgressRequest())):
            return
        while await stream.call.write(await stream.outbox.get()):
            pass

    async def _probe(self, stream: _WatchStream) -> None:
        """Check a stream again and again, until it is cancelled for its silence."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._pace.check_s)
            if not stream.check(loop.time(), self._pace):
                return

    async def _relocate(self, session_id: str, target: str, error: GatewayError) -> None:
        """Look for a session at another process, or report that it is no longer watched."""
        loop = asyncio.get_running_loop()
        delay_s = self._state.relocate(
            session_id,
            target,
            error,
            main_target=self._route.current,
            now_mono_s=loop.time(),
            resume_timeout_s=self._resume_timeout.total_seconds(),
        )
        if delay_s is None:
            await self._put((WatchRemoved(session_id=session_id, error=error),))
        else:
            loop.call_later(delay_s, self._ask, session_id)

    def _ask(self, session_id: str) -> None:
        """Request a session on its stream. A side stream is opened; the main stream asks once it is open."""
        name = self._state.stream(session_id)
        if name is None or self._is_over() or self._tasks is None:
            return
        if name in self._streams:
            self._streams[name].outbox.put_nowait(self._state.request(session_id))
        elif name != MAIN and name not in self._side_tasks:
            self._side_tasks[name] = self._tasks.create_task(self._side(name), name=f"watch/{name}")

    def _note(self, change: WatchChange) -> None:
        """Keep the sequence that the reader has reached."""
        match change:
            case WatchSnapshot() | WatchedEvent():
                self._read[change.session_id] = change.sequence
            case WatchGap():
                self._read[change.session_id] = change.last_sequence
            case WatchRemoved():
                self._read.pop(change.session_id, None)

    async def _put(self, changes: Iterable[WatchChange]) -> None:
        """Append changes for the reader; wait while the reader has `max_unread`.

        A WatchRemoved never waits: after the last of them the watch ends, and would cancel this wait.
        """
        for change in changes:
            if not isinstance(change, WatchRemoved):
                await self._condition.until(lambda: len(self._unread) < self._pace.max_unread)
            self._unread.append(change)
            self._condition.notify()
