"""File of the pool: the LiveAvatar accounts of the gateway, `GATEWAY_POOL_FILE`, in TOML.

The file is validated as a whole, with the files of the keys that it names, and used as a whole: a mistake anywhere
keeps the previous content in use.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from liveavatar_gateway.auth.auth_file import AVATAR_PATTERN, TENANT_PATTERN
from liveavatar_gateway.config.secrets import require_sendable
from liveavatar_gateway.config.settings import PREFIX, ConfigError
from liveavatar_gateway.guarded_files import UnsafeFile, read_guarded
from liveavatar_gateway.pool.account_health import AccountState
from liveavatar_gateway.toml_files import BadToml, Place, Table, explain, parse_toml
from liveavatar_gateway.upstream.profiles import MAX_PROFILES, PROFILE_PATTERN, Profile

SETTING: Final = f"{PREFIX}POOL_FILE"
MAX_BYTES: Final = 1024 * 1024
"""Largest file that is read."""
_MAX_ACCOUNTS: Final = 100
_MAX_KEY_BYTES: Final = 4096
ACCOUNT_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""Pattern of the names of accounts, which are labels of metrics."""

_AvatarId = Annotated[str, Field(pattern=AVATAR_PATTERN)]
_TenantName = Annotated[str, Field(pattern=TENANT_PATTERN)]
_State = Annotated[AccountState, Field(strict=False)]


class UnusablePoolFile(ValueError):
    """Unusable file; the message names the setting, the file, the place in the file and the cause."""


class AccountEntry(Table):
    """LiveAvatar account."""

    api_key_file: Annotated[Path, Field(strict=False)]
    """Absolute path of the file with the API key; read with this file."""
    max_sessions: int = Field(ge=1, le=10_000)
    """Concurrent sessions: the account's concurrency limit."""
    cost: float = Field(1.0, ge=0, le=1_000_000, strict=False)
    """Relative price of a minute; cheaper accounts are used first."""
    avatars: Annotated[tuple[_AvatarId, ...] | None, Field(strict=False)] = None
    """Ids of the avatars that the account is used for; None for all."""
    tenants: Annotated[tuple[_TenantName, ...] | None, Field(strict=False)] = None
    """Tenants that may use the account; None for all callers."""
    state: _State = AccountState.ACTIVE
    """`active`, `paused` (starts nothing for the time being), or `retired` (its sessions end in peace)."""

    _key: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _has_an_absolute_path(self) -> Self:
        if not self.api_key_file.is_absolute():
            raise ValueError("api_key_file is not an absolute path")
        return self

    @property
    def api_key(self) -> str:
        """API key of the account."""
        return self._key

    def read_key(self) -> None:
        """Read the file of the key. Blocks.

        Raises:
            UnusablePoolFile: the file of the key cannot be used.
        """
        path = self.api_key_file
        try:
            # Editors on Windows begin a file with a byte order mark.
            key = read_guarded(path, _MAX_KEY_BYTES, private=True).decode("utf-8-sig").strip()
        except UnsafeFile as error:
            raise UnusablePoolFile(str(error)) from None
        except UnicodeDecodeError:
            raise UnusablePoolFile(f"{path} is not text") from None
        except OSError as error:
            raise UnusablePoolFile(f"{path} cannot be read: {error.strerror or error}") from None
        if not key:
            raise UnusablePoolFile(f"{path} is empty")
        try:
            require_sendable("api_key", key, str(path))
        except ConfigError as error:
            raise UnusablePoolFile(str(error)) from None
        self._key = key


class PoolFile(Table):
    """Content of the file."""

    accounts: dict[Annotated[str, Field(pattern=ACCOUNT_PATTERN)], AccountEntry] = Field(
        min_length=1, max_length=_MAX_ACCOUNTS
    )
    profiles: dict[Annotated[str, Field(pattern=PROFILE_PATTERN)], Profile] = Field(
        default_factory=dict, max_length=MAX_PROFILES
    )
    """Warm sessions."""

    @model_validator(mode="after")
    def _has_an_account_for_each_profile(self) -> Self:
        for name, profile in self.profiles.items():
            if profile.account is not None and profile.account not in self.accounts:
                raise ValueError(
                    f"profiles.{name} names the account {profile.account!r}, which the file does not have"
                )
            if not any(
                profile.may_run_on(known, tenants=account.tenants, avatars=account.avatars)
                for known, account in self.accounts.items()
            ):
                raise ValueError(
                    f"profiles.{name} has no account that allows its avatar to its payer and to all its tenants"
                )
        return self

    def require_keys_differ(self) -> None:
        """Refuse two accounts with the same key: its sessions would be counted twice.

        Raises:
            UnusablePoolFile: two accounts have the same key.
        """
        known: dict[str, str] = {}
        for name, account in self.accounts.items():
            if (other := known.setdefault(account.api_key, name)) != name:
                raise UnusablePoolFile(f"accounts.{name} has the same key as accounts.{other}")

    def require_payers(self, tenants: Collection[str]) -> None:
        """Refuse profiles that bill nobody, or are for tenants that nobody knows.

        Args:
            tenants: Tenants of the file of tenants.

        Raises:
            UnusablePoolFile: a profile has no payer, or names an unknown tenant.
        """
        for name, profile in self.profiles.items():
            if not profile.paying_tenant:
                raise UnusablePoolFile(
                    f"profiles.{name} has no payer: name the tenant of GATEWAY_AUTH_FILE whose budget pays for "
                    "the warm minutes"
                )
            for tenant in (profile.paying_tenant, *(profile.tenants or ())):
                if tenant not in tenants:
                    raise UnusablePoolFile(
                        f"profiles.{name} names the tenant {tenant!r}, which GATEWAY_AUTH_FILE does not have"
                    )

    @property
    def key_files(self) -> Sequence[Path]:
        """Files of the keys."""
        return [account.api_key_file for account in self.accounts.values()]

    @property
    def max_sessions(self) -> int:
        """Concurrent sessions of all accounts together."""
        return sum(account.max_sessions for account in self.accounts.values())


def read(path: Path, *, tenants: Collection[str] | None = None) -> PoolFile:
    """Read and check the file and the keys. Blocks, so an event loop calls it in a thread.

    Args:
        path: The file.
        tenants: Tenants of the file of tenants; None without one.

    Raises:
        UnusablePoolFile: a file cannot be read, or is invalid.
    """
    try:
        content = read_guarded(path, MAX_BYTES, private=False)
    except UnsafeFile as error:
        raise UnusablePoolFile(f"{SETTING}: {error}") from None
    except OSError as error:
        raise UnusablePoolFile(f"{SETTING}: {path} cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise UnusablePoolFile(f"{SETTING}: {path} is larger than {MAX_BYTES} bytes")
    try:
        found = parse(content)
        for name, account in found.accounts.items():
            try:
                account.read_key()
            except UnusablePoolFile as error:
                raise UnusablePoolFile(f"accounts.{name}.api_key_file: {error}") from None
        found.require_keys_differ()
        if tenants is not None:
            found.require_payers(tenants)
    except UnusablePoolFile as error:
        raise UnusablePoolFile(f"{SETTING}: {path}: {error}") from None
    return found


def parse(content: bytes) -> PoolFile:
    """Return the content of a file, without the keys; the error names neither setting nor file."""
    try:
        return PoolFile.model_validate(parse_toml(content))
    except BadToml as error:
        raise UnusablePoolFile(str(error)) from None
    except ValidationError as error:
        raise UnusablePoolFile(explain(error, _known_keys)) from None


def _known_keys(place: Place) -> Sequence[str]:
    """Return the keys of the table in which an unknown key was found."""
    tables: Mapping[int | str, type[BaseModel]] = {"accounts": AccountEntry, "profiles": Profile}
    return list((PoolFile if len(place) == 1 else tables[place[0]]).model_fields)
