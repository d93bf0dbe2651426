"""Readiness for new sessions: whether a create can succeed, apart from whether streams are taken."""

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
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.journal import JournalWriter
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.upstream.permits import Permits

_log = structlog.get_logger(__name__)

_CERTAIN: Final = (UpstreamUnauthenticated, UpstreamCreditsExhausted)
"""Errors of one create that every other create would meet too."""
_DOUBTFUL: Final = (UpstreamUnreachable, UpstreamTimeout, UpstreamProtocol)
"""Errors of one create after which LiveAvatar is asked whether it still answers."""
_LOOK_S: Final = 0.5
"""Pause between two looks at what nobody announces. Lower tells balancers sooner."""
_PROBE_S: Final = 5.0
"""Pause between two calls to LiveAvatar while creates fail; none are made while they succeed."""
_PROBE_TIMEOUT_S: Final = 10.0


class CreateReadiness:
    """Knows why a create would be refused now. `watch` and `probe` are its two tasks."""

    def __init__(
        self,
        directory: Directory,
        books: JournalWriter,
        places: Permits,
        *,
        credits_left: Callable[[], Awaitable[str]],
        publish: Callable[[bool], Awaitable[None]],
    ) -> None:
        """Begin ready, until something says otherwise.

        Args:
            directory: Sessions of the process; reports creates that failed.
            books: Registry of the process.
            places: Permits of the account, and callers in line for them.
            credits_left: Asks LiveAvatar for the account's credits, which proves key and connection.
            publish: Called with the readiness at the start, and whenever it changes.
        """
        self._directory = directory
        self._books = books
        self._places = places
        self._credits_left = credits_left
        self._publish = publish
        self._published: bool | None = None
        self._upstream = ""
        """Reason why LiveAvatar would refuse; empty when it would not."""
        self._doubt = Wakeup()
        self._publishing = asyncio.Lock()
        directory.on_create_failed = self.note_failure

    @property
    def refusal(self) -> str:
        """Reason why a create would be refused now; empty when it can succeed."""
        if self._directory.draining:
            return "DRAINING"
        if not self._books.available:
            return "REGISTRY_UNAVAILABLE"
        if self._places.is_full:
            return "CAPACITY_EXHAUSTED"
        return self._upstream

    def note_failure(self, error: GatewayError) -> None:
        """Take note of a create that failed."""
        if isinstance(error, _CERTAIN):
            self._upstream = error.reason
        if isinstance(error, _CERTAIN + _DOUBTFUL):
            self._doubt.set()

    def look_again(self) -> None:
        """Ask LiveAvatar again now, since the key is another."""
        self._upstream = ""
        self._doubt.set()

    async def announce(self) -> None:
        """Publish the readiness, if it is another than was published last."""
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
            await asyncio.sleep(_LOOK_S)

    async def probe(self) -> None:
        """Ask LiveAvatar at the start and after creates that failed, until it would take one; until cancelled."""
        while True:
            if self._upstream:
                await asyncio.sleep(_PROBE_S)
            self._upstream = await self._ask()
            if not self._upstream:
                await self._doubt.wait()

    async def _ask(self) -> str:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                left = await self._credits_left()
        except GatewayError as error:
            return error.reason if isinstance(error, _CERTAIN + _DOUBTFUL) else ""
        except TimeoutError:
            return UpstreamTimeout.reason
        except Exception:  # noqa: BLE001 - the root of its task: without it, unready would be for ever
            _log.exception("create.probe_crashed")
            return ""
        if self._upstream == UpstreamCreditsExhausted.reason and _is_none(left):
            return self._upstream
        return ""


def _is_none(credits_left: str) -> bool:
    try:
        return float(credits_left) <= 0
    except ValueError:
        return False
