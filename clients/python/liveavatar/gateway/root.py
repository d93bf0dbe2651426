"""Root task of a session or of a watch."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import grpc

from liveavatar.gateway.condition import Condition
from liveavatar.gateway.errors import DeadlineExceeded, GatewayError, SessionClosed
from liveavatar.gateway.runtime import ClientRuntime, Leave
from liveavatar.gateway.timeouts import timeout

_log = logging.getLogger(__name__)

_CLOSE_S = 5.0
# Time for the task to end after its cancellation.

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class RootTask:
    """Root task of a session or of a watch, in which all other tasks of that object live.

    Started once, by `open`; the client calls `leave` when it closes, unless `close` was called before.
    """

    def __init__(
        self,
        name: str,
        runtime: ClientRuntime,
        condition: Condition,
        leave: Leave,
        leave_timeout_s: Callable[[], float] = float,
    ) -> None:
        """Prepare the task.

        Args:
            name: "session" or "watch", for messages and task names.
            runtime: Shared state of the client.
            condition: Notified when the object opens or fails.
            leave: Called by the client when it closes.
            leave_timeout_s: Seconds that `leave` may take while no gateway can be reached. Default: none.
        """
        self._name = name
        self._runtime = runtime
        self._condition = condition
        self._leave = leave
        self._leave_timeout_s = leave_timeout_s
        self._task: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        """True once `open` was called."""
        return self._task is not None

    async def open(
        self,
        run: Work,
        *,
        opened: Callable[[], object],
        failure: Callable[[], GatewayError | None],
        abandon: Work,
        timeout_s: float | None,
    ) -> None:
        """Start the task and wait until the object is open.

        Args:
            run: Body of the task.
            opened: Condition that ends the wait.
            failure: Error with which the object failed before it opened; None while it has not.
            abandon: Called in the background when the wait times out or is cancelled.
            timeout_s: Seconds to wait; None: no limit.

        Raises:
            DeadlineExceeded: the object did not open within `timeout_s`.
            GatewayError: the object failed.
            SessionClosed: `open` was called before.
        """
        if self._task is not None:
            raise SessionClosed(
                f"a {self._name} object is opened once; create another", code=grpc.StatusCode.FAILED_PRECONDITION
            )
        self._runtime.register(self._leave, self._leave_timeout_s)
        # No task group holds this task: it is the root of the object's tasks, and `close` waits for it.
        self._task = asyncio.create_task(run(), name=f"{self._name}/run")
        try:
            async with timeout(timeout_s):
                await self._condition.until(lambda: opened() or failure() is not None)
        except TimeoutError as error:
            self._runtime.spawn(abandon(), f"{self._name}/abandon")
            raise DeadlineExceeded(
                f"no gateway opened the {self._name} within {timeout_s} s",
                code=grpc.StatusCode.DEADLINE_EXCEEDED,
            ) from error
        except asyncio.CancelledError:
            self._runtime.spawn(abandon(), f"{self._name}/abandon")
            raise
        if not opened() and (error_before := failure()) is not None:
            await self.close()
            raise error_before

    async def close(self) -> None:
        """Cancel the task and wait for its end. Idempotent."""
        self._runtime.release(self._leave)
        if self._task is not None and not self._task.done():
            self._task.cancel()
            _, late = await asyncio.wait({self._task}, timeout=_CLOSE_S)
            if late:
                # Only an iterator given to `say` that swallows its cancellation can do this.
                _log.warning("%s.close_late", self._name)
