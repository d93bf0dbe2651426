"""An event loop in a thread of its own, for callers that have none."""

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
# How much longer than its time a call waits for a loop that is busy: its timeout is taken there, so that nothing
# is lost that came in time. Past it the loop is stuck.
_ANSWER_S = 2.0
# How long a loop may take to do nothing before it counts as stuck, beside that moment.
_LOOK_S = 0.5
# How often a call that waits looks whether the loop still runs.
_JOIN_S = 10.0
# How long closing waits for the loop to cancel what is left. The thread is a daemon, so it keeps no process alive.


class Portal:
    """Runs coroutines for any number of threads. Closed once, after which every call raises ClientClosed.

    Invariant: no call waits for a loop that is not there. The thread is a daemon, so it keeps no process alive.
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
        """Return whether this process is a fork of the one that the thread runs in."""
        return os.getpid() != self._pid

    @property
    def broken(self) -> bool:
        """Return whether the loop has ended although nobody closed the portal."""
        return not self._closed and not self._thread.is_alive()

    def require_running(self) -> None:
        """Refuse to go on without a loop that does something; takes a moment where it does not.

        Raises:
            ClientClosed: the portal was closed, or its loop has ended.
            DeadlineExceeded: the loop is stuck, as under a call that blocks it.
        """
        self.call(asyncio.sleep(0), bound_s=_ANSWER_S)

    @property
    def stuck(self) -> bool:
        """Return whether the loop does nothing.

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
        """Run a coroutine and wait for it. A timeout cancels it, and so does Ctrl-C.

        Args:
            work: What to run.
            timeout_s: Seconds that it may take.
            bound_s: Seconds after which it ends by itself; only a loop that is stuck takes longer.

        Raises:
            ClientClosed: the portal was closed, before or meanwhile, or its loop has ended.
            DeadlineExceeded: it took longer than `timeout_s`, or than `bound_s` and a moment.
            ForkedClient: this process was forked since the portal was made.
            RuntimeError: called in the portal's own thread, where it would wait for itself.
        """
        try:
            future = self._start(work, timeout_s)
        except BaseException:
            work.close()
            raise
        try:
            return self._result(future, bound_s if timeout_s is None else timeout_s)
        except concurrent.futures.CancelledError as error:
            work.close()  # it may never have begun
            raise self._refusal() from error
        except _Exit as exit_:
            raise exit_.error from None
        except BaseException:
            future.cancel()
            raise

    def _start(
        self, work: Coroutine[Any, Any, _Result], timeout_s: float | None
    ) -> "concurrent.futures.Future[_Result]":
        """Hand work to the loop."""
        # Before the lock, which another thread of the parent may have held when it forked.
        require_no_fork(self._pid)
        if threading.current_thread() is self._thread:
            msg = "a blocking call inside the client's own thread would wait for itself"
            raise RuntimeError(msg)
        # The time is taken in the loop: here it could be over when the work is done, and lose what it brought.
        timed = _within(work, timeout_s)
        with self._lock:
            if not self._closed and self._thread.is_alive():
                # RuntimeError: the loop was closed in this moment.
                with contextlib.suppress(RuntimeError):
                    return asyncio.run_coroutine_threadsafe(timed, self._loop)
        timed.close()
        raise self._refusal()

    def _result(self, future: "concurrent.futures.Future[_Result]", limit_s: float | None) -> _Result:
        """Wait for work in the loop, as long as there is one that could do it.

        Raises:
            ClientClosed: the loop has ended.
            DeadlineExceeded: the loop is stuck, past `limit_s` and a moment.
        """
        until_mono_s = inf if limit_s is None else time.monotonic() + limit_s + _LATE_S
        while True:
            wait_s = min(until_mono_s - time.monotonic(), _LOOK_S)
            try:
                return future.result(max(wait_s, 0.0))
            except TimeoutError as error:
                # The work's own TimeoutError comes out of `result` too, and it may be done by now.
                if future.done():
                    return future.result()
                if not self._thread.is_alive():
                    raise self._refusal() from error
                if time.monotonic() >= until_mono_s:
                    raise DeadlineExceeded(
                        f"no answer within {limit_s} s: the client's event loop is stuck, as under a call that "
                        "blocks it",
                        code=grpc.StatusCode.DEADLINE_EXCEEDED,
                    ) from error

    def run(self, function: Callable[[], _Result]) -> _Result:
        """Run a function in the loop: for what is quick, but belongs to the loop's thread."""

        async def work() -> _Result:
            return function()

        return self.call(work())

    def drawn(
        self, items: AsyncIterator[_Result], timeout_s: float | None, *, bound_s: float | None = None
    ) -> Iterator[_Result]:
        """An async iterator, drawn from in the loop; each item may take `timeout_s`, or ends within `bound_s`.

        Raises:
            DeadlineExceeded: while iterating, when none came in time.
        """

        async def draw() -> tuple[_Result] | None:
            try:
                return (await anext(items),)
            except StopAsyncIteration:
                return None

        while (item := self.call(draw(), timeout_s, bound_s=bound_s)) is not None:
            yield item[0]

    def close(self) -> None:
        """Cancel what still runs, stop the loop and wait for its thread. Idempotent; does nothing in a fork."""
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
        except BaseException as error:  # noqa: BLE001  a thread's root: those who call are told
            self._fault = error
            if not started.done():
                started.set_exception(error)
            _log.error("client.loop_ended cause=%r", error)

    def _refusal(self) -> ClientClosed:
        if self._closed:
            return ClientClosed("this client was closed; make another", code=grpc.StatusCode.CANCELLED)
        refusal = ClientClosed(
            f"this client's event loop has ended, by {self._fault!r}; close the client and make another",
            code=grpc.StatusCode.CANCELLED,
        )
        refusal.__cause__ = self._fault
        return refusal


async def _within(work: Coroutine[Any, Any, _Result], timeout_s: float | None) -> _Result:
    """Run a coroutine to its end, or to the end of its time: never is what it returns dropped.

    Raises:
        DeadlineExceeded: it took longer than `timeout_s`.
    """
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            return await work
    except (SystemExit, KeyboardInterrupt) as error:
        # Raised in a task they would end the loop, and with it every session: they belong to the caller's thread.
        raise _Exit(error) from None
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlineExceeded(
            f"no answer within {timeout_s} s", code=grpc.StatusCode.DEADLINE_EXCEEDED
        ) from error


async def _serve(started: "concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]") -> None:
    """Keep the loop alive until told to stop; `asyncio.run` then cancels what is left."""
    stop = asyncio.Event()
    started.set_result((asyncio.get_running_loop(), stop))
    await stop.wait()


class _Exit(Exception):
    """What ends a program, on its way out of the loop to the thread that called."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error
