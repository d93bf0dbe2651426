"""JSON web tokens: signature, issuer, audience and times, and the tenant and roles that the claims name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt

from liveavatar_gateway.auth.auth_file import Issuer
from liveavatar_gateway.auth.jwks import KeyCache, KeySetClient, KeysUnavailable, file_cache
from liveavatar_gateway.auth.principal import Role
from liveavatar_gateway.core.errors import CredentialExpired, CredentialInvalid, CredentialUnverifiable
from liveavatar_gateway.upstream.bounds import bounded

MAX_CHARS: Final = 8192
"""Longest token; the metadata of a call has room for 16 KiB."""
_MAX_NAME_BYTES: Final = 200
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_MAX_ROLES: Final = 1000
"""Values of a roles claim that are looked at."""

CacheOf = Callable[[Issuer], KeyCache]
"""Makes the key cache of an issuer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Meaning of a token whose signature and claims were verified."""

    tenant: str
    roles: frozenset[Role]
    issuer: str
    name: str
    """Issuer and subject, for logs."""
    expires_at: datetime
    """End of the validity, with the tolerance for clocks."""


def cache_of(client: KeySetClient) -> CacheOf:
    """Return a function that makes the key cache of an issuer as the issuer is configured."""

    def make(issuer: Issuer) -> KeyCache:
        if issuer.jwks_file is not None:
            return file_cache(issuer.jwks_file, issuer.algorithms, name=issuer.issuer, refresh_s=issuer.refresh_s)
        assert issuer.jwks_url is not None  # noqa: S101 - the file's validation requires one of both
        return client.cache(
            issuer.jwks_url,
            issuer.algorithms,
            name=issuer.issuer,
            refresh_s=issuer.refresh_s,
            refetch_s=issuer.refetch_s,
        )

    return make


class TokenVerifier:
    """Verifier of the tokens of all configured issuers. The creator closes it."""

    def __init__(self, cache_of: CacheOf) -> None:
        self._cache_of = cache_of
        self._issuers: dict[str, tuple[Issuer, KeyCache]] = {}
        self._replaced: list[KeyCache] = []

    def use(self, issuers: Sequence[Issuer]) -> None:
        """Verify tokens of these issuers from now on. Issuers that did not change keep the keys that were read."""
        before, self._issuers = self._issuers, {}
        for issuer in issuers:
            known = before.get(issuer.issuer)
            if known is not None and known[0] == issuer:
                self._issuers[issuer.issuer] = known
            else:
                self._issuers[issuer.issuer] = issuer, self._cache_of(issuer)
        kept = {id(cache) for _, cache in self._issuers.values()}
        # Calls that wait for a replaced cache must still get an answer, so it is not closed now.
        self._replaced = [cache for cache in self._replaced if cache.is_reading]
        self._replaced += [cache for _, cache in before.values() if id(cache) not in kept]

    async def aclose(self) -> None:
        """Cancel reads of keys."""
        for cache in [*(cache for _, cache in self._issuers.values()), *self._replaced]:
            await cache.aclose()

    async def verify(self, token: str) -> Verified:
        """Verify a token.

        Raises:
            CredentialInvalid: the token is malformed, of another issuer or for another audience, or its signature
                or a claim is wrong.
            CredentialExpired: the token was valid.
            CredentialUnverifiable: the issuer's keys cannot be read.
        """
        issuer, cache, kid, algorithm = self._origin(token)
        try:
            key = await cache.find(kid, algorithm)
        except KeysUnavailable as error:
            raise CredentialUnverifiable(issuer.issuer, error.retry_after_s) from None
        if key is None:
            raise CredentialInvalid("the token is signed with a key that the issuer does not have")
        claims = _verified_claims(token, key, issuer)
        subject = claims.get("sub", "")
        return Verified(
            tenant=_tenant(claims, issuer),
            roles=_roles(claims, issuer),
            issuer=issuer.issuer,
            name=bounded(f"{issuer.issuer}#{subject}", _MAX_NAME_BYTES),
            expires_at=_expiry(claims, issuer.leeway_s),
        )

    def _origin(self, token: str) -> tuple[Issuer, KeyCache, str | None, str]:
        """Return issuer, keys, key id and algorithm that an unverified token names."""
        if len(token) > MAX_CHARS:
            raise CredentialInvalid(f"the token is longer than {MAX_CHARS} characters")
        try:
            parts = jwt.decode_complete(token, options={"verify_signature": False})
        # PyJWT documents its own errors; a token of a stranger must not become a fault of the gateway.
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise CredentialInvalid("malformed token") from None
        named = parts["payload"].get("iss")
        known = self._issuers.get(named) if isinstance(named, str) else None
        if known is None:
            raise CredentialInvalid("the token's issuer is not one of the gateway's")
        issuer, cache = known
        algorithm = parts["header"].get("alg")
        # Compared here as well as by PyJWT, since it selects the key.
        if algorithm not in issuer.algorithms:
            raise CredentialInvalid("the token's algorithm is not one of the issuer's")
        return issuer, cache, parts["header"].get("kid"), algorithm


def _verified_claims(token: str, key: jwt.PyJWK, issuer: Issuer) -> Mapping[str, Any]:
    try:
        return jwt.decode(
            token,
            key,
            algorithms=list(issuer.algorithms),
            audience=list(issuer.audience),
            issuer=issuer.issuer,
            leeway=issuer.leeway_s,
            options={"require": ["iss", "aud", "exp"], "enforce_minimum_key_length": True},
        )
    except jwt.ExpiredSignatureError:
        # Raised after the signature was verified, so the claims are the issuer's.
        claims = jwt.decode(token, options={"verify_signature": False})
        raise CredentialExpired(_expiry(claims).isoformat()) from None
    except jwt.MissingRequiredClaimError as error:
        raise CredentialInvalid(f"the token has no claim {error.claim!r}") from None
    except jwt.InvalidAudienceError:
        raise CredentialInvalid("the token is for another audience") from None
    except jwt.ImmatureSignatureError:
        raise CredentialInvalid("the token is not valid yet") from None
    except jwt.InvalidSignatureError:
        raise CredentialInvalid("the token's signature is wrong") from None
    except jwt.InvalidKeyError:
        raise CredentialInvalid("the issuer's key is too short") from None
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
        raise CredentialInvalid("malformed token") from None


def _expiry(claims: Mapping[str, Any], leeway_s: float = 0.0) -> datetime:
    try:
        expiry = datetime.fromtimestamp(int(claims["exp"]), UTC)
    except (ValueError, OverflowError, OSError):
        raise CredentialInvalid("the token's claim 'exp' is out of range") from None
    # Some issuers write the last second of the year 9999 for "never", to which nothing can be added.
    return min(expiry, _LAST - timedelta(seconds=leeway_s)) + timedelta(seconds=leeway_s)


def _tenant(claims: Mapping[str, Any], issuer: Issuer) -> str:
    if issuer.tenant is not None:
        return issuer.tenant
    assert issuer.tenant_claim is not None  # noqa: S101 - the file's validation requires one of both
    tenant = _claim(claims, issuer.tenant_claim)
    if not isinstance(tenant, str):
        raise CredentialInvalid(f"the token has no claim {issuer.tenant_claim!r} with the name of a tenant")
    if not issuer.allows(tenant):
        raise CredentialInvalid("the token's issuer may not name its tenant")
    return tenant


def _roles(claims: Mapping[str, Any], issuer: Issuer) -> frozenset[Role]:
    if issuer.roles_claim is None:
        return issuer.roles
    value = _claim(claims, issuer.roles_claim)
    listed = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    prefix = issuer.roles_prefix
    named = {
        entry.removeprefix(prefix)
        for entry in listed[:_MAX_ROLES]
        if isinstance(entry, str) and entry.startswith(prefix)
    }
    return frozenset(role for role in issuer.roles if role in named)


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim; a name with dots is also a path, as in `realm_access.roles`."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
