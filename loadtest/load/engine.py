"""Native event loop in a thread of its own, and the bridge to it from Locust's greenlets.

Locust lives on gevent, gRPC and asyncio do not: with gevent's patches they hang. So nothing is patched
(`LOCUST_SKIP_MONKEY_PATCH=1`), users stay greenlets, and all streams of a process run on this loop.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import gevent
import gevent.event
import uvloop

_Result = TypeVar("_Result")
_STOP_WITHIN_S: Final = 10.0


class Engine:
    """The loop and its thread. It starts lazily, after any fork, because threads do not survive a fork."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        """Run a coroutine on the loop; the calling greenlet waits, all others go on.

        A greenlet that is killed meanwhile cancels its coroutine.
        """
        done = gevent.event.Event()
        # Only gevent's async watchers may be used from another thread.
        watcher = gevent.get_hub().loop.async_()
        watcher.start(done.set)
        try:
            future = asyncio.run_coroutine_threadsafe(work(), self._started())
            future.add_done_callback(lambda _: watcher.send())
            try:
                done.wait()
            except BaseException:
                future.cancel()
                raise
            return future.result()
        finally:
            watcher.close()

    def stop(self) -> None:
        """End the thread. What still runs is cancelled."""
        if self._loop is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_WITHIN_S)
        self._loop = self._thread = None

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = uvloop.new_event_loop()
            self._thread = threading.Thread(target=_serve, args=(self._loop,), name="load-engine", daemon=True)
            self._thread.start()
        return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.close()
