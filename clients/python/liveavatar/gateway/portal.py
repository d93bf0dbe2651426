"""Event loop in a thread of its own, for callers without an event loop."""

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from math import inf
from typing import Any, TypeVar

import grpc

from liveavatar.gateway.errors import ClientClosed, DeadlineExceeded
from liveavatar.gateway.forks import require_no_fork

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)

_LATE_S = 1.0
# Extra wait for a busy loop: the loop measures the timeout, so that no result that came in time is lost. After the
# extra wait the loop counts as stuck.
_ANSWER_S = 2.0
# Longest time for an empty task before the loop counts as stuck, beside the extra wait.
_CHECK_S = 0.5
# Interval at which a waiting call checks that the loop still runs.
_JOIN_S = 10.0
# Longest wait of `close` for the loop to cancel its tasks. The thread is a daemon, so it keeps no process alive.


class Portal:
    """Runner of coroutines for any number of threads. After `close` every call raises ClientClosed.

    Invariant: no call waits for a loop that has ended. The thread is a daemon, so it keeps no process alive.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        started: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = (
            concurrent.futures.Future()
        )
        self._pid = os.getpid()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(started,), name="liveavatar-client", daemon=True)
        self._thread.start()
        self._loop, self._stop = started.result()

    @property
    def forked(self) -> bool:
        """True in a fork of the process that runs the thread."""
        return os.getpid() != self._pid

    @property
    def broken(self) -> bool:
        """True when the loop has ended although the portal was not closed."""
        return not self._closed and not self._thread.is_alive()

    def require_running(self) -> None:
        """Refuse to continue without a running loop; waits a moment for a loop that may be stuck.

        Raises:
            ClientClosed: the portal was closed, or its loop has ended.
            DeadlineExceeded: the loop is stuck, as under a call that blocks it.
        """
        self.call(asyncio.sleep(0), bound_s=_ANSWER_S)

    @property
    def stuck(self) -> bool:
        """True when the loop runs no tasks.

        Raises:
            ClientClosed: the portal was closed, or its loop has ended.
        """
        try:
            self.require_running()
        except DeadlineExceeded:
            return True
        return False

    def call(
        self,
        work: Coroutine[Any, Any, _Result],
        timeout_s: float | None = None,
        *,
        bound_s: float | None = None,
    ) -> _Result:
        """Run a coroutine and wait for its result. A timeout cancels the coroutine, and so does Ctrl-C.

        Args:
            work: Coroutine to run.
            timeout_s: Seconds that the coroutine may take.
            bound_s: Seconds after which the coroutine ends by itself; only a stuck loop takes longer.

        Raises:
            ClientClosed: the portal was closed, before or meanwhile, or its loop has ended.
            DeadlineExceeded: the coroutine took longer than `timeout_s`, or than `bound_s` and a moment.
            ForkedClient: this process was forked after the portal was created.
            RuntimeError: called in the portal's own thread, where the call would wait for itself.
        """
        try:
            future = self._start(work, timeout_s)
        except BaseException:
            work.close()
            raise
        try:
            return self._result(future, bound_s if timeout_s is None else timeout_s)
        except concurrent.futures.CancelledError as error:
            work.close()  # it may never have started
            raise self._closed_error() from error
        except _Exit as exit_:
            raise exit_.error from None
        except BaseException:
            future.cancel()
            raise

    def _start(
        self, work: Coroutine[Any, Any, _Result], timeout_s: float | None
    ) -> "concurrent.futures.Future[_Result]":
        """Pass work to the loop."""
        # Before the lock, which another thread of the parent may have held at the fork.
        require_no_fork(self._pid)
        if threading.current_thread() is self._thread:
            msg = "a blocking call inside the client's own thread would wait for itself"
            raise RuntimeError(msg)
        # The loop measures the time: measured here, a timeout could discard the result of finished work.
        timed = _within(work, timeout_s)
        with self._lock:
            if not self._closed and self._thread.is_alive():
                # RuntimeError: the loop was closed at this moment.
                with contextlib.suppress(RuntimeError):
                    return asyncio.run_coroutine_threadsafe(timed, self._loop)
        timed.close()
        raise self._closed_error()

    def _result(self, future: "concurrent.futures.Future[_Result]", limit_s: float | None) -> _Result:
        """Wait for work in the loop, as long as the loop runs.

        Raises:
            ClientClosed: the loop has ended.
            DeadlineExceeded: the loop is stuck, past `limit_s` and a moment.
        """
        until_mono_s = inf if limit_s is None else time.monotonic() + limit_s + _LATE_S
        while True:
            wait_s = min(until_mono_s - time.monotonic(), _CHECK_S)
            try:
                return future.result(max(wait_s, 0.0))
            except TimeoutError as error:
                # `result` also raises a TimeoutError of the work itself, and the work may be done by now.
                if future.done():
                    return future.result()
                if not self._thread.is_alive():
                    raise self._closed_error() from error
                if time.monotonic() >= until_mono_s:
                    raise DeadlineExceeded(
                        f"no answer within {limit_s} s: the client's event loop is stuck, for example in a "
                        "blocking call",
                        code=grpc.StatusCode.DEADLINE_EXCEEDED,
                    ) from error

    def run(self, function: Callable[[], _Result]) -> _Result:
        """Run a short function in the loop's thread."""

        async def work() -> _Result:
            return function()

        return self.call(work())

    def iterate(
        self, items: AsyncIterator[_Result], timeout_s: float | None, *, bound_s: float | None = None
    ) -> Iterator[_Result]:
        """Iterate over an async iterator of the loop; each item may take `timeout_s`, or ends within `bound_s`.

        Raises:
            DeadlineExceeded: while iterating; no item came in time.
        """

        async def draw() -> tuple[_Result] | None:
            try:
                return (await anext(items),)
            except StopAsyncIteration:
                return None

        while (item := self.call(draw(), timeout_s, bound_s=bound_s)) is not None:
            yield item[0]

    def close(self) -> None:
        """Cancel all tasks, stop the loop and wait for its thread. Idempotent; has no effect in a fork."""
        if self.forked:
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                if self._thread.is_alive():
                    self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            _log.warning("client.thread_late")

    def _run(self, started: "concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]") -> None:
        try:
            asyncio.run(_serve(started))
        except BaseException as error:  # noqa: BLE001  a thread's root: later calls raise the error
            self._fault = error
            if not started.done():
                started.set_exception(error)
            _log.error("client.loop_ended cause=%r", error)

    def _closed_error(self) -> ClientClosed:
        if self._closed:
            return ClientClosed("this client was closed; create another", code=grpc.StatusCode.CANCELLED)
        refusal = ClientClosed(
            f"this client's event loop has ended, by {self._fault!r}; close the client and create another",
            code=grpc.StatusCode.CANCELLED,
        )
        refusal.__cause__ = self._fault
        return refusal


async def _within(work: Coroutine[Any, Any, _Result], timeout_s: float | None) -> _Result:
    """Run a coroutine with a timeout that never discards its result.

    Raises:
        DeadlineExceeded: the coroutine took longer than `timeout_s`.
    """
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            return await work
    except (SystemExit, KeyboardInterrupt) as error:
        # Raised in a task, these would end the loop and with it every session; the caller's thread raises them.
        raise _Exit(error) from None
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlineExceeded(
            f"no answer within {timeout_s} s", code=grpc.StatusCode.DEADLINE_EXCEEDED
        ) from error


async def _serve(started: "concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]") -> None:
    """Keep the loop alive until `stop` is set; `asyncio.run` then cancels all tasks."""
    stop = asyncio.Event()
    started.set_result((asyncio.get_running_loop(), stop))
    await stop.wait()


class _Exit(Exception):
    """SystemExit or KeyboardInterrupt, on its way from the loop to the calling thread."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error
