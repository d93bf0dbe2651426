"""Answers that were given to gRPC and that their callers have not read."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

import structlog

from liveavatar_gateway.core.errors import AnswersUnread, TooManyCalls
from liveavatar_gateway.rpc.connections import close_connections
from liveavatar_gateway.rpc.stream_reader import leave
from liveavatar_gateway.telemetry.limited_log import LimitedLog
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.standstill import PatientTimer

CALL_BYTES: Final = 16 * 1024
"""Memory of a call that waits for its caller, beside its answer."""
SMALL_BYTES: Final = 16 * 1024
"""Answer that is never refused: the number of calls bounds the sum of these."""
_STALLED_S: Final = 5.0
"""Time for which a connection must have read no answer before it is closed to free memory."""
_PERIOD_S: Final = 1.0
"""Shortest time between two attempts to free memory: each looks at all descriptors of the process."""

_log = LimitedLog(structlog.get_logger(__name__))


@dataclass(slots=True)
class _Unread:
    """Unread answers of one connection."""

    read_at_s: float
    """Time of the last answer that was read to its end; before that, of the first answer."""
    count: int = 0
    size_bytes: int = 0
    misses: int = 0
    """Attempts to close the connection that did not find it."""
    is_closing: bool = False


class UnreadAnswers:
    """Account of all unread answers of a process, by connection.

    A caller that does not read an answer for too long loses its call. gRPC keeps the answer of such a call until
    the caller reads it or the connection ends, and so it stays in this account. Above the limit, large answers are
    refused, and the connections that hold most of the account are closed if no call on them has read an answer for
    a while. A connection whose other calls read is kept: it may be a proxy's, with the calls of many callers.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        limit_bytes: int,
        timeout_s: float,
        close: Callable[[Collection[str]], Collection[str]] = close_connections,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without answers.

        Args:
            metrics: Counts closed connections and abandoned calls.
            limit_bytes: Size of all unread answers above which memory is freed.
            timeout_s: Time for which an answer may wait for its caller.
            close: Closes the connections of peers; returns the peers whose connections it found.
            clock: Monotonic time, seconds.
        """
        self._metrics = metrics
        self._limit_bytes = limit_bytes
        self._timeout_s = timeout_s
        self._close = close
        self._clock = clock
        self._connections: dict[str, _Unread] = {}
        self._next_free_s = -math.inf
        self.size_bytes = 0
        """Size of all unread answers."""

    def admit(self, size_bytes: int) -> None:
        """Refuse a large answer if it does not fit.

        Raises:
            TooManyCalls: too much is unread.
        """
        if size_bytes > SMALL_BYTES and self.size_bytes + size_bytes > self._limit_bytes:
            self._free(size_bytes)
            if self.size_bytes + size_bytes > self._limit_bytes:
                raise TooManyCalls("answer_bytes", self._limit_bytes)

    async def write(self, peer: str, size_bytes: int, writing: Awaitable[Any]) -> None:
        """Wait until gRPC has sent an answer. Safe to cancel; the answer is then still sent.

        Args:
            peer: Connection of the caller.
            size_bytes: Size of the answer.
            writing: Ends when the answer is sent, or cannot be sent any more.

        Raises:
            AnswersUnread: the caller has not read the answer in time.
        """
        task = asyncio.ensure_future(writing)
        self._add(peer, size_bytes + CALL_BYTES, task)
        if self.size_bytes > self._limit_bytes:
            self._free(0)
        # Cheaper than `asyncio.wait`, and most answers are sent at once.
        done = asyncio.Event()
        task.add_done_callback(lambda _: done.set())
        timer = PatientTimer(self._timeout_s, done.set)
        try:
            await done.wait()
        except asyncio.CancelledError:
            # Also if it has failed in the same moment, or its error would be logged as never retrieved.
            leave(task)
            raise
        finally:
            timer.cancel()
        if not task.done():
            leave(task)
            self._metrics.answer_unread()
            raise AnswersUnread(self._timeout_s)
        try:
            task.result()
        finally:
            # Its error refers to this frame, which would keep the answer until the next garbage collection.
            del task

    def _add(self, peer: str, size_bytes: int, task: "asyncio.Future[Any]") -> None:
        unread = self._connections.get(peer)
        if unread is None:
            unread = self._connections[peer] = _Unread(self._clock())
        unread.count += 1
        unread.size_bytes += size_bytes
        self.size_bytes += size_bytes

        def remove(done: "asyncio.Future[Any]") -> None:
            unread.count -= 1
            unread.size_bytes -= size_bytes
            self.size_bytes -= size_bytes
            if not done.cancelled() and done.exception() is None:
                unread.read_at_s = self._clock()
            if not unread.count and self._connections.get(peer) is unread:
                del self._connections[peer]

        task.add_done_callback(remove)

    def _free(self, wanted_bytes: int) -> None:
        """Close the connections with most unread bytes among those that read nothing, until the rest fits."""
        now_s = self._clock()
        if now_s < self._next_free_s:
            return
        self._next_free_s = now_s + _PERIOD_S
        closing_bytes = sum(unread.size_bytes for unread in self._connections.values() if unread.is_closing)
        excess_bytes = self.size_bytes + wanted_bytes - closing_bytes - self._limit_bytes
        stalled = [
            (unread.misses, -unread.size_bytes, peer)
            for peer, unread in self._connections.items()
            if not unread.is_closing and unread.read_at_s < now_s - _STALLED_S
        ]
        chosen: list[str] = []
        for _, negative_bytes, peer in sorted(stalled):
            if excess_bytes <= 0:
                break
            chosen.append(peer)
            excess_bytes += negative_bytes
        if not chosen:
            return
        closed = self._close(chosen)
        for peer in chosen:
            unread = self._connections[peer]
            if peer in closed:
                unread.is_closing = True
                self._metrics.connection_closed()
            else:
                # Others are tried first from now on.
                unread.misses += 1
            _log.warning(
                "rpc.connection_closed" if peer in closed else "rpc.connection_not_found",
                peer=peer,
                unread_bytes=unread.size_bytes,
            )
