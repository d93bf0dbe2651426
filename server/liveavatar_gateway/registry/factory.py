"""Construction of the registry from settings: its file, its key and its account."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from liveavatar_gateway.core.errors import RegistryUnavailable
from liveavatar_gateway.guarded_files import UnsafeFile
from liveavatar_gateway.registry.base import LeaseConfig, Registry
from liveavatar_gateway.registry.memory import MemoryRegistry
from liveavatar_gateway.registry.sealing import KEY_BYTES, BadKey, Sealer, parse_key, read_or_make_key
from liveavatar_gateway.registry.sqlite import SqliteRegistry

OFF: Final = "off"
"""Value in place of a file, for a registry in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """Choice of the registry and of its account."""

    file: str = ""
    """Path of the database, `off`, or empty for a file in this user's state folder."""
    key: str = field(default="", repr=False)
    """Key for secrets, as text; empty for a key in a file."""
    key_file: Path | None = None
    """File of the key, made on first use; None for a file next to the database."""
    account: str
    """Name of the LiveAvatar account and key; sessions of another key cannot be stopped with this."""
    retired_accounts: tuple[str, ...] = ()
    """Names of accounts of former keys, whose orphans are ended."""
    lease: LeaseConfig = field(default_factory=LeaseConfig)
    """Lease by which a process shows that it lives."""


def account_name(api_url: str, api_key: str) -> str:
    """Return a name for an account, from which neither its key nor its address can be read."""
    return hashlib.sha256(f"{api_url}\n{api_key}".encode()).hexdigest()[:32]


def fingerprint(account: str) -> str:
    """Return the short form of an account by which people compare the keys of processes."""
    return account[:8]


def orphans_of_other_keys(config: RegistryConfig) -> Mapping[str, int]:
    """Count orphans of keys that are not configured, by fingerprint; writes nothing.

    Raises:
        RegistryUnavailable: the registry cannot be read.
    """
    if config.file == OFF:
        return {}
    # Any key does, since nothing sealed is opened.
    registry = SqliteRegistry(
        _path(config),
        Sealer(bytes(KEY_BYTES)),
        config.lease,
        account=config.account,
        retired_accounts=config.retired_accounts,
    )
    return {fingerprint(account): count for account, count in registry.read_other_accounts().items()}


def _path(config: RegistryConfig) -> Path:
    return Path(config.file) if config.file else state_folder() / "registry.db"


def state_folder() -> Path:
    """Return the folder for state of this user's programs.

    Source: XDG Base Directory Specification, `XDG_STATE_HOME`.
    """
    configured = os.environ.get("XDG_STATE_HOME", "")
    # The specification demands that relative paths are ignored.
    base = Path(configured) if configured.startswith("/") else Path("~/.local/state").expanduser()
    return base / "liveavatar-gateway"


def make_registry(config: RegistryConfig) -> Registry:
    """Make the configured registry; only its key is read or written yet.

    Raises:
        BadKey: the key cannot be used.
        RegistryUnavailable: the folder cannot be made, or the key file cannot be read.
    """
    if config.file == OFF:
        return MemoryRegistry(config.lease, account=config.account, retired_accounts=config.retired_accounts)
    path = _path(config)
    try:
        if not config.file:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_file = config.key_file or path.with_name(f"{path.name}.key")
        key = parse_key(config.key) if config.key else read_or_make_key(key_file)
    except UnsafeFile as error:
        raise BadKey(str(error)) from None
    except OSError as error:
        raise RegistryUnavailable(
            f"the registry {path} cannot be used: {error}; name a file where this user may write, or `{OFF}`"
        ) from error
    except (BadKey, UnicodeDecodeError) as error:
        raise BadKey(f"the key of the registry {path} cannot be used: {error}") from None
    return SqliteRegistry(
        path, Sealer(key), config.lease, account=config.account, retired_accounts=config.retired_accounts
    )
