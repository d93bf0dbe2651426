"""Tokens: what an issuer signed for this gateway, in time, is accepted, with tenant and roles that it may name."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar_gateway.auth.auth_file import Issuer
from liveavatar_gateway.auth.jwks import KeyCache, KeySetClient
from liveavatar_gateway.auth.principal import Role
from liveavatar_gateway.auth.tokens import MAX_CHARS, TokenVerifier, cache_of
from liveavatar_gateway.core.errors import CredentialExpired, CredentialInvalid, CredentialUnverifiable
from liveavatar_gateway.upstream.proxies import Proxies
from testkit.tokens import TokenIssuer, key_set, private_key, public_jwk


def configured(issuer: TokenIssuer, **more: Any) -> Issuer:
    values = {
        "issuer": issuer.name,
        "audience": ["gateway"],
        "algorithms": [issuer.algorithm],
        "jwks_url": "https://issuer.example/jwks",
        "tenant": "acme",
        "roles": ["open", "speak"],
        "leeway_s": 5.0,
    } | more
    return Issuer.model_validate({name: value for name, value in values.items() if value is not None})


class Caches:
    """Key caches of issuers that are objects of the test."""

    def __init__(self, *issuers: TokenIssuer) -> None:
        self.jwks = {issuer.name: (lambda issuer=issuer: issuer.jwks) for issuer in issuers}
        self.made: list[KeyCache] = []

    def __call__(self, issuer: Issuer) -> KeyCache:
        async def fetch() -> bytes:
            return self.jwks[issuer.issuer]()

        cache = KeyCache(fetch, issuer.algorithms, name=issuer.issuer, refresh_s=300, refetch_s=1)
        self.made.append(cache)
        return cache


@pytest.fixture
def issuer():
    return TokenIssuer()


async def verify(issuer: TokenIssuer, token: str, **more: Any):
    verifier = TokenVerifier(Caches(issuer))
    verifier.use([configured(issuer, **more)])
    try:
        return await verifier.verify(token)
    finally:
        await verifier.aclose()


async def cause(issuer: TokenIssuer, token: str, **more: Any) -> str:
    with pytest.raises(CredentialInvalid) as refused:
        await verify(issuer, token, **more)
    return refused.value.metadata["cause"]


async def test_a_token_names_tenant_roles_and_end(issuer):
    end = int(datetime.now(UTC).timestamp()) + 60
    found = await verify(issuer, issuer.token(exp=end))
    assert (found.tenant, found.roles) == ("acme", {Role.OPEN, Role.SPEAK})
    assert found.name == "https://issuer.example#agent"
    assert found.expires_at == datetime.fromtimestamp(end + 5, UTC)


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("P-256", "ES256"),
        ("P-384", "ES384"),
        ("P-521", "ES512"),
        ("Ed25519", "EdDSA"),
        ("RSA-2048", "RS256"),
        ("RSA-2048", "PS256"),
    ],
)
async def test_each_algorithm_is_verified(kind, algorithm):
    issuer = TokenIssuer(kind=kind, algorithm=algorithm)
    assert (await verify(issuer, issuer.token())).tenant == "acme"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"aud": "another"}, "for another audience"),
        ({"aud": ["another", "third"]}, "for another audience"),
        ({"aud": None}, "no claim 'aud'"),
        ({"aud": 7}, "for another audience"),
        ({"exp": None}, "no claim 'exp'"),
        ({"exp": "soon"}, "malformed token"),
        ({"exp": [1]}, "malformed token"),
        ({"exp": 10**30}, "'exp' is out of range"),
        ({"nbf": 2**40}, "not valid yet"),
        ({"iat": 2**40}, "not valid yet"),
        ({"sub": 7}, "malformed token"),
    ],
)
async def test_a_wrong_claim_is_refused(issuer, change, said):
    assert said in await cause(issuer, issuer.token(**change))


@pytest.mark.parametrize("name", ["https://another.example", "https://issuer.example/", "", 7, ["x"]])
async def test_a_token_of_another_issuer_is_refused(issuer, name):
    token = jwt.api_jws.encode(json.dumps({"iss": name}).encode(), issuer.key, "ES256", {"kid": issuer.kid})
    assert "issuer is not one of" in await cause(issuer, token)


async def test_one_of_several_audiences_suffices(issuer):
    assert await verify(issuer, issuer.token(aud=["another", "gateway"]), audience=["x", "gateway"])


async def test_an_expired_token_is_told_apart_from_a_wrong_one(issuer):
    token = issuer.token(exp=1_000_000_000)
    with pytest.raises(CredentialExpired) as refused:
        await verify(issuer, token)
    assert refused.value.metadata == {"expired_at": "2001-09-09T01:46:40+00:00"}


async def test_the_clocks_may_differ_by_the_leeway(issuer):
    assert await verify(issuer, issuer.token(lifetime_s=-2))
    with pytest.raises(CredentialExpired):
        await verify(issuer, issuer.token(lifetime_s=-2), leeway_s=0.0)


async def test_a_token_of_another_key_is_refused(issuer):
    other = TokenIssuer()
    assert "signature is wrong" in await cause(issuer, other.token())


async def test_an_expired_token_of_another_key_is_not_called_expired(issuer):
    assert "signature is wrong" in await cause(issuer, TokenIssuer().token(exp=1_000_000_000))


async def test_a_key_that_the_issuer_does_not_have_is_refused(issuer):
    assert "key that the issuer does not have" in await cause(issuer, issuer.token(headers={"kid": "other"}))


async def test_a_token_that_was_changed_is_refused(issuer):
    head, _, signature = issuer.token().split(".")
    claims = {"iss": issuer.name, "aud": "gateway", "exp": 2**33, "sub": "root"}
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    assert "signature is wrong" in await cause(issuer, f"{head}.{body}.{signature}")


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS256", "ES384"])
async def test_another_algorithm_than_the_issuers_is_refused(issuer, algorithm):
    """Neither no signature, nor one made with the public key as a shared secret, is accepted."""
    claims = {"iss": issuer.name, "aud": "gateway", "exp": 2**33}
    key: Any = None
    if algorithm == "HS256":
        key = b"x" * 32
    elif algorithm != "none":
        key = private_key("RSA-2048" if algorithm == "RS256" else "P-384")
    token = jwt.encode(claims, key, algorithm=algorithm, headers={"kid": issuer.kid})
    assert "algorithm is not one of" in await cause(issuer, token)


async def test_a_short_rsa_key_is_refused():
    weak = TokenIssuer(kind="RSA-1024", algorithm="RS256")
    # Signed with the strong key of the same id: the length is what is refused, before the signature is looked at.
    strong = TokenIssuer(kind="RSA-2048", algorithm="RS256")
    weak.key = strong.key
    assert "too short" in await cause(weak, weak.token())


async def test_a_critical_header_that_nobody_understands_is_refused(issuer):
    assert await cause(issuer, issuer.token(headers={"crit": ["x"], "x": 1})) == "malformed token"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "....",
        "eyJhbGciOiJFUzI1NiJ9..",
        "eyJhbGciOiJFUzI1NiJ9.W10.",
        "é.é.é",
        base64.urlsafe_b64encode(b'{"alg":"ES256"}').decode().rstrip("=")
        + "."
        + base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("=")
        + ".",
    ],
)
async def test_a_bad_text_is_refused(issuer, text):
    assert await cause(issuer, text) == "malformed token"


@given(st.text(max_size=300))
def test_no_text_breaks_the_verifier(text):
    verifier = TokenVerifier(Caches())
    with pytest.raises(CredentialInvalid):
        verifier._origin(text)


async def test_a_long_text_is_not_looked_at(issuer):
    assert "longer than" in await cause(issuer, "a" * (MAX_CHARS + 1))


async def test_without_keys_the_caller_is_told_to_come_back(issuer):
    caches = Caches(issuer)

    def fail() -> bytes:
        raise OSError("no route")

    caches.jwks[issuer.name] = fail
    verifier = TokenVerifier(caches)
    verifier.use([configured(issuer)])
    with pytest.raises(CredentialUnverifiable) as refused:
        await verifier.verify(issuer.token())
    assert refused.value.metadata["issuer"] == issuer.name
    assert refused.value.retry_after_s == pytest.approx(1.0, abs=0.5)
    await verifier.aclose()


class TestTenant:
    @pytest.mark.parametrize(
        ("claims", "tenants", "tenant"),
        [
            ({"org": "beta"}, ["acme", "beta"], "beta"),
            ({"org": "beta"}, ["*"], "beta"),
            ({"ctx": {"org": "beta"}}, ["*"], "beta"),
        ],
    )
    async def test_a_claim_names_the_tenant(self, issuer, claims, tenants, tenant):
        name = "org" if "org" in claims else "ctx.org"
        found = await verify(issuer, issuer.token(**claims), tenant=None, tenant_claim=name, tenants=tenants)
        assert found.tenant == tenant

    @pytest.mark.parametrize(
        ("value", "said"),
        [(None, "no claim 'org'"), (7, "no claim 'org'"), (["acme"], "no claim 'org'"), ("gamma", "may not name")],
    )
    async def test_a_tenant_that_the_issuer_may_not_name_is_refused(self, issuer, value, said):
        token = issuer.token(org=value)
        assert said in await cause(issuer, token, tenant=None, tenant_claim="org", tenants=["acme", "beta"])


class TestRoles:
    @pytest.mark.parametrize(
        ("claims", "more", "roles"),
        [
            ({"scope": "speak other"}, {"roles_claim": "scope"}, {Role.SPEAK}),
            ({"scope": ["open", 7, None, "speak"]}, {"roles_claim": "scope"}, {Role.OPEN, Role.SPEAK}),
            ({"scope": "lag:speak open"}, {"roles_claim": "scope", "roles_prefix": "lag:"}, {Role.SPEAK}),
            ({"scope": "admin speak"}, {"roles_claim": "scope"}, {Role.SPEAK}),
            ({"realm": {"roles": ["open"]}}, {"roles_claim": "realm.roles"}, {Role.OPEN}),
            ({"https://x.example/roles": ["open"]}, {"roles_claim": "https://x.example/roles"}, {Role.OPEN}),
            ({"scope": 7}, {"roles_claim": "scope"}, set()),
            ({}, {"roles_claim": "scope"}, set()),
            ({"scope": "admin"}, {}, {Role.OPEN, Role.SPEAK}),
        ],
    )
    async def test_a_token_has_the_roles_that_it_names_and_the_issuer_may_give(self, issuer, claims, more, roles):
        assert (await verify(issuer, issuer.token(**claims), **more)).roles == roles


class TestChanges:
    async def test_an_issuer_that_did_not_change_keeps_its_keys(self, issuer):
        other = TokenIssuer("https://other.example")
        caches = Caches(issuer, other)
        verifier = TokenVerifier(caches)
        verifier.use([configured(issuer)])
        await verifier.verify(issuer.token())
        verifier.use([configured(issuer), configured(other)])
        assert len(caches.made) == 2
        await verifier.verify(other.token())
        verifier.use([configured(other, tenant="beta")])
        assert (await verifier.verify(other.token())).tenant == "beta"
        with pytest.raises(CredentialInvalid):
            await verifier.verify(issuer.token())
        await verifier.aclose()

    async def test_keys_are_rotated_without_a_refusal(self, issuer):
        verifier = TokenVerifier(Caches(issuer))
        verifier.use([configured(issuer)])
        before = issuer.token()
        await verifier.verify(before)
        issuer.rotate()
        await verifier.verify(issuer.token())
        await verifier.verify(before)
        await verifier.aclose()


async def test_caches_are_made_as_the_issuer_says(tmp_path, issuer):
    path = tmp_path / "jwks.json"
    path.write_bytes(key_set(public_jwk(issuer.key, kid="k1")))
    client = KeySetClient(Proxies())
    make = cache_of(client)
    from_file = make(configured(issuer, jwks_url=None, jwks_file=str(path)))
    assert await from_file.find("k1", "ES256")
    assert make(configured(issuer)).is_reading is False
    await from_file.aclose()
    await client.aclose()


async def test_a_token_for_ever_is_accepted(issuer):
    found = await verify(issuer, issuer.token(exp=253402300799))
    assert found.expires_at.year == 9999
