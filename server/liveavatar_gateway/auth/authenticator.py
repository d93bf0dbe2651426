"""Authentication of a call: from its headers and the names in its certificate to a principal, or a refusal."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from liveavatar_gateway.auth import keys
from liveavatar_gateway.auth.auth_file import AuthConfig, KeyEntry, PoolShare, Rooms
from liveavatar_gateway.auth.budgets import Budget
from liveavatar_gateway.auth.principal import ANONYMOUS, Method, Principal, Role
from liveavatar_gateway.auth.quotas import Quotas
from liveavatar_gateway.core.errors import (
    CredentialExpired,
    CredentialInvalid,
    CredentialMissing,
    TenantSuspended,
)
from liveavatar_gateway.rooms.tokens import LiveKitConfig

if TYPE_CHECKING:
    from liveavatar_gateway.auth.tokens import TokenVerifier

BEARER_HEADER: Final = "authorization"
KEY_HEADER: Final = "x-api-key"
"""Header for API keys from clients that cannot set `authorization`."""
_SCHEME: Final = "bearer "
_UNKNOWN: Final[Mapping[Method, str]] = {
    Method.API_KEY: "unknown API key",
    Method.CERTIFICATE: "unknown certificate",
    Method.TOKEN: "the token's issuer is not one of the gateway's",
}

Metadata = Iterable[tuple[str, str | bytes]]
"""Headers of a call. Names are in lower case, as HTTP/2 has them."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Authenticator:
    """Verifier of all kinds of credentials against the current content of the file. The creator closes it."""

    def __init__(
        self, config: AuthConfig, verifier: "TokenVerifier", *, now: Callable[[], datetime] = _utc_now
    ) -> None:
        self._config = config
        self._verifier = verifier
        self._now = now
        verifier.use(config.issuers)

    @property
    def config(self) -> AuthConfig:
        """Current content of the file: tenants with their quotas."""
        return self._config

    @property
    def tenants(self) -> Collection[str] | None:
        """Present tenants of the file."""
        return frozenset(self._config.tenants)

    def use(self, config: AuthConfig) -> bool:
        """Use another content of the file from now on; return False if the content is the same."""
        if config == self._config:
            return False
        self._config = config
        self._verifier.use(config.issuers)
        return True

    def quotas(self, tenant: str) -> Quotas | None:
        """Return the present quotas of a tenant; None for anonymous callers of before, who have none."""
        found = self._config.tenants.get(tenant)
        return None if found is None else found.quotas

    def pool_share(self, tenant: str) -> PoolShare:
        """Return the share of a tenant in the pool."""
        found = self._config.tenants.get(tenant)
        return PoolShare() if found is None else found.pool

    def pool_shares(self) -> Mapping[str, PoolShare]:
        """Return the shares of all tenants in the pool."""
        return self._config.pool_shares()

    def budget(self, tenant: str) -> Budget:
        """Return the present budget of a tenant."""
        return self._config.budget(tenant)

    def rooms(self, tenant: str) -> Rooms | None:
        """Return the rooms that a tenant may use; None for a tenant that may use every room."""
        found = self._config.tenants.get(tenant)
        return None if found is None else found.rooms

    def may_use_room(self, tenant: str, room: str) -> bool:
        """Return whether a room is one of a tenant's."""
        return self._config.may_use_room(tenant, room)

    def avatars(self, tenant: str) -> Collection[str] | None:
        """Return the ids of the avatars that a tenant may use; None for a tenant that may use every avatar."""
        found = self._config.tenants.get(tenant)
        return None if found is None else found.avatars

    def livekit(self, tenant: str) -> LiveKitConfig | None:
        """Return a tenant's own LiveKit server; None for a tenant without one."""
        found = self._config.tenants.get(tenant)
        return None if found is None else found.rooms.server

    def is_active(self, tenant: str) -> bool:
        """Return False for a tenant that was suspended or removed."""
        found = self._config.tenants.get(tenant)
        # Sessions of anonymous callers end by their own grace once nobody can reach them.
        return not tenant or (found is not None and not found.suspended)

    async def aclose(self) -> None:
        """Cancel reads of keys."""
        await self._verifier.aclose()

    async def authenticate(self, metadata: Metadata, certificate_names: Sequence[str] = ()) -> Principal:
        """Return the caller.

        A key or token in the headers takes precedence over a certificate, which may be that of a proxy.

        Args:
            metadata: Headers of the call.
            certificate_names: Verified names of the caller's certificate with their kinds, as in
                `uri:spiffe://example.org/agent`.

        Raises:
            AccessError: the caller has no credential, or a credential that is not accepted.
        """
        sent = _sent(metadata)
        by_certificate = self._of_certificate(certificate_names)
        if sent is None:
            if by_certificate is None:
                if certificate_names:
                    raise CredentialInvalid("unknown certificate")
                raise CredentialMissing
            principal = by_certificate
        else:
            principal = self._of_key(sent) if sent.startswith(keys.PREFIX) else await self._of_token(sent)
            if by_certificate is not None and by_certificate.tenant != principal.tenant:
                raise CredentialInvalid("the certificate belongs to another tenant than the key or token")
        self._require_active(principal.tenant)
        return principal

    def check(self, principal: Principal) -> None:
        """Refuse a principal whose credential would no longer be accepted with its roles, for open streams.

        Raises:
            AccessError: the credential expired, was revoked, removed or replaced, or has lost a role; or the
                tenant was suspended or removed.
        """
        # First, since a suspended tenant gets no grace for an expired credential.
        self._require_active(principal.tenant)
        granted = self._granted(principal)
        if granted is None or granted[0] != principal.tenant:
            raise CredentialInvalid(_UNKNOWN[principal.method])
        if not principal.roles <= granted[1]:
            raise CredentialInvalid("the credential has lost a role")

    def _granted(self, principal: Principal) -> tuple[str, frozenset[Role]] | None:
        """Return tenant and roles that the file grants a principal now; None if it has no such credential."""
        if principal.method is Method.API_KEY:
            found = self._config.key(principal.credential)
            if found is None or principal.grounds != (found[1].digest,):
                return None
            # The end of a key may have been changed since.
            self._require_valid(found[1])
            return found[0], found[1].roles
        if principal.expires_at is not None and self._now() >= principal.expires_at:
            raise CredentialExpired(principal.expires_at.isoformat())
        if principal.method is Method.CERTIFICATE:
            again = self._of_certificate(principal.grounds)
            return None if again is None else (again.tenant, again.roles)
        issuer = self._config.issuer("".join(principal.grounds))
        return None if issuer is None or not issuer.allows(principal.tenant) else (principal.tenant, issuer.roles)

    def _of_key(self, text: str) -> Principal:
        key = keys.parse(text)
        tenant, entry = self._config.key(key.key_id) or ("", None)
        if not keys.matches(key, entry) or entry is None:
            raise CredentialInvalid("unknown API key")
        self._require_valid(entry)
        grounds = (entry.digest,)
        return self._principal(tenant, entry.roles, Method.API_KEY, entry.id, entry.expires, grounds=grounds)

    def _require_valid(self, entry: KeyEntry) -> None:
        if entry.revoked is not None:
            raise CredentialInvalid("revoked API key")
        if not keys.is_active(entry, self._now()):
            assert entry.expires is not None  # noqa: S101 - nothing else ends an unrevoked key
            raise CredentialExpired(entry.expires.isoformat())

    async def _of_token(self, text: str) -> Principal:
        found = await self._verifier.verify(text)
        if found.tenant not in self._config.tenants:
            raise CredentialInvalid("the token's tenant is unknown")
        grounds = (found.issuer,)
        return self._principal(
            found.tenant, found.roles, Method.TOKEN, found.name, found.expires_at, grounds=grounds
        )

    def _of_certificate(self, names: Sequence[str]) -> Principal | None:
        found = [known for name in names if (known := self._config.certificate(name)) is not None]
        if not found:
            return None
        if len({tenant for tenant, _ in found}) > 1:
            raise CredentialInvalid("the certificate has names of several tenants")
        tenant, first = found[0]
        roles = frozenset[Role]().union(*(entry.roles for _, entry in found))
        return self._principal(tenant, roles, Method.CERTIFICATE, first.name, None, grounds=tuple(names))

    def _principal(
        self,
        tenant: str,
        roles: frozenset[Role],
        method: Method,
        credential: str,
        expires_at: datetime | None,
        *,
        grounds: tuple[str, ...],
    ) -> Principal:
        return Principal(
            tenant=tenant,
            roles=roles,
            method=method,
            credential=credential,
            expires_at=expires_at,
            grounds=grounds,
        )

    def _require_active(self, tenant: str) -> None:
        found = self._config.tenants.get(tenant)
        if found is None:
            raise CredentialInvalid("the credential's tenant is unknown")
        if found.suspended:
            raise TenantSuspended(tenant)


class NoAuthenticator:
    """Replacement where the gateway asks for no credential: every caller is the same, without limits."""

    @property
    def tenants(self) -> Collection[str] | None:
        """None: there is no file of tenants."""
        return None

    async def authenticate(self, _metadata: Metadata, _certificate_names: Sequence[str] = ()) -> Principal:
        """Return the anonymous principal, whatever the caller sends."""
        return ANONYMOUS

    def check(self, principal: Principal) -> None:
        """Accept."""

    def quotas(self, _tenant: str) -> Quotas | None:
        """Return no quotas."""
        return None

    def pool_share(self, _tenant: str) -> PoolShare:
        """Return the share of everybody."""
        return PoolShare()

    def pool_shares(self) -> Mapping[str, PoolShare]:
        """Return no shares: without a file, there are no tenants."""
        return {}

    def budget(self, _tenant: str) -> Budget:
        """Return a budget without limits."""
        return Budget()

    def rooms(self, _tenant: str) -> Rooms | None:
        """Return no limits to rooms."""
        return None

    def may_use_room(self, _tenant: str, _room: str) -> bool:
        """Return True."""
        return True

    def avatars(self, _tenant: str) -> Collection[str] | None:
        """Return no limits to avatars."""
        return None

    def livekit(self, _tenant: str) -> LiveKitConfig | None:
        """Return no server of a tenant's own."""
        return None

    def is_active(self, _tenant: str) -> bool:
        """Return True: tenants of before, if any, are unknown here."""
        return True

    async def aclose(self) -> None:
        """Do nothing."""


def _sent(metadata: Metadata) -> str | None:
    """Return the key or token in the headers; None without one."""
    values = [(name, value) for name, value in metadata if name in (BEARER_HEADER, KEY_HEADER)]
    if not values:
        return None
    if len(values) > 1:
        # Proxies and libraries do not agree on which of several counts.
        raise CredentialInvalid("the call has more than one credential")
    name, value = values[0]
    text = value if isinstance(value, str) else value.decode("ascii", errors="replace")
    if name == BEARER_HEADER:
        if not text[: len(_SCHEME)].lower() == _SCHEME:
            raise CredentialInvalid("the header `authorization` is not `Bearer ...`")
        text = text[len(_SCHEME) :].strip()
    elif not text.startswith(keys.PREFIX):
        raise CredentialInvalid("malformed API key")
    return text
