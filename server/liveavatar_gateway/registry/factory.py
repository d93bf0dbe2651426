"""Where the registry is kept: its file, its key, and whose sessions are in it."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from liveavatar_gateway.core.errors import RegistryUnavailable
from liveavatar_gateway.registry.base import LeaseConfig, Registry
from liveavatar_gateway.registry.memory import MemoryRegistry
from liveavatar_gateway.registry.sealing import KEY_BYTES, BadKey, Sealer, key_beside, parsed_key
from liveavatar_gateway.registry.sqlite import SqliteRegistry

OFF: Final = "off"
"""In place of a file: keep nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """Which registry, and whose."""

    file: str = ""
    """Path of the database, `off`, or empty for the place of this user."""
    key: str = field(default="", repr=False)
    """Key for secrets, as text; empty for one that is made beside the database."""
    account: str
    """Name of the LiveAvatar account, so that nobody takes over what another's key would have to stop."""
    retired_accounts: tuple[str, ...] = ()
    """Names of accounts under keys that were used before: what dead processes left under these is ended."""
    lease: LeaseConfig = field(default_factory=LeaseConfig)
    """How a process shows that it lives."""


def account_name(api_url: str, api_key: str) -> str:
    """A name for an account that shows neither its key nor its address."""
    return hashlib.sha256(f"{api_url}\n{api_key}".encode()).hexdigest()[:32]


def fingerprint(account: str) -> str:
    """Return what people compare to see whether two processes use the same key."""
    return account[:8]


def left_under_other_keys(config: RegistryConfig) -> Mapping[str, int]:
    """Count sessions that dead processes left under keys nobody has configured, by fingerprint; writes nothing.

    Raises:
        RegistryUnavailable: the registry cannot be read.
    """
    if config.file == OFF:
        return {}
    # Nothing is opened that was sealed.
    registry = SqliteRegistry(
        _path(config),
        Sealer(bytes(KEY_BYTES)),
        config.lease,
        account=config.account,
        retired_accounts=config.retired_accounts,
    )
    return {fingerprint(account): count for account, count in registry.look_for_others().items()}


def _path(config: RegistryConfig) -> Path:
    return Path(config.file) if config.file else state_folder() / "registry.db"


def state_folder() -> Path:
    """Where this user's programs keep what outlives them.

    Source: XDG Base Directory Specification, `XDG_STATE_HOME`.
    """
    named = os.environ.get("XDG_STATE_HOME", "")
    # The specification has relative paths ignored.
    base = Path(named) if named.startswith("/") else Path("~/.local/state").expanduser()
    return base / "liveavatar-gateway"


def make_registry(config: RegistryConfig) -> Registry:
    """Make the registry that was asked for; nothing but its key is read or written yet.

    Raises:
        BadKey: the key cannot be used.
        RegistryUnavailable: its folder cannot be made, or the key beside it not be read.
    """
    if config.file == OFF:
        return MemoryRegistry(config.lease, account=config.account, retired_accounts=config.retired_accounts)
    path = _path(config)
    try:
        if not config.file:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = parsed_key(config.key) if config.key else key_beside(path.with_name(f"{path.name}.key"))
    except OSError as error:
        raise RegistryUnavailable(
            f"the registry {path} cannot be used: {error}; name a file where this user may write, or `{OFF}`",
            facts={"error": str(error)},
        ) from error
    except (BadKey, UnicodeDecodeError) as error:
        raise BadKey(f"the key of the registry {path} cannot be used: {error}") from None
    return SqliteRegistry(
        path, Sealer(key), config.lease, account=config.account, retired_accounts=config.retired_accounts
    )
