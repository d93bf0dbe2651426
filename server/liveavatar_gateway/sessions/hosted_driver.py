"""Driver of a session with a hosted agent: it sends nothing, and looks for the end at LiveAvatar."""

import asyncio
import time

import structlog

from liveavatar_gateway.core.outputs import Deadline
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.states import EndReason, end_reason_of
from liveavatar_gateway.sessions.avatars import Avatars
from liveavatar_gateway.sessions.journal import SessionJournal
from liveavatar_gateway.sessions.publisher import EventPublisher
from liveavatar_gateway.sessions.wakeup import Wakeup

_log = structlog.get_logger(__name__)


class HostedDriver:
    """Observer of a session without a socket. `run` returns when it is over; the caller stops the avatar."""

    def __init__(
        self,
        core: Session,
        *,
        wake: Wakeup,
        publisher: EventPublisher,
        journal: SessionJournal,
        avatars: Avatars,
    ) -> None:
        """Prepare for `run`.

        Args:
            core: State machine of the session.
            wake: Set after an input to the state machine.
            publisher: Hands out events of the state machine.
            journal: Knows whether the session is still this process's.
            avatars: The avatar that the agent drives.
        """
        self._core = core
        self._wake = wake
        self._publisher = publisher
        self._journal = journal
        self._avatars = avatars

    async def run(self) -> None:
        """Apply the deadlines of the session, and look for its end at LiveAvatar, until it is over."""
        self._core.agent_started()
        self._publisher.report()
        looking = asyncio.create_task(self._look_for_end(), name=f"session-{self._core.id}/look-for-end")
        looking.add_done_callback(lambda _: self._wake.set())
        try:
            while not self._core.over:
                if looking.done():
                    # It ends with the session alone, or with a fault that ends the session.
                    looking.result()
                await self._journal.confirm_lease()
                await self._wake.wait(self._until_deadline_s())
        finally:
            looking.cancel()
            await asyncio.wait([looking])

    def _until_deadline_s(self) -> float | None:
        """Let time pass, and return the time until the next deadline, seconds; None without one."""
        now_s = time.monotonic()
        self._core.tick(now_s)
        outputs = self._core.drain(now_s)
        self._publisher.publish(outputs)
        if self._core.over:
            return 0.0
        last = outputs[-1]
        at_s = last.at_s if isinstance(last, Deadline) else None
        return None if at_s is None else max(0.0, at_s - now_s)

    async def _look_for_end(self) -> None:
        """End the session once LiveAvatar has ended it, such as when the agent hung up."""
        interval_s = self._core.config.hosted_poll_s
        while not self._core.over:
            await asyncio.sleep(interval_s)
            upstream_reason = await self._avatars.current.ended_reason(max_age_s=interval_s)
            if upstream_reason is None or self._core.over:
                continue
            _log.info("upstream.gone", session=self._core.id, reason=upstream_reason)
            reason = end_reason_of(upstream_reason) if upstream_reason else EndReason.UPSTREAM_ENDED
            self._core.end(reason, time.monotonic(), upstream_reason=upstream_reason)
