"""Cache of the account's avatars."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from liveavatar_gateway.core.errors import GatewayError, InternalError
from liveavatar_gateway.upstream.avatars import Avatar

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogConfig:
    """Times of the cache."""

    ttl_s: float = 300.0
    """Age at which the list is fetched again. Lower shows new avatars sooner and calls LiveAvatar more often."""
    retry_s: float = 5.0
    """Shortest time between a failure and the next fetch; callers meanwhile get the old list, or the failure."""
    patience_s: float = 2.0
    """Longest wait of a caller for a newer list, if there is an old one."""


class AvatarCatalog:
    """List of avatars, fetched when a caller needs it and shared by all callers. The creator closes it.

    While LiveAvatar cannot be reached, callers get the last list, of whatever age.
    """

    def __init__(
        self,
        config: CatalogConfig,
        fetch: Callable[[], Awaitable[Sequence[Avatar]]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without a list.

        Args:
            config: Times.
            fetch: Returns the avatars, within a deadline of its own, or raises GatewayError.
            clock: Monotonic time.
        """
        self._config = config
        self._fetch = fetch
        self._clock = clock
        self._avatars: Sequence[Avatar] | None = None
        self._fetched_at_s = 0.0
        self._error: GatewayError | None = None
        self._failed_at_s = 0.0
        self._fetching: asyncio.Task[None] | None = None

    async def avatars(self) -> Sequence[Avatar]:
        """Return the avatars that sessions of the account can use.

        Raises:
            GatewayError: LiveAvatar refused or failed, and there is no list yet.
        """
        if self._is_due():
            if self._fetching is None:
                self._fetching = asyncio.create_task(self._update(), name="avatars/fetch")
            # The fetch belongs to no caller: it continues if this one gives up.
            patience_s = None if self._avatars is None else self._config.patience_s
            await asyncio.wait([self._fetching], timeout=patience_s)
        if self._avatars is None:
            # A fetch without a list and without an error was cancelled.
            raise (
                self._error.with_traceback(None) if self._error is not None else InternalError("the gateway exits")
            )
        return self._avatars

    def _is_due(self) -> bool:
        now_s = self._clock()
        if self._error is not None and now_s < self._failed_at_s + self._config.retry_s:
            return False
        return self._avatars is None or now_s >= self._fetched_at_s + self._config.ttl_s

    async def _update(self) -> None:
        try:
            self._avatars = await self._fetch()
            self._fetched_at_s, self._error = self._clock(), None
        except GatewayError as error:
            self._note_failure(error)
        except Exception:  # noqa: BLE001 - the root of the task: callers get an error instead
            _log.exception("avatars.fault")
            self._note_failure(InternalError("a fault of the gateway; its log has it as avatars.fault"))
        finally:
            self._fetching = None

    def _note_failure(self, error: GatewayError) -> None:
        self._error, self._failed_at_s = error, self._clock()
        age_s = None if self._avatars is None else round(self._failed_at_s - self._fetched_at_s)
        _log.warning("avatars.not_fetched", reason=error.reason, age_s=age_s)

    async def aclose(self) -> None:
        """Cancel a fetch. Idempotent."""
        if (fetching := self._fetching) is not None:
            fetching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([fetching])
