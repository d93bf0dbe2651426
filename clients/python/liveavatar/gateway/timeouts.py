"""Timeout for clean-up after a cancellation, on all supported versions of Python."""

import asyncio
import sys
from types import TracebackType
from typing import Self


class _Timeout:
    """Stand-in for `asyncio.timeout` of Python 3.11.0 to 3.11.2.

    In a task that was cancelled before, the original raises CancelledError instead of TimeoutError
    (python/cpython#102780), and so ends the clean-up that it should bound.
    """

    def __init__(self, delay_s: float | None) -> None:
        self._delay_s = delay_s
        self._handle: asyncio.TimerHandle | None = None
        self._cancelling = 0
        self._expired = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a timeout must be used inside a task")
        self._cancelling = task.cancelling()
        if self._delay_s is not None:
            self._handle = asyncio.get_running_loop().call_later(self._delay_s, self._expire, task)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        task = asyncio.current_task()
        if not self._expired or task is None:
            return
        if task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error

    def _expire(self, task: "asyncio.Task[object]") -> None:
        self._expired = True
        task.cancel()


def timeout(delay_s: float | None) -> "asyncio.Timeout | _Timeout":
    """Limit a block to `delay_s` seconds, like `asyncio.timeout`; None: no limit.

    Raises:
        TimeoutError: the block took longer.
    """
    return _Timeout(delay_s) if sys.version_info < (3, 11, 3) else asyncio.timeout(delay_s)
