"""Watching many sessions: the streams of `WatchSessions`, opened again when they break, behind one iteration."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from types import TracebackType
from typing import Self, TypeAlias

import grpc

from liveavatar.gateway.channel import Stream
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.errors import ClientError, DeadlineExceeded, GatewayError, InternalError, SessionClosed
from liveavatar.gateway.refusals import connection_lost, given_up
from liveavatar.gateway.runtime import ClientRuntime
from liveavatar.gateway.targets import Retries, Route
from liveavatar.gateway.timeouts import timeout
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

PATIENCE = timedelta(seconds=60)
"""How long a lost watch is tried to be opened again, unless the client says otherwise."""
_STABLE_S = 5.0
_CLOSE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPace:
    """How much a watch keeps for its reader, and when it takes a stream for dead."""

    max_unread: int = 1000
    """Changes that wait for the reader; above that nothing is read, and the gateway tells what was missed."""
    answer_s: float = 10.0
    """How long a stream may take to answer. Lower tries again sooner, higher suits slow networks."""
    silence_s: float = 20.0
    """How long a stream may be silent before it is asked whether it lives; above the gateway's usual 15 s."""
    upward_s: float = 20.0
    """Longest silence in the direction of the gateway: then it is asked for progress, so that no proxy on the way
    takes the stream for idle. Below the 60 s that most proxies wait."""
    look_s: float = 1.0
    """How often it is looked at."""


class _Line:
    """One stream while it lives, and when it was heard of last."""

    def __init__(self, call: WatchCall, now_mono_s: float) -> None:
        self.call = call
        # Bound: one entry per session that is added or removed, and one for a question.
        self.outbox: asyncio.Queue[pb.WatchSessionsRequest] = asyncio.Queue()
        self.heard = False
        self.heard_mono_s = now_mono_s
        self.handing_on = False
        self.asked = False
        self.silent = False

    def ask(self) -> None:
        """Ask for progress, at most once until anything is heard."""
        self.asked = True
        self.outbox.put_nowait(pb.WatchSessionsRequest(progress=pb.ProgressRequest()))


class AsyncWatch:
    """What happens in many sessions, until the reader leaves the block.

    Use it as `async with client.watch(...) as changes:` and iterate over it. Watching neither holds a session nor
    slows it down. A broken stream is opened again, at any of the client's targets, and goes on behind the last
    event of each session. A session that another process has is watched there.

    One reader. Belongs to the event loop it was opened in.
    """

    def __init__(
        self,
        scope: ClientRuntime,
        sessions: Mapping[str, int],
        labels: Mapping[str, str] | None,
        *,
        open_timeout_s: float | None,
        patience: timedelta | None,
        pace: WatchPace | None = None,
    ) -> None:
        """Prepare a watch; clients do this in `watch`."""
        self._scope = scope
        self._labels = labels
        self._open_timeout_s = open_timeout_s
        self._patience = PATIENCE if patience is None else patience
        self._pace = pace or WatchPace()
        self._changes = Condition()
        self._route = Route(scope.targets, scope.route.current)
        self._book = WatchState(scope.targets)
        for session_id, after_sequence in sessions.items():
            self._book.add(session_id, after_sequence)
        self._read = dict(sessions)
        self._unread: deque[WatchChange] = deque()
        self._lines: dict[str, _Line] = {}
        self._sides: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._root: asyncio.Task[None] | None = None
        self._opened = False
        self._over = False
        self._error: GatewayError | None = None

    def __repr__(self) -> str:
        state = "over" if self._over else "open" if self._opened else "not open"
        return f"<{type(self).__name__} {len(self._book)} sessions {state}>"

    @property
    def sequences(self) -> Mapping[str, int]:
        """The last event that was read of each watched session: what to give to `watch` to go on from here."""
        return dict(self._read)

    @property
    def connected(self) -> bool:
        """Whether the stream is up now; while it is not, it is being opened again."""
        line = self._lines.get(MAIN)
        return line is not None and line.heard

    async def open(self) -> Self:
        """Begin to watch and wait until the gateway has answered. `async with` does this.

        Raises:
            DeadlineExceeded: no answer within the `timeout` the watch was made with.
            GatewayError: it was refused.
        """
        if self._root is not None:
            raise SessionClosed("a watch is opened once", code=grpc.StatusCode.FAILED_PRECONDITION)
        self._scope.adopt(self)
        # The one task that is not in a group: it is the root of the watch's, and `close` waits for it.
        self._root = asyncio.create_task(self._run(), name="watch/run")
        try:
            async with timeout(self._open_timeout_s):
                await self._changes.until(lambda: self._opened or self._over)
        except TimeoutError as error:
            await self.close()
            raise DeadlineExceeded(
                f"no gateway answered the watch within {self._open_timeout_s} s",
                code=grpc.StatusCode.DEADLINE_EXCEEDED,
            ) from error
        except asyncio.CancelledError:
            self._scope.spawn(self.close(), "watch/close")
            raise
        if not self._opened and self._error is not None:
            await self.close()
            raise self._error
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
        """The next change; None at the end: after `close`, and of sessions named by id when the last has ended.

        Raises:
            ConnectionLost: no gateway could be reached for `resume_timeout` (default 60 s).
            GatewayError: the watch was refused.
        """
        if self._root is None:
            raise SessionClosed(
                "the watch is not open; use `async with`, or await open()",
                code=grpc.StatusCode.FAILED_PRECONDITION,
            )
        await self._changes.until(lambda: self._unread or self._over)
        if self._unread:
            change = self._unread.popleft()
            self._note(change)
            self._changes.notify()
            return change
        if self._error is not None:
            raise self._error
        return None

    def add(self, session_id: str, after_sequence: int = 0) -> None:
        """Watch one session more; nothing happens when the watch is over.

        Args:
            session_id: Which. Unknown: answered with a `WatchRemoved`.
            after_sequence: Events up to this one are known. Default: begin with a snapshot.
        """
        self._book.add(session_id, after_sequence)
        self._read[session_id] = after_sequence
        self._ask(session_id)

    def remove(self, session_id: str) -> None:
        """Watch one session less, also when the labels fit; a `WatchRemoved` says that it is so."""
        line = self._book.line(session_id)
        self._book.remove(session_id)
        self._unread.append(WatchRemoved(session_id=session_id, error=None))
        if line in self._lines:
            request = pb.WatchSessionsRequest(remove=pb.RemoveWatch(session_id=session_id))
            self._lines[line].outbox.put_nowait(request)
        self._changes.notify()

    async def close(self) -> None:
        """Stop watching. Idempotent."""
        self._scope.release(self)
        self._over = True
        if self._root is not None and not self._root.done():
            self._root.cancel()
            await asyncio.wait({self._root}, timeout=_CLOSE_S)

    async def leave(self) -> None:
        """What closing the client does."""
        await self.close()

    async def _run(self) -> None:
        """The watch's root task: all of its streams live in it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                main = tasks.create_task(self._main(), name="watch/main")
                await self._changes.until(lambda: self._over or self._complete())
                self._over = True
                for task in (main, *self._sides.values()):
                    task.cancel()
        except Exception as bug:  # noqa: BLE001  the root: the watch is over for a reason
            _log.exception("watch.fault")
            self._error = InternalError(f"a fault in this library: {bug!r}", code=grpc.StatusCode.INTERNAL)
        finally:
            self._over = True
            self._changes.notify()

    def _complete(self) -> bool:
        return self._labels is None and self._opened and not self._book

    async def _main(self) -> None:
        """The stream that is always there, at one target after the other."""
        try:
            self._error = await self._kept()
        finally:
            self._over = True
            self._changes.notify()

    async def _kept(self) -> GatewayError:
        loop = asyncio.get_running_loop()
        retries = Retries(self._route)
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
            self._book.lost(MAIN, now_mono_s)
            if held:
                lost_mono_s = now_mono_s
                if now_mono_s - began_mono_s >= _STABLE_S:
                    retries.stable()
            lost_s = inf if lost_mono_s is None else now_mono_s - lost_mono_s
            delay_s = retries.next_delay_s(target, error, held=held, lost_s=lost_s)
            if delay_s is None or (lost_mono_s is None and retries.round_count >= OPEN_ATTEMPTS):
                return error
            left_s = self._patience.total_seconds() - lost_s
            if lost_mono_s is not None:
                if left_s <= 0 and not held:
                    return given_up(error, self._patience)
                delay_s = min(delay_s, max(left_s, 0))
            _log.info("watch.retry delay_s=%.3f cause=%s", delay_s, error)
            await asyncio.sleep(delay_s)

    async def _side(self, target: str) -> None:
        """A stream to a process that was named, for the sessions it has."""
        error, _ = await self._stream(target, target, tuple)
        del self._sides[target]
        self._book.lost(target, asyncio.get_running_loop().time())
        for session_id in self._book.on(target):
            await self._roam(session_id, target, error)

    async def _stream(self, name: str, target: str, resumed: _Resumed) -> tuple[GatewayError, bool]:
        """One stream, from its first request to its end; says why it ended, and whether it had been answered."""
        try:
            line = _Line(self._scope.watch(target), asyncio.get_running_loop().time())
        except ClientError as refusal:
            return refusal, False
        self._lines[name] = line
        try:
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(self._write_all(name, line), name="watch/write")
                probing = tasks.create_task(self._probe(line), name="watch/probe")
                error = await self._read_all(name, target, line, resumed)
                writing.cancel()
                probing.cancel()
        finally:
            del self._lines[name]
            line.call.cancel()
        return error, line.heard

    async def _read_all(self, name: str, target: str, line: _Line, resumed: _Resumed) -> GatewayError:
        loop = asyncio.get_running_loop()
        try:
            while (message := await line.call.read()) is not None:
                if not line.heard:
                    line.heard = True
                    await self._put(resumed())
                    self._opened = True
                    self._changes.notify()
                line.asked, line.handing_on = False, True
                for change in self._book.take(name, message):
                    if isinstance(change, Refusal):
                        await self._roam(change.session_id, target, change.error)
                    else:
                        await self._put((change,))
                line.handing_on, line.heard_mono_s = False, loop.time()
                if not self._book.wants(name):
                    break
        except GatewayError as error:
            return connection_lost("the gateway did not answer the watch") if line.silent else error
        return connection_lost("the gateway closed the watch")

    async def _write_all(self, name: str, line: _Line) -> None:
        """Ask for what is watched, then for what comes up.

        Known sessions are first: labels then bring no snapshot of them.
        """
        for session_id in self._book.on(name):
            if self._book.line(session_id) == name and not await line.call.write(self._book.request(session_id)):
                return
        if name == MAIN and self._labels is not None:
            filtering = pb.WatchSessionsRequest(filter=pb.WatchFilter(labels=self._labels))
            if not await line.call.write(filtering):
                return
        # Its answer says that the gateway is there, and comes when all that was there is told.
        if not await line.call.write(pb.WatchSessionsRequest(progress=pb.ProgressRequest())):
            return
        while await line.call.write(await line.outbox.get()):
            pass

    async def _probe(self, line: _Line) -> None:
        """Give up a stream that nothing comes on, though it was asked. A reader that is slow is no reason."""
        loop, pace = asyncio.get_running_loop(), self._pace
        while True:
            await asyncio.sleep(pace.look_s)
            silent_s = loop.time() - line.heard_mono_s
            if line.heard and not line.asked and line.call.unwritten_s >= pace.upward_s:
                line.ask()
            if line.handing_on or silent_s < pace.answer_s:
                continue
            if not line.heard or silent_s >= pace.silence_s + pace.answer_s:
                line.silent = True
                line.call.cancel()
                return
            if silent_s >= pace.silence_s and not line.asked:
                line.ask()

    async def _roam(self, session_id: str, target: str, error: GatewayError) -> None:
        """Ask another process for a session, or tell that it is watched no more."""
        loop = asyncio.get_running_loop()
        delay_s = self._book.roam(
            session_id,
            target,
            error,
            main_target=self._route.current,
            now_mono_s=loop.time(),
            patience_s=self._patience.total_seconds(),
        )
        if delay_s is None:
            await self._put((WatchRemoved(session_id=session_id, error=error),))
        else:
            loop.call_later(delay_s, self._ask, session_id)

    def _ask(self, session_id: str) -> None:
        """Ask for a session on its stream, which is opened for it if need be; the main one is when it is up."""
        name = self._book.line(session_id)
        if name is None or self._over or self._tasks is None:
            return
        if name in self._lines:
            self._lines[name].outbox.put_nowait(self._book.request(session_id))
        elif name != MAIN and name not in self._sides:
            self._sides[name] = self._tasks.create_task(self._side(name), name=f"watch/{name}")

    def _note(self, change: WatchChange) -> None:
        """Keep how far the reader has come."""
        match change:
            case WatchSnapshot() | WatchedEvent():
                self._read[change.session_id] = change.sequence
            case WatchGap():
                self._read[change.session_id] = change.last_sequence
            case WatchRemoved():
                self._read.pop(change.session_id, None)

    async def _put(self, changes: Iterable[WatchChange]) -> None:
        """Hand on to the reader; waits while it has enough.

        Not for the last word on a session: once nothing is watched any more, nobody waits for who still does.
        """
        for change in changes:
            if not isinstance(change, WatchRemoved):
                await self._changes.until(lambda: len(self._unread) < self._pace.max_unread)
            self._unread.append(change)
            self._changes.notify()
