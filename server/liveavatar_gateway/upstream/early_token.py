"""Session tokens that are minted while their callers wait for a permit, so that the start follows at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from liveavatar_gateway.pool.book import Place
from liveavatar_gateway.upstream.account import Account
from liveavatar_gateway.upstream.model import Minted

_MAX_AGE_S: Final = 50.0
"""Age at which a session token is not used any more. Source: LiveAvatar's clients start within 60 s."""
_MAX_EARLY_AGE_S: Final = 30.0
"""Age up to which a token is taken: the start behind it may take 15 s, or be tried again."""
_RENEWAL_AGE_S: Final = 20.0
"""Age at which another is minted."""
_MAX_POSITION: Final = 2
"""Last place in the queue at which a token is minted. Tokens of callers further back would mostly grow too old."""
_MAX_WAIT_S: Final = 20.0
"""Longest expected wait of the second caller at which one is. The first may get the next permit at any time."""
_TAKE_WAIT_S: Final = 1.0
"""Longest wait of a caller that has its permit for a token that is being minted."""


@dataclass(frozen=True, slots=True)
class Token:
    """Token of a session that exists and is not billed yet."""

    minted: Minted
    api_key: str = field(repr=False)
    """Key with which it was minted."""
    minted_at_s: float = field(default_factory=time.monotonic)
    """Monotonic time."""

    @property
    def age_s(self) -> float:
        """Time since it was minted, seconds."""
        return time.monotonic() - self.minted_at_s

    @property
    def is_fresh(self) -> bool:
        """True if a session may still be started with it."""
        return self.age_s < _MAX_AGE_S


class EarlyToken:
    """Token of a caller in the queue, for the account whose permit it will most likely get. Minting is free."""

    def __init__(self, mint: Callable[[Account], Awaitable[Minted]]) -> None:
        """Begin without a token; `mint` is called for the account."""
        self._mint = mint
        self._account: Account | None = None
        self._minting: asyncio.Task[Token] | None = None

    def prepare(self, account: Account, place: Place) -> None:
        """Begin to mint if the caller is at the head of the queue and has no token that can be used.

        A failure is not repeated here: the start mints again, and tells the caller.
        """
        is_late = place.position > 1 and (place.expected_wait_s or 0.0) > _MAX_WAIT_S
        if place.position > _MAX_POSITION or is_late:
            return
        minting = self._minting
        if minting is not None and self._account is account:
            if not minting.done() or minting.cancelled() or minting.exception() is not None:
                return
            if minting.result().age_s < _RENEWAL_AGE_S:
                return
        self.drop()
        self._account = account
        self._minting = asyncio.create_task(self._minted(account), name="pool/early-token")

    async def take(self, account: Account) -> Token | None:
        """Return the token if it is for this account and its present key; None otherwise. It is returned once."""
        minting, self._minting = self._minting, None
        if minting is None:
            return None
        minting.add_done_callback(_retrieve)
        try:
            if self._account is account:
                await asyncio.wait([minting], timeout=_TAKE_WAIT_S)
        finally:
            # Without effect on one that is done.
            minting.cancel()
        if not minting.done() or minting.cancelled() or minting.exception() is not None:
            return None
        token = minting.result()
        return token if token.age_s < _MAX_EARLY_AGE_S and token.api_key == account.spec.api_key else None

    def drop(self) -> None:
        """Give the token up."""
        if self._minting is not None:
            self._minting.cancel()
            self._minting.add_done_callback(_retrieve)
            self._minting = None

    async def _minted(self, account: Account) -> Token:
        api_key = account.spec.api_key
        return Token(await self._mint(account), api_key)


def _retrieve(minting: "asyncio.Task[Token]") -> None:
    # An error that nobody retrieves would be logged.
    if not minting.cancelled():
        minting.exception()
