"""API keys and tokens: the credential that goes with each call, renewed where its source can renew it."""

import asyncio
import contextlib
import inspect
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Final, TypeAlias

import grpc

from liveavatar.gateway.errors import (
    CredentialExpired,
    CredentialInvalid,
    GatewayError,
    TokenUnavailable,
    Unauthenticated,
)
from liveavatar.gateway.source import in_thread
from liveavatar.gateway.timeouts import timeout

_log = logging.getLogger(__name__)

SOURCE_TIMEOUT_S: Final = 10.0
"""Longest wait for a token source. Lower fails sooner, higher suits slow issuers."""
FILE_AGE_S: Final = 60.0
"""Age at which the content of a file is read again; a refused credential is read again at once."""
_MARGIN_S = 30.0
_MARGIN_SHARE = 0.2
# Time and share of its life before its end at which a token is renewed, so that it does not expire on its way.
_MAX_FILE_BYTES = 64 * 1024
_SENDABLE = re.compile(r"[!-~]+")
# gRPC's error for any other text in metadata repeats the text.
_REFUSALS = (CredentialExpired, CredentialInvalid, Unauthenticated)


@dataclass(frozen=True, slots=True)
class Token:
    """Bearer token with the end of its validity."""

    text: str = field(repr=False)
    expires_at: datetime | None = None
    """Time at which the token expires, with a time zone; shortly before, the source is called again."""


TokenSource: TypeAlias = Callable[[], str | Token | Awaitable[str | Token]]
"""Returns a current token. A function that may block is called in a thread of its own, a coroutine function in the
client's event loop."""


class Bearer:
    """Credential of one call, as gRPC metadata."""

    __slots__ = ("metadata",)

    def __init__(self, text: str | None) -> None:
        """Make the metadata; None for a call without a credential."""
        self.metadata: tuple[tuple[str, str], ...] = () if text is None else (("authorization", f"Bearer {text}"),)


class Credentials:
    """API key or token of a client. No part of it is ever in a log line, an error or a repr."""

    def __init__(
        self, given: str | Path | TokenSource | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep a credential.

        Args:
            given: An API key, the path of a file with a key or token, or a token source. None: no credential.
            clock: Seconds of a clock that only advances.

        Raises:
            TypeError: TLS was given here.
            ValueError: the API key holds other characters than printable ASCII.
        """
        if isinstance(given, grpc.ChannelCredentials | grpc.CallCredentials):
            msg = (
                "`credentials` is an API key, a Path or a function that returns a token; TLS is the argument `tls`"
            )
            raise TypeError(msg)
        self.given: Final = given is not None
        """True if calls have a credential."""
        self._clock = clock
        self._source: TokenSource | None = None
        self._max_age_s = inf
        self._fixed = Bearer(None)
        if isinstance(given, Path):
            self._source, self._max_age_s = lambda: _read(given), FILE_AGE_S
        elif isinstance(given, str):
            self._fixed = Bearer(_sendable(given))
        else:
            self._source = given
        self._current: Bearer | None = None
        self._is_refused = False
        self._renew_at_mono_s = inf
        self._expires_at_mono_s = inf
        # Many calls need a token at the same time, and one call of the source serves them all.
        self._renewing = asyncio.Lock()

    @property
    def renewable(self) -> bool:
        """True if a refused credential can be replaced: a file or a token source."""
        return self._source is not None

    def renewal(self) -> "Renewal":
        """Return the permission of one call, or of one stream, to try a renewed credential."""
        return Renewal(renewable=self.renewable)

    async def current(self, limit_s: float | None = None) -> Bearer:
        """Return the credential for a call that is about to be made; renew it if it was refused or ends soon.

        Args:
            limit_s: Seconds to wait for the source. Default: `SOURCE_TIMEOUT_S`, which is also the maximum.

        Raises:
            TokenUnavailable: the source failed, and no earlier token is valid.
        """
        source = self._source
        if source is None:
            return self._fixed
        if (usable := self._usable(self._clock())) is not None:
            return usable
        limit_s = SOURCE_TIMEOUT_S if limit_s is None else min(limit_s, SOURCE_TIMEOUT_S)
        try:
            async with timeout(limit_s), self._renewing:
                now_mono_s = self._clock()
                return self._usable(now_mono_s) or self._keep(await _drawn(source), now_mono_s)
        except TimeoutError as error:
            return self._former(f"did not answer within {limit_s:g} s", error)
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            return self._former("was cancelled", error)
        except BaseException as error:  # noqa: BLE001  SystemExit would end the loop and with it every session
            return self._former(f"raised {type(error).__name__}", error)

    def refuse(self, bearer: Bearer) -> None:
        """Note that the gateway refused a credential, so that the next call asks the source for another one."""
        if self._current is not None and bearer.metadata == self._current.metadata:
            self._is_refused = True

    async def renew(self, bearer: Bearer) -> bool:
        """Replace a credential that is about to end; return False if the source has no other one at present."""
        self.refuse(bearer)
        try:
            return (await self.current()).metadata != bearer.metadata
        except TokenUnavailable as error:
            _log.warning("credentials.not_renewed cause=%s", error)
            return False

    def _usable(self, now_mono_s: float) -> Bearer | None:
        return None if self._is_refused or now_mono_s >= self._renew_at_mono_s else self._current

    def _keep(self, drawn: str | Token, now_mono_s: float) -> Bearer:
        token = Token(drawn) if isinstance(drawn, str) else drawn
        valid_s = inf
        if token.expires_at is not None:
            if token.expires_at.tzinfo is None:
                msg = "`expires_at` of the token has no time zone"
                raise ValueError(msg)
            valid_s = (token.expires_at - datetime.now(UTC)).total_seconds()
        self._current = Bearer(_sendable(token.text))
        self._is_refused = False
        self._expires_at_mono_s = now_mono_s + valid_s
        margin_s = min(_MARGIN_S, max(valid_s, 0.0) * _MARGIN_SHARE)
        self._renew_at_mono_s = now_mono_s + min(valid_s - margin_s, self._max_age_s)
        return self._current

    def _former(self, failure: str, error: BaseException) -> Bearer:
        """Return the token from before a failure of the source, while it is valid.

        Raises:
            TokenUnavailable: no such token.
        """
        is_valid = self._clock() < self._expires_at_mono_s and not self._is_refused
        if self._current is not None and is_valid:
            _log.warning("credentials.not_renewed cause=%s", failure)
            return self._current
        # The source's own text may hold the token, so the message does not repeat it.
        raise TokenUnavailable(
            f"the source of the token {failure}; its exception is the cause of this one",
            code=grpc.StatusCode.UNAUTHENTICATED,
        ) from error


class Renewal:
    """Permission of one call or stream to be made again with a renewed credential: once between two successes."""

    def __init__(self, *, renewable: bool) -> None:
        self._renewable = renewable
        self._used = False

    def allows(self, error: GatewayError) -> bool:
        """Return True, once, if the error refuses the credential and another one can be had."""
        if self._used or not self._renewable or not isinstance(error, _REFUSALS):
            return False
        self._used = True
        return True

    def reset(self) -> None:
        """Note that the gateway accepted the credential."""
        self._used = False


def refuses_credential(error: GatewayError) -> bool:
    """Return True if another credential may be accepted; also after a proxy's UNAUTHENTICATED without a reason."""
    return isinstance(error, _REFUSALS)


async def _drawn(source: TokenSource) -> str | Token:
    """Return what a source returns; a function that may block is called in a thread."""
    call = getattr(source, "__call__", source)  # noqa: B004  an object may have an async `__call__`
    if inspect.iscoroutinefunction(source) or inspect.iscoroutinefunction(call):
        drawn = source()
    else:
        async with contextlib.aclosing(in_thread(made() for made in (source,))) as returned:
            drawn = await anext(returned)
    return await drawn if inspect.isawaitable(drawn) else drawn


def _sendable(text: str) -> str:
    stripped = text.strip()
    if not _SENDABLE.fullmatch(stripped):
        msg = "a key or token is printable ASCII without spaces"
        raise ValueError(msg)
    return stripped


def _read(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        msg = f"{path} is larger than {_MAX_FILE_BYTES} bytes and holds no key or token"
        raise ValueError(msg)
    return content.decode("ascii", errors="replace")
