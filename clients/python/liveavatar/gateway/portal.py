"""An event loop in a thread of its own, for callers that have none."""

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import grpc

from liveavatar.gateway.errors import ClientClosed, DeadlineExceeded

_Result = TypeVar("_Result")


class Portal:
    """Runs coroutines for any number of threads. Closed once, after which every call raises ClientClosed.

    The thread is a daemon: a program that forgets to close its client still exits, and the gateway ends its
    sessions after `detach_grace`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        started: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = (
            concurrent.futures.Future()
        )
        self._thread = threading.Thread(
            target=lambda: asyncio.run(_serve(started)), name="liveavatar-client", daemon=True
        )
        self._thread.start()
        self._loop, self._stop = started.result()

    def call(self, work: Coroutine[Any, Any, _Result], timeout_s: float | None = None) -> _Result:
        """Run a coroutine and wait for it. A timeout cancels it, and so does Ctrl-C.

        Raises:
            ClientClosed: the portal was closed, before or meanwhile.
            DeadlineExceeded: it took longer than `timeout_s`.
            RuntimeError: called in the portal's own thread, where it would wait for itself.
        """
        if threading.current_thread() is self._thread:
            work.close()
            msg = "a blocking call inside the client's own thread would wait for itself"
            raise RuntimeError(msg)
        with self._lock:
            if self._closed:
                work.close()
                raise _refusal()
            # The time is taken in the loop: here it could be over when the work is done, and lose what it brought.
            future = asyncio.run_coroutine_threadsafe(_within(work, timeout_s), self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError as error:
            work.close()  # it may never have begun
            raise _refusal() from error
        except BaseException:
            future.cancel()
            raise

    def run(self, function: Callable[[], _Result]) -> _Result:
        """Run a function in the loop: for what is quick, but belongs to the loop's thread."""

        async def work() -> _Result:
            return function()

        return self.call(work())

    def drawn(self, items: AsyncIterator[_Result], timeout_s: float | None) -> Iterator[_Result]:
        """An async iterator, drawn from in the loop; each item may take `timeout_s`.

        Raises:
            DeadlineExceeded: while iterating, when none came in time.
        """

        async def draw() -> tuple[_Result] | None:
            try:
                return (await anext(items),)
            except StopAsyncIteration:
                return None

        while (item := self.call(draw(), timeout_s)) is not None:
            yield item[0]

    def close(self) -> None:
        """Cancel what still runs, stop the loop and wait for its thread. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


async def _within(work: Coroutine[Any, Any, _Result], timeout_s: float | None) -> _Result:
    """Run a coroutine to its end, or to the end of its time: never is what it returns dropped.

    Raises:
        DeadlineExceeded: it took longer than `timeout_s`.
    """
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            return await work
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


def _refusal() -> ClientClosed:
    return ClientClosed("this client was closed; make another", code=grpc.StatusCode.CANCELLED)
