"""File of tenants, their credentials and quotas, and of the issuers of tokens: `GATEWAY_AUTH_FILE`, in TOML.

The file is validated as a whole and used as a whole: a mistake anywhere keeps the previous content in use.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import httpx
from pydantic import AwareDatetime, BaseModel, Field, PrivateAttr, ValidationError, model_validator

from liveavatar_gateway.auth import keys
from liveavatar_gateway.auth.budgets import Budget
from liveavatar_gateway.auth.principal import Role
from liveavatar_gateway.auth.quotas import Quotas
from liveavatar_gateway.guarded_files import UnsafeFile, read_guarded
from liveavatar_gateway.rooms.tokens import LiveKitConfig
from liveavatar_gateway.toml_files import BadToml, Place, Table, explain, parse_toml

SETTING: Final = "GATEWAY_AUTH_FILE"
MAX_BYTES: Final = 4 * 1024 * 1024
"""Largest file that is read; ten thousand tenants take half of it."""
_MAX_SECRET_BYTES: Final = 4096
_EVERY_TENANT: Final = "*"
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")

TENANT_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""Pattern of tenant names, which are labels of metrics and prefixes of rooms."""

AVATAR_PATTERN: Final = r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$"
"""Pattern of the ids of avatars, as specs of sessions have them."""

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signature algorithms of tokens. None has a shared secret, with which the gateway could make tokens itself."""

_Role = Annotated[Role, Field(strict=False)]
_Roles = Annotated[frozenset[_Role], Field(min_length=1, strict=False)]
_AvatarId = Annotated[str, Field(pattern=AVATAR_PATTERN)]
_ClaimName = Annotated[str, Field(min_length=1, max_length=100)]


class UnusableAuthFile(ValueError):
    """Unusable file; the message names the setting, the file, the place in the file and the cause."""


class KeyEntry(Table):
    """API key of a tenant."""

    id: str = Field(pattern=f"^{keys.ID_PATTERN}$")
    digest: str = Field(pattern=f"^{keys.DIGEST_PATTERN}$")
    roles: _Roles
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None
    note: str = Field("", max_length=200)
    """Purpose of the key, for people."""


class CertificateEntry(Table):
    """Certificate of a caller, recognised by a name that a trusted authority has signed."""

    name: str = Field(pattern=r"^(dns:[a-z0-9.-]{1,253}|uri:[!-~]{3,2000})$")
    """Subject alternative name with its kind: `uri:spiffe://example.org/agent`, or `dns:agent.example.org`."""
    roles: _Roles


class Rooms(Table):
    """Rooms on the LiveKit server that a tenant may use."""

    prefix: str | None = Field(None, min_length=1, max_length=100)
    """Begin of the names; without it and without `names`, the name of the tenant and a hyphen."""
    names: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(strict=False)] = ()
    """Whole names."""

    livekit_url: str = Field("", pattern=r"^(wss?://[^\s/@?#]+/?)?$")
    """URL of the tenant's own LiveKit server; empty for the gateway's."""
    livekit_key: str = Field("", max_length=200)
    livekit_secret_file: Annotated[Path | None, Field(strict=False)] = None
    """Absolute path of the file with the API secret of that server; read with this file."""

    _secret: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _has_a_whole_server(self) -> Self:
        given = (bool(self.livekit_url), bool(self.livekit_key), self.livekit_secret_file is not None)
        if any(given) and not all(given):
            raise ValueError("livekit_url, livekit_key and livekit_secret_file belong together")
        if self.livekit_secret_file is not None and not self.livekit_secret_file.is_absolute():
            raise ValueError("livekit_secret_file is not an absolute path")
        return self

    @property
    def server(self) -> LiveKitConfig | None:
        """LiveKit server of the tenant's own; None without one."""
        if not self._secret:
            return None
        return LiveKitConfig(url=self.livekit_url, api_key=self.livekit_key, api_secret=self._secret)

    def read_secret(self) -> None:
        """Read the secret of the LiveKit server. Blocks.

        Raises:
            UnusableAuthFile: the file of the secret cannot be used.
        """
        if self.livekit_secret_file is None:
            return
        path = self.livekit_secret_file
        try:
            secret = read_guarded(path, _MAX_SECRET_BYTES, private=True).decode().strip()
        except UnsafeFile as error:
            raise UnusableAuthFile(str(error)) from None
        except (OSError, ValueError) as error:
            raise UnusableAuthFile(f"{path} cannot be read: {error}") from None
        if not secret or len(secret) > _MAX_SECRET_BYTES:
            raise UnusableAuthFile(f"{path} holds no secret of at most {_MAX_SECRET_BYTES} bytes")
        self._secret = secret

    def allow(self, room: str, tenant: str) -> bool:
        """Return whether a tenant may use a room."""
        return room in self.names or (bool(prefix := self.prefix_of(tenant)) and room.startswith(prefix))

    def prefix_of(self, tenant: str) -> str:
        """Return the begin of the names of a tenant's rooms; empty if whole names alone are allowed."""
        return self.prefix or ("" if self.names else f"{tenant}-")


class PoolShare(Table):
    """Share of a tenant in the permits of all accounts."""

    weight: float = Field(1.0, ge=0.01, le=1000, strict=False)
    """Share while tenants wait: one with weight 3 gets three times the time of one with weight 1."""
    reserved: int = Field(0, ge=0, le=100_000)
    """Permits that are kept free for the tenant."""
    ceiling: int | None = Field(None, ge=0, le=100_000)
    """Most permits at once, over all processes; None for no limit."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.ceiling is not None and self.reserved > self.ceiling:
            raise ValueError("reserved is above ceiling")
        return self


class Tenant(Table):
    """Team or customer that shares the gateway with others."""

    suspended: bool = False
    """True refuses every call of the tenant, and ends its sessions."""
    keys: Annotated[tuple[KeyEntry, ...], Field(strict=False)] = ()
    certificates: Annotated[tuple[CertificateEntry, ...], Field(strict=False)] = ()
    quotas: Quotas = Field(default_factory=Quotas)
    budget: Budget = Field(default_factory=Budget)
    rooms: Rooms = Field(default_factory=Rooms)
    pool: PoolShare = Field(default_factory=PoolShare)
    avatars: Annotated[tuple[_AvatarId, ...] | None, Field(strict=False)] = None
    """Ids of the avatars that the tenant may use; None for all avatars, an empty list for none."""


class Issuer(Table):
    """Issuer of JSON web tokens, with the keys that verify them and the meaning of their claims."""

    issuer: str = Field(min_length=1, max_length=500)
    """Value of the claim `iss`."""
    audience: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, strict=False)]
    """Values of the claim `aud`, of which a token needs one: they name this gateway."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1, strict=False)]
    jwks_file: Annotated[Path | None, Field(strict=False)] = None
    """Absolute path of a file with the JSON web key set."""
    jwks_url: str | None = None
    """Address of the JSON web key set."""
    tenant: str | None = None
    """Tenant of every token."""
    tenant_claim: _ClaimName | None = None
    """Claim that names the tenant, as an alternative to `tenant`."""
    tenants: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Tenants that `tenant_claim` may name; `["*"]` for all tenants of the file."""
    roles: _Roles
    """Roles that a token can have at most."""
    roles_claim: _ClaimName | None = None
    """Claim that lists the roles, as a list or separated by spaces; without it, every token has all of `roles`."""
    roles_prefix: str = Field("", max_length=100)
    """Begin of the values in `roles_claim` that are roles, such as `liveavatar:`."""
    leeway_s: float = Field(30.0, ge=0, le=300)
    """Tolerated difference of the clocks of issuer and gateway."""
    refresh_s: float = Field(300.0, ge=10, le=86_400)
    """Age at which the key set is read again; a removed key is accepted for at most twice this time."""
    refetch_s: float = Field(30.0, ge=1, le=3600)
    """Shortest time between two reads of the key set for the sake of keys that are not in it."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.jwks_file is None) == (self.jwks_url is None):
            raise ValueError("needs either jwks_file or jwks_url")
        if (self.tenant is None) == (self.tenant_claim is None):
            raise ValueError("needs either tenant or tenant_claim")
        if (self.tenant_claim is None) != (not self.tenants):
            raise ValueError('tenant_claim and tenants belong together; tenants = ["*"] allows every tenant')
        if self.roles_prefix and self.roles_claim is None:
            raise ValueError("roles_prefix is of use only with roles_claim")
        if self.jwks_file is not None and not self.jwks_file.is_absolute():
            raise ValueError("jwks_file is not an absolute path")
        if self.jwks_url is not None:
            _require_safe(self.jwks_url)
        return self

    def allows(self, tenant: str) -> bool:
        """Return whether the issuer may name a tenant."""
        return tenant == self.tenant or tenant in self.tenants or _EVERY_TENANT in self.tenants


def _require_safe(url: str) -> None:
    """Refuse an address over which somebody on the way could send keys of their own."""
    try:
        parts = urlsplit(url)
        is_usable = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        # httpx, which makes the call, is stricter about hosts.
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        is_usable = False
    if not is_usable or parts.scheme not in ("http", "https"):
        raise ValueError("jwks_url is not an https:// address with a host and without credentials")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError("jwks_url must use https://; http:// is accepted for loopback addresses only")


class AuthConfig(Table):
    """Content of the file."""

    tenants: dict[Annotated[str, Field(pattern=TENANT_PATTERN)], Tenant] = Field(default_factory=dict)
    issuers: Annotated[tuple[Issuer, ...], Field(strict=False)] = ()

    _keys: Mapping[str, tuple[str, KeyEntry]] = PrivateAttr(default_factory=dict)
    _certificates: Mapping[str, tuple[str, CertificateEntry]] = PrivateAttr(default_factory=dict)
    _issuers: Mapping[str, Issuer] = PrivateAttr(default_factory=dict)
    _room_names: AbstractSet[tuple[str, str]] = PrivateAttr(default_factory=frozenset)
    _room_prefixes: AbstractSet[tuple[str, str]] = PrivateAttr(default_factory=frozenset)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _require_unique("API key", (key.id for tenant in self.tenants.values() for key in tenant.keys))
        _require_unique("certificate", (c.name for tenant in self.tenants.values() for c in tenant.certificates))
        _require_unique("issuer", (issuer.issuer for issuer in self.issuers))
        for number, issuer in enumerate(self.issuers):
            named = [*issuer.tenants, *([issuer.tenant] if issuer.tenant is not None else [])]
            for tenant in named:
                if tenant != _EVERY_TENANT and tenant not in self.tenants:
                    raise ValueError(
                        f"issuers[{number}] names the tenant {tenant!r}, which the file does not have"
                    )
        return self

    def model_post_init(self, _context: Any, /) -> None:
        """Index the credentials."""
        self._keys = {key.id: (name, key) for name, tenant in self.tenants.items() for key in tenant.keys}
        self._certificates = {
            entry.name: (name, entry) for name, tenant in self.tenants.items() for entry in tenant.certificates
        }
        self._issuers = {issuer.issuer: issuer for issuer in self.issuers}
        rooms = [(name, tenant.rooms) for name, tenant in self.tenants.items()]
        self._room_names = {(own.livekit_url, name) for _, own in rooms for name in own.names}
        self._room_prefixes = {(own.livekit_url, own.prefix_of(tenant)) for tenant, own in rooms}

    def may_use_room(self, tenant: str, room: str) -> bool:
        """Return whether a room is one of a tenant's.

        A room that entries of several tenants match belongs to the tenant with the longest one: "acme-b-1" to the
        tenant "acme-b" and not to the tenant "acme". Only entries for the same LiveKit server are compared.
        """
        found = self.tenants.get(tenant)
        if found is None or not found.rooms.allow(room, tenant):
            return False
        server, prefix = found.rooms.livekit_url, found.rooms.prefix_of(tenant)
        if room in found.rooms.names:
            return True
        longer = ((server, room[:end]) for end in range(len(prefix) + 1, len(room) + 1))
        return (server, room) not in self._room_names and self._room_prefixes.isdisjoint(longer)

    def budget(self, tenant: str) -> Budget:
        """Return the budget of a tenant; without limits if the file does not have the tenant."""
        found = self.tenants.get(tenant)
        return Budget() if found is None else found.budget

    def require_countable(self, *, has_registry: bool) -> None:
        """Refuse budgets without a registry in which all processes, and later ones, count their minutes.

        Raises:
            UnusableAuthFile: a tenant has a budget, and there is no such registry.
        """
        limited = next((name for name, tenant in self.tenants.items() if tenant.budget.is_limited), None)
        if limited is not None and not has_registry:
            raise UnusableAuthFile(
                f"tenants.{limited}.budget needs a registry, in which minutes are counted; set "
                "GATEWAY_REGISTRY_FILE to a file, or remove the budgets"
            )

    def pool_shares(self) -> Mapping[str, PoolShare]:
        """Return the shares of all tenants in the pool."""
        return {name: tenant.pool for name, tenant in self.tenants.items()}

    def key(self, key_id: str) -> tuple[str, KeyEntry] | None:
        """Return an API key with the name of its tenant; None if the file has no such key."""
        return self._keys.get(key_id)

    def certificate(self, name: str) -> tuple[str, CertificateEntry] | None:
        """Return a certificate with the name of its tenant; None if the file has no such certificate."""
        return self._certificates.get(name)

    def issuer(self, issuer: str) -> Issuer | None:
        """Return an issuer; None if the file has no such issuer."""
        return self._issuers.get(issuer)


def read(path: Path, *, has_registry: bool = True, now: datetime | None = None) -> AuthConfig:
    """Read and check the file. Blocks, so an event loop calls it in a thread.

    Args:
        path: Path of the file.
        has_registry: False without a registry in which minutes are counted, so that budgets are refused.
        now: Time at which keys count as active; defaults to the present.

    Raises:
        UnusableAuthFile: the file cannot be read, or is invalid.
    """
    try:
        content = read_guarded(path, MAX_BYTES, private=False)
    except UnsafeFile as error:
        raise UnusableAuthFile(f"{SETTING}: {error}") from None
    except FileNotFoundError:
        raise UnusableAuthFile(
            f"{SETTING}: {path} cannot be read: No such file; create it with the first key: "
            "`liveavatar-gateway keys make NAME --new-tenant --role ROLE`"
        ) from None
    except PermissionError:
        raise UnusableAuthFile(
            f"{SETTING}: {path} cannot be read: Permission denied; chown it to the user of this process"
        ) from None
    except OSError as error:
        raise UnusableAuthFile(f"{SETTING}: {path} cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise UnusableAuthFile(f"{SETTING}: {path} is larger than {MAX_BYTES} bytes")
    try:
        config = parse(content, now=now)
        config.require_countable(has_registry=has_registry)
        for tenant in config.tenants.values():
            tenant.rooms.read_secret()
    except UnusableAuthFile as error:
        raise UnusableAuthFile(f"{SETTING}: {path}: {error}") from None
    return config


def parse(content: bytes, *, now: datetime | None = None) -> AuthConfig:
    """Return the content of a file, see `read`; the error names neither setting nor file."""
    try:
        config = AuthConfig.model_validate(parse_toml(content))
    except BadToml as error:
        raise UnusableAuthFile(str(error)) from None
    except ValidationError as error:
        raise UnusableAuthFile(explain(error, _known_keys)) from None
    _require_few_active(config, now or datetime.now(UTC))
    return config


def _require_few_active(config: AuthConfig, now: datetime) -> None:
    for name, tenant in config.tenants.items():
        count = keys.count_active(tenant.keys, now)
        if count > keys.MAX_ACTIVE:
            raise UnusableAuthFile(
                f"tenants.{name}.keys: {count} keys are active, and at most {keys.MAX_ACTIVE} may be; revoke some"
            )


def _require_unique(what: str, names: Iterable[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"the {what} {repeated[0]!r} occurs twice")


def _known_keys(place: Place) -> list[str]:
    """Return the keys of the table in which an unknown key was found."""
    tables: Mapping[int | str, type[BaseModel]] = {
        "keys": KeyEntry,
        "certificates": CertificateEntry,
        "quotas": Quotas,
        "budget": Budget,
        "rooms": Rooms,
        "pool": PoolShare,
        "issuers": Issuer,
    }
    if len(place) == 1:
        return list(AuthConfig.model_fields)
    # A tenant may be named like a table, so its own keys are recognised by their depth.
    table = Tenant if len(place) == 3 and place[0] == "tenants" else None
    return list((table or tables[next(part for part in place[-2::-1] if part in tables)]).model_fields)
