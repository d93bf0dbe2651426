"""Calls that are open, each with its caller. A call ends when its credential does, some after a grace."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from liveavatar_gateway.auth.principal import Principal
from liveavatar_gateway.core.errors import AccessError, CredentialExpired

CHECK_S: Final = 1.0
"""Interval at which the credentials of open calls are checked."""

Check = Callable[[Principal], None]
"""Raises `AccessError` for a principal whose credential has ended."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class OpenCall:
    """Call of a verified caller."""

    def __init__(self, principal: Principal, cancel: Callable[[], object]) -> None:
        """Begin.

        Args:
            principal: The caller.
            cancel: Cancels the call; called once, after `error` has its value.
        """
        self.principal = principal
        self.error: AccessError | None = None
        """Error that ended the call; None before."""
        self.deadline: datetime | None = None
        """End of the call, since its credential has expired; None before."""
        self._cancel: Callable[[], object] | None = cancel
        self._notify: Callable[[], object] | None = None

    def on_deadline(self, notify: Callable[[], object]) -> None:
        """Call `notify` when the call gets its deadline, so that a stream can tell its caller."""
        self._notify = notify

    def limit(self, deadline: datetime) -> None:
        """Set the deadline."""
        self.deadline = deadline
        if self._notify is not None:
            self._notify()

    def end(self, error: AccessError) -> None:
        """End the call with an error. Idempotent."""
        if self.error is None:
            self.error = error
            if self._cancel is not None:
                self._cancel()

    def close(self) -> None:
        """Release the task of the call, since the call is over.

        The task refers to its call in turn: such a cycle of each call would wait for the garbage collector.
        """
        self._cancel = self._notify = None


class OpenCalls:
    """All open calls of a process."""

    def __init__(self, check: Check, *, grace_s: float, now: Callable[[], datetime] = _utc_now) -> None:
        """Begin without calls.

        Args:
            check: Check of one credential.
            grace_s: Time for which a call outlives an expired credential. A credential that was revoked, and a
                suspended tenant, end their calls at once.
            now: Clock, in UTC.
        """
        self._check = check
        self._grace = timedelta(seconds=grace_s)
        self._now = now
        self._all: set[OpenCall] = set()

    def __len__(self) -> int:
        return len(self._all)

    def add(self, call: OpenCall) -> None:
        """Check the credential of a call from now on."""
        self._all.add(call)

    def discard(self, call: OpenCall) -> None:
        """Check a call no longer. Idempotent."""
        self._all.discard(call)

    def sweep(self) -> None:
        """Check the credentials of all calls once."""
        now = self._now()
        for call in list(self._all):
            try:
                self._check(call.principal)
            except CredentialExpired as error:
                if call.deadline is None:
                    call.limit(now + self._grace)
                if call.deadline is not None and now >= call.deadline:
                    call.end(error)
            except AccessError as error:
                call.end(error)

    async def watch(self) -> None:
        """Check the credentials of all calls regularly, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            self.sweep()
