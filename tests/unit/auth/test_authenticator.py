"""Authentication: each kind of credential is accepted for what it may do, and refused with a reason of its own."""

from datetime import UTC, datetime, timedelta

import pytest

from liveavatar_gateway.auth import keys
from liveavatar_gateway.auth.auth_file import AuthConfig
from liveavatar_gateway.auth.authenticator import Authenticator
from liveavatar_gateway.auth.jwks import KeyCache
from liveavatar_gateway.auth.principal import Method, Role
from liveavatar_gateway.auth.tokens import TokenVerifier
from liveavatar_gateway.core.errors import (
    CredentialExpired,
    CredentialInvalid,
    CredentialMissing,
    TenantSuspended,
)
from testkit.tokens import TokenIssuer

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
KEYS = {name: keys.generate() for name in ("valid", "expired", "revoked", "suspended", "unknown")}
ADA = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
AGENT = "uri:spiffe://example.org/agent"


def entry(name: str, **more: object) -> dict[str, object]:
    key = KEYS[name]
    return {"id": key.key_id, "digest": key.digest, "roles": ["open", "speak"], "created": NOW} | more


def content(issuer: TokenIssuer) -> dict[str, object]:
    return {
        "tenants": {
            "acme": {
                "quotas": {"max_sessions": 7},
                "avatars": [ADA],
                "keys": [
                    entry("valid"),
                    entry("expired", expires=NOW - timedelta(seconds=1)),
                    entry("revoked", revoked=NOW),
                ],
                "certificates": [
                    {"name": AGENT, "roles": ["speak"]},
                    {"name": "dns:agent.example.org", "roles": ["watch"]},
                ],
            },
            "beta": {"certificates": [{"name": "dns:beta.example.org", "roles": ["speak"]}]},
            "gone": {"suspended": True, "keys": [entry("suspended")]},
        },
        "issuers": [
            {
                "issuer": issuer.name,
                "audience": ["gateway"],
                "algorithms": ["ES256"],
                "jwks_url": "https://issuer.example/jwks",
                "tenant_claim": "org",
                "tenants": ["*"],
                "roles": ["control"],
            }
        ],
    }


@pytest.fixture(scope="module")
def issuer():
    return TokenIssuer()


@pytest.fixture
async def authenticator(issuer):
    async def fetch() -> bytes:
        return issuer.jwks

    verifier = TokenVerifier(
        lambda found: KeyCache(fetch, found.algorithms, name=found.issuer, refresh_s=300, refetch_s=30)
    )
    made = Authenticator(AuthConfig.model_validate(content(issuer)), verifier, now=lambda: NOW)
    yield made
    await made.aclose()


def bearer(text: str) -> list[tuple[str, str | bytes]]:
    return [("user-agent", "x"), ("authorization", f"Bearer {text}")]


async def cause(authenticator, metadata, names=()) -> str:
    with pytest.raises(CredentialInvalid) as refused:
        await authenticator.authenticate(metadata, names)
    return refused.value.metadata["cause"]


@pytest.mark.parametrize(
    "metadata",
    [
        [("authorization", f"Bearer {KEYS['valid'].text}")],
        [("authorization", f"bearer  {KEYS['valid'].text} ")],
        [("authorization", f"Bearer {KEYS['valid'].text}".encode())],
        [("x-api-key", KEYS["valid"].text)],
    ],
)
async def test_an_api_key_names_its_tenant_roles_and_limits(authenticator, metadata):
    found = await authenticator.authenticate(metadata)
    assert (found.tenant, found.roles) == ("acme", {Role.OPEN, Role.SPEAK})
    assert authenticator.quotas(found.tenant).max_sessions == 7
    assert (found.method, found.credential) == (Method.API_KEY, KEYS["valid"].key_id)
    assert found.expires_at is None
    assert list(authenticator.avatars("acme") or ()) == [ADA]
    assert authenticator.avatars("beta") is None


async def test_a_call_without_a_credential_is_refused(authenticator):
    with pytest.raises(CredentialMissing):
        await authenticator.authenticate([("user-agent", "x")])


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (bearer(KEYS["unknown"].text), "unknown API key"),
        (bearer(KEYS["valid"].text.replace(KEYS["valid"].key_id, KEYS["expired"].key_id)), "unknown API key"),
        (bearer(KEYS["revoked"].text), "revoked API key"),
        (bearer("lag_x"), "malformed API key"),
        (bearer(""), "malformed token"),
        (bearer("x"), "malformed token"),
        ([("authorization", "Basic dTpw")], "the header `authorization` is not `Bearer ...`"),
        ([("authorization", "")], "the header `authorization` is not `Bearer ...`"),
        ([("authorization", b"\xff")], "the header `authorization` is not `Bearer ...`"),
        ([("x-api-key", "a.b.c")], "malformed API key"),
        (bearer(KEYS["valid"].text) * 2, "the call has more than one credential"),
        (
            [*bearer(KEYS["valid"].text), ("x-api-key", KEYS["valid"].text)],
            "the call has more than one credential",
        ),
    ],
)
async def test_a_wrong_credential_is_refused_with_its_cause(authenticator, metadata, said):
    assert await cause(authenticator, metadata) == said


async def test_an_expired_key_is_told_apart_from_an_unknown_one(authenticator):
    with pytest.raises(CredentialExpired) as refused:
        await authenticator.authenticate(bearer(KEYS["expired"].text))
    assert refused.value.metadata == {"expired_at": (NOW - timedelta(seconds=1)).isoformat()}


async def test_a_suspended_tenant_is_refused(authenticator):
    with pytest.raises(TenantSuspended):
        await authenticator.authenticate(bearer(KEYS["suspended"].text))


async def test_a_stranger_does_not_learn_that_a_tenant_is_suspended(authenticator):
    text = KEYS["unknown"].text.replace(KEYS["unknown"].key_id, KEYS["suspended"].key_id)
    assert await cause(authenticator, bearer(text)) == "unknown API key"


@pytest.mark.parametrize("name", ["unknown", "expired", "revoked", "suspended"])
async def test_no_refusal_repeats_a_credential(authenticator, name):
    with pytest.raises((CredentialInvalid, CredentialExpired, TenantSuspended)) as refused:
        await authenticator.authenticate(bearer(KEYS[name].text))
    assert KEYS[name].text.split("_", 2)[2] not in f"{refused.value.message} {refused.value.metadata}"


class TestToken:
    async def test_a_token_names_its_tenant_and_roles(self, authenticator, issuer):
        found = await authenticator.authenticate(bearer(issuer.token(org="beta")))
        assert (found.tenant, found.roles, found.method) == ("beta", {Role.CONTROL}, Method.TOKEN)
        assert authenticator.quotas(found.tenant).max_sessions == 1
        assert found.expires_at is not None

    async def test_a_tenant_that_the_file_does_not_have_is_refused(self, authenticator, issuer):
        assert await cause(authenticator, bearer(issuer.token(org="delta"))) == "the token's tenant is unknown"

    async def test_a_token_of_a_suspended_tenant_is_refused(self, authenticator, issuer):
        with pytest.raises(TenantSuspended):
            await authenticator.authenticate(bearer(issuer.token(org="gone")))


class TestCertificate:
    async def test_a_certificate_names_its_tenant_and_the_roles_of_all_its_names(self, authenticator):
        found = await authenticator.authenticate([], [AGENT, "dns:agent.example.org", "dns:other"])
        assert (found.tenant, found.roles) == ("acme", {Role.SPEAK, Role.WATCH})
        assert (found.method, found.credential, found.expires_at) == (Method.CERTIFICATE, AGENT, None)

    @pytest.mark.parametrize(
        ("names", "said"),
        [
            (["dns:stranger.example.org"], "unknown certificate"),
            # A name of another kind with the same text.
            (["dns:spiffe://example.org/agent"], "unknown certificate"),
            ([AGENT, "dns:beta.example.org"], "the certificate has names of several tenants"),
        ],
    )
    async def test_a_wrong_certificate_is_refused_with_its_cause(self, authenticator, names, said):
        assert await cause(authenticator, [], names) == said

    async def test_a_key_counts_more_than_a_certificate_of_the_same_tenant(self, authenticator):
        found = await authenticator.authenticate(bearer(KEYS["valid"].text), [AGENT])
        assert found.method is Method.API_KEY

    async def test_a_key_is_accepted_with_a_certificate_of_no_tenant(self, authenticator):
        found = await authenticator.authenticate(bearer(KEYS["valid"].text), ["dns:proxy"])
        assert found.tenant == "acme"

    async def test_a_key_and_a_certificate_of_two_tenants_are_refused(self, authenticator):
        said = await cause(authenticator, bearer(KEYS["valid"].text), ["dns:beta.example.org"])
        assert said == "the certificate belongs to another tenant than the key or token"

    async def test_a_bad_key_is_not_saved_by_a_certificate(self, authenticator):
        assert await cause(authenticator, bearer(KEYS["unknown"].text), [AGENT]) == "unknown API key"


class TestChanges:
    """A stream asks again whether its caller may go on."""

    @pytest.fixture
    async def principals(self, authenticator, issuer):
        return {
            "key": await authenticator.authenticate(bearer(KEYS["valid"].text)),
            "token": await authenticator.authenticate(bearer(issuer.token(org="acme"))),
            "certificate": await authenticator.authenticate([], [AGENT]),
        }

    def use(self, authenticator, issuer, change):
        changed = content(issuer)
        change(changed)
        return authenticator.use(AuthConfig.model_validate(changed))

    async def test_the_same_content_is_no_change(self, authenticator, issuer, principals):
        assert not self.use(authenticator, issuer, lambda _: None)
        for principal in principals.values():
            authenticator.check(principal)

    async def test_new_limits_are_read_from_the_current_content(self, authenticator, issuer):
        assert self.use(
            authenticator, issuer, lambda file: file["tenants"]["acme"].update(quotas={"max_sessions": 9})
        )
        assert authenticator.config.tenants["acme"].quotas.max_sessions == 9

    @pytest.mark.parametrize("kind", ["key", "token", "certificate"])
    async def test_a_suspension_ends_every_kind(self, authenticator, issuer, principals, kind):
        self.use(authenticator, issuer, lambda file: file["tenants"]["acme"].update(suspended=True))
        with pytest.raises(TenantSuspended):
            authenticator.check(principals[kind])

    @pytest.mark.parametrize("kind", ["key", "token", "certificate"])
    async def test_a_tenant_that_was_removed_ends_every_kind(self, authenticator, issuer, principals, kind):
        self.use(authenticator, issuer, lambda file: file["tenants"].pop("acme"))
        with pytest.raises(CredentialInvalid, match="unknown"):
            authenticator.check(principals[kind])

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"revoked": NOW}, CredentialInvalid),
            ({"expires": NOW}, CredentialExpired),
            ({"id": "another00000"}, CredentialInvalid),
        ],
    )
    async def test_the_end_of_a_key_ends_its_streams(self, authenticator, issuer, principals, change, error):
        self.use(authenticator, issuer, lambda file: file["tenants"]["acme"]["keys"][0].update(change))
        with pytest.raises(error):
            authenticator.check(principals["key"])

    async def test_a_certificate_of_another_tenant_ends_its_streams(self, authenticator, issuer, principals):
        def move(file):
            file["tenants"]["beta"]["certificates"] = file["tenants"]["acme"].pop("certificates")

        self.use(authenticator, issuer, move)
        with pytest.raises(CredentialInvalid):
            authenticator.check(principals["certificate"])

    async def test_a_token_ends_with_its_time(self, authenticator, principals, issuer):
        authenticator._now = lambda: principals["token"].expires_at
        with pytest.raises(CredentialExpired):
            authenticator.check(principals["token"])

    @pytest.mark.parametrize(
        ("kind", "change"),
        [
            ("key", lambda file: file["tenants"]["acme"]["keys"][0].update(roles=["open"])),
            ("key", lambda file: file["tenants"]["acme"]["keys"][0].update(digest="sha256:" + "0" * 64)),
            ("certificate", lambda file: file["tenants"]["acme"]["certificates"][0].update(roles=["watch"])),
            ("token", lambda file: file["issuers"][0].update(roles=["watch"])),
            ("token", lambda file: file["issuers"][0].update(tenants=["beta"])),
            ("token", lambda file: file.pop("issuers")),
        ],
    )
    async def test_a_credential_that_grants_less_ends_its_streams(
        self, authenticator, issuer, principals, kind, change
    ):
        self.use(authenticator, issuer, change)
        with pytest.raises(CredentialInvalid):
            authenticator.check(principals[kind])

    async def test_a_certificate_that_has_lost_one_of_its_names_ends_its_streams(self, authenticator, issuer):
        both = await authenticator.authenticate([], [AGENT, "dns:agent.example.org"])
        assert both.roles == {Role.SPEAK, Role.WATCH}
        self.use(authenticator, issuer, lambda file: file["tenants"]["acme"]["certificates"].pop())
        with pytest.raises(CredentialInvalid, match="lost a role"):
            authenticator.check(both)

    async def test_a_credential_that_grants_more_ends_nothing(self, authenticator, issuer, principals):
        def widen(file):
            file["tenants"]["acme"]["keys"][0].update(roles=["open", "speak", "watch"], expires=NOW + HOUR)
            file["issuers"][0].update(roles=["control", "watch"], refresh_s=60.0)

        self.use(authenticator, issuer, widen)
        for principal in principals.values():
            authenticator.check(principal)

    async def test_the_end_of_a_key_can_be_put_off(self, authenticator, issuer):
        def until(end):
            return lambda file: file["tenants"]["acme"]["keys"][0].update(expires=end)

        self.use(authenticator, issuer, until(NOW + HOUR))
        principal = await authenticator.authenticate(bearer(KEYS["valid"].text))
        self.use(authenticator, issuer, until(NOW + 2 * HOUR))
        authenticator._now = lambda: NOW + HOUR
        authenticator.check(principal)

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            (lambda file: file["tenants"]["acme"].update(suspended=True), TenantSuspended),
            (lambda file: file["tenants"]["acme"]["keys"][0].update(revoked=NOW), CredentialInvalid),
        ],
    )
    async def test_an_expired_key_has_no_grace_once_it_is_revoked_or_its_tenant_suspended(
        self, authenticator, issuer, change, error
    ):
        def expire(file):
            file["tenants"]["acme"]["keys"][0].update(expires=NOW + HOUR)

        self.use(authenticator, issuer, expire)
        principal = await authenticator.authenticate(bearer(KEYS["valid"].text))
        authenticator._now = lambda: NOW + HOUR
        self.use(authenticator, issuer, lambda file: (expire(file), change(file)))
        with pytest.raises(error):
            authenticator.check(principal)
