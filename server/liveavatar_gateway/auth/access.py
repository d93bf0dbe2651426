"""Access control of a process: authentication, checks of open calls, and quotas, wired together."""

from dataclasses import dataclass, field
from pathlib import Path

import structlog

from liveavatar_gateway.auth import auth_file
from liveavatar_gateway.auth.auth_file import AuthConfig
from liveavatar_gateway.auth.authenticator import Authenticator, NoAuthenticator
from liveavatar_gateway.auth.jwks import KeySetClient
from liveavatar_gateway.auth.limiter import Limiter
from liveavatar_gateway.auth.open_calls import OpenCalls
from liveavatar_gateway.auth.tokens import TokenVerifier, cache_of
from liveavatar_gateway.reloading import FileReloads
from liveavatar_gateway.upstream.proxies import Proxies

_log = structlog.get_logger(__name__)

_SETTLE_S = 0.3
"""Time for which the file must be unchanged before it is read: an editor may be writing it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessConfig:
    """Source of tenants."""

    file: Path | None = None
    """File of tenants; None asks callers for no credential."""
    credential_grace_s: float = 30.0
    """Time for which a stream outlives its expired credential."""
    proxies: Proxies = field(default_factory=Proxies)
    """Proxies through which issuers of tokens are called."""


class Access:
    """Access control of a process. The creator closes it."""

    def __init__(self, config: AccessConfig) -> None:
        """Read the file of tenants.

        Raises:
            UnusableAuthFile: the file cannot be used.
        """
        self._file = config.file
        self._keys = KeySetClient(config.proxies)
        self._known: Authenticator | None = None
        if config.file is not None:
            self._known = Authenticator(auth_file.read(config.file), TokenVerifier(cache_of(self._keys)))
        self.authenticator: Authenticator | NoAuthenticator = self._known or NoAuthenticator()
        """Verifier of callers."""
        self.open_calls = OpenCalls(self.authenticator.check, grace_s=config.credential_grace_s)
        """Calls that end with the credentials of their callers."""
        self.limiter = Limiter(self.authenticator.quotas)
        """Quotas of tenants."""

    def add_to(self, reloads: FileReloads) -> None:
        """Reload the file of tenants when it changes."""
        if (file := self._file) is not None:
            reloads.add(
                "file of tenants",
                (file,),
                lambda: auth_file.read(file),
                self._use,
                watched=True,
                settle_s=_SETTLE_S,
            )

    def _use(self, config: AuthConfig) -> bool:
        assert self._known is not None  # noqa: S101 - registered with a file alone
        changed = self._known.use(config)
        if changed:
            # A revoked key ends its streams now, not at the next check.
            self.open_calls.sweep()
        return changed

    async def aclose(self) -> None:
        """Close connections to issuers of tokens."""
        await self.authenticator.aclose()
        await self._keys.aclose()
