"""Access control of a process: authentication, checks of open calls, and quotas, wired together."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from liveavatar_gateway.auth import auth_file
from liveavatar_gateway.auth.auth_file import SETTING, AuthConfig, UnusableAuthFile
from liveavatar_gateway.auth.authenticator import Authenticator, NoAuthenticator
from liveavatar_gateway.auth.changes import audit_changes
from liveavatar_gateway.auth.limiter import Limiter
from liveavatar_gateway.auth.open_calls import OpenCalls
from liveavatar_gateway.reloading import FileReloads
from liveavatar_gateway.telemetry.audit import AuditLog
from liveavatar_gateway.upstream.proxies import Proxies

if TYPE_CHECKING:
    from liveavatar_gateway.auth.jwks import KeySetClient

_log = structlog.get_logger(__name__)

_SETTLE_S = 0.3
"""Time for which the file must be unchanged before it is read: an editor may be writing it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessConfig:
    """Source of tenants."""

    file: Path | None = None
    """File of tenants; None asks callers for no credential."""
    has_registry: bool = True
    """False without a registry that outlives the process, so that budgets are refused."""
    credential_grace_s: float = 30.0
    """Time for which a stream outlives its expired credential."""
    proxies: Proxies = field(default_factory=Proxies)
    """Proxies through which issuers of tokens are called."""


class Access:
    """Access control of a process. The creator closes it."""

    def __init__(
        self,
        config: AccessConfig,
        audit: AuditLog | None = None,
        *,
        refused: Callable[[str, str], object] = lambda _tenant, _quota: None,
    ) -> None:
        """Read the file of tenants.

        Args:
            config: Source of tenants.
            audit: Log for changes of the file; None for no log.
            refused: Takes note of a refusal by a quota: tenant, and name of the quota.

        Raises:
            UnusableAuthFile: the file cannot be used.
        """
        self._file = config.file
        self._audit = audit
        self._has_registry = config.has_registry
        self._keys: KeySetClient | None = None
        self._known: Authenticator | None = None
        if config.file is not None:
            self._known = self._open(config.file, config.proxies)
        self.authenticator: Authenticator | NoAuthenticator = self._known or NoAuthenticator()
        """Verifier of callers."""
        self.open_calls = OpenCalls(self.authenticator.check, grace_s=config.credential_grace_s)
        """Calls that end with the credentials of their callers."""
        self.limiter = Limiter(self.authenticator.quotas, refused=refused)
        """Quotas of tenants."""

    def _open(self, file: Path, proxies: Proxies) -> Authenticator:
        # A gateway without a file of tenants verifies no tokens and needs none of the libraries for them.
        from liveavatar_gateway.auth.jwks import KeySetClient  # noqa: PLC0415
        from liveavatar_gateway.auth.tokens import TokenVerifier, cache_of  # noqa: PLC0415

        content = self._read(file)
        self._keys = KeySetClient(proxies)
        return Authenticator(content, TokenVerifier(cache_of(self._keys)))

    def add_to(self, reloads: FileReloads) -> None:
        """Reload the file of tenants when it changes."""
        if (file := self._file) is not None:
            reloads.add(
                "file of tenants",
                (file,),
                lambda: self._read_again(file),
                self._use,
                watched=True,
                settle_s=_SETTLE_S,
            )

    def _read(self, file: Path) -> AuthConfig:
        return auth_file.read(file, has_registry=self._has_registry)

    def _read_again(self, file: Path) -> AuthConfig:
        config = self._read(file)
        # More likely cut off by a full disk or an editor than meant: the sessions of all tenants would end.
        if not config.tenants:
            raise UnusableAuthFile(f"{SETTING}: {file} has no tenants any more; to end all sessions, suspend them")
        return config

    def _use(self, config: AuthConfig) -> bool:
        assert self._known is not None  # noqa: S101 - registered with a file alone
        before = self._known.config
        changed = self._known.use(config)
        if changed:
            if self._audit is not None:
                audit_changes(self._audit, before, config)
            # A revoked key ends its streams now, not at the next check.
            self.open_calls.sweep()
        return changed

    async def aclose(self) -> None:
        """Close connections to issuers of tokens."""
        await self.authenticator.aclose()
        if self._keys is not None:
            await self._keys.aclose()
