"""Readiness of the process for new sessions, apart from its readiness for streams."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from liveavatar_gateway.core.errors import (
    GatewayError,
    UpstreamCreditsExhausted,
    UpstreamProtocol,
    UpstreamTimeout,
    UpstreamUnauthenticated,
    UpstreamUnreachable,
)
from liveavatar_gateway.sessions.journal import JournalWriter
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.upstream.permits import Permits

_log = structlog.get_logger(__name__)

_CERTAIN: Final = (UpstreamUnauthenticated, UpstreamCreditsExhausted)
"""Errors of a create that every other create would meet too."""
_DOUBTFUL: Final = (UpstreamUnreachable, UpstreamTimeout, UpstreamProtocol)
"""Errors of a create after which LiveAvatar is probed."""
_POLL_S: Final = 0.5
"""Period at which states without a notification are checked. Lower informs load balancers sooner."""
_PROBE_S: Final = 5.0
"""Pause between probes of LiveAvatar while creates fail; none are made while they succeed."""
_PROBE_TIMEOUT_S: Final = 10.0


class CreateReadiness:
    """Reason for which a create would be refused at present. `watch` and `probe` are its two tasks."""

    def __init__(
        self,
        journals: JournalWriter,
        permits: Permits,
        *,
        is_draining: Callable[[], bool],
        credits_left: Callable[[], Awaitable[str]],
        accounts_trouble: Callable[[], str] = str,
        publish: Callable[[bool], Awaitable[None]],
    ) -> None:
        """Begin ready.

        Args:
            journals: Registry of the process.
            permits: Permits of the account, and callers that wait for them.
            is_draining: Returns whether the process refuses new sessions.
            credits_left: Requests the accounts' credits from LiveAvatar, which proves key and connection.
            accounts_trouble: Returns the reason for which no account starts a session now; empty without one.
            publish: Called with the readiness at the start, and at each change.
        """
        self._journals = journals
        self._permits = permits
        self._is_draining = is_draining
        self._credits_left = credits_left
        self._accounts_trouble = accounts_trouble
        self._publish = publish
        self._published: bool | None = None
        self._upstream = ""
        """Reason for which LiveAvatar would refuse; empty if it would not."""
        self._doubt = Wakeup()
        self._publishing = asyncio.Lock()

    @property
    def refusal(self) -> str:
        """Reason for which a create would be refused at present; empty if it can succeed."""
        if self._is_draining():
            return "DRAINING"
        if not self._journals.available:
            return "REGISTRY_UNAVAILABLE"
        if self._permits.is_full:
            return "CAPACITY_EXHAUSTED"
        return self._upstream or self._accounts_trouble()

    def on_create_failed(self, error: GatewayError) -> None:
        """Take note of a session that could not be created."""
        if isinstance(error, _CERTAIN):
            self._upstream = error.reason
        if isinstance(error, _CERTAIN + _DOUBTFUL):
            self._doubt.set()

    def probe_again(self) -> None:
        """Probe LiveAvatar now, with a changed key."""
        self._upstream = ""
        self._doubt.set()

    async def announce(self) -> None:
        """Publish the readiness, if it has changed."""
        async with self._publishing:
            refusal = self.refusal
            if (ready := not refusal) is not self._published:
                self._published = ready
                _log.info("create.readiness", ready=ready, reason=refusal)
                await self._publish(ready)

    async def watch(self) -> None:
        """Publish changes, until cancelled."""
        while True:
            await self.announce()
            await asyncio.sleep(_POLL_S)

    async def probe(self) -> None:
        """Probe LiveAvatar at the start and after failed creates, until a create would succeed. Never returns."""
        while True:
            if self._upstream:
                await asyncio.sleep(_PROBE_S)
            self._upstream = await self._probe_once()
            if not self._upstream:
                await self._doubt.wait()

    async def _probe_once(self) -> str:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                credits_left = await self._credits_left()
        except GatewayError as error:
            return error.reason if isinstance(error, _CERTAIN + _DOUBTFUL) else ""
        except TimeoutError:
            return UpstreamTimeout.reason
        except Exception:  # noqa: BLE001 - the root of its task: without it, the process would stay unready
            _log.exception("create.probe_crashed")
            return ""
        if self._upstream == UpstreamCreditsExhausted.reason and _is_zero(credits_left):
            return self._upstream
        return ""


def _is_zero(credits_left: str) -> bool:
    try:
        return float(credits_left) <= 0
    except ValueError:
        return False
