"""Changes of the file of tenants: each is named once, without a digest."""

import json
from datetime import UTC, datetime

import pytest

from liveavatar_gateway.auth.auth_file import AuthConfig
from liveavatar_gateway.auth.changes import Change, audit_changes, changes
from liveavatar_gateway.telemetry.audit import AuditLog, open_file

NOW = datetime(2026, 11, 30, tzinfo=UTC)
DIGEST = "sha256:" + "0123456789abcdef" * 4


def key(number=1, **more):
    return {"id": f"key{number:09}", "digest": DIGEST, "roles": ["open"], "created": NOW} | more


def config(*, issuers=(), **tenants):
    return AuthConfig.model_validate({"tenants": tenants, "issuers": issuers})


CERTIFICATE = {"name": "dns:agent.example.org", "roles": ["speak"]}
ISSUER = {
    "issuer": "https://issuer.example",
    "audience": ["gateway"],
    "algorithms": ["ES256"],
    "jwks_url": "https://issuer.example/jwks",
    "tenant": "acme",
    "roles": ["speak"],
}
KEY = "key000000001"


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (config(acme={}), config(acme={}), []),
        (config(), config(acme={}), [Change("tenant.added", "acme")]),
        (config(acme={}), config(), [Change("tenant.removed", "acme")]),
        (
            config(),
            config(acme={"suspended": True}),
            [Change("tenant.added", "acme"), Change("tenant.suspended", "acme")],
        ),
        (config(acme={}), config(acme={"suspended": True}), [Change("tenant.suspended", "acme")]),
        (config(acme={"suspended": True}), config(acme={}), [Change("tenant.resumed", "acme")]),
        (config(acme={}), config(acme={"quotas": {"max_sessions": 2}}), [Change("tenant.changed", "acme")]),
        (config(acme={}), config(acme={"avatars": []}), [Change("tenant.changed", "acme")]),
        (
            config(acme={}),
            config(acme={"budget": {"minutes_per_day": 600}}),
            [Change("tenant.changed", "acme")],
        ),
        (config(acme={}), config(acme={"keys": [key()]}), [Change("key.added", "acme", KEY)]),
        (
            config(acme={"keys": [key()]}),
            config(acme={"keys": [key(revoked=NOW)]}),
            [Change("key.revoked", "acme", KEY)],
        ),
        (config(acme={}), config(acme={"keys": [key(revoked=NOW)]}), [Change("key.revoked", "acme", KEY)]),
        (
            config(acme={"keys": [key(revoked=NOW)]}),
            config(acme={"keys": [key()]}),
            [Change("key.changed", "acme", KEY)],
        ),
        (config(acme={"keys": [key()]}), config(acme={}), [Change("key.removed", "acme", KEY)]),
        (
            config(acme={"keys": [key()]}),
            config(acme={"keys": [key(roles=["admin"])]}),
            [Change("key.changed", "acme", KEY)],
        ),
        (
            config(acme={"keys": [key()]}, beta={}),
            config(acme={}, beta={"keys": [key()]}),
            [Change("key.added", "beta", KEY), Change("key.removed", "acme", KEY)],
        ),
        (config(acme={}), config(acme={"pool": {"weight": 2.0}}), [Change("tenant.changed", "acme")]),
        (
            config(acme={}),
            config(acme={"certificates": [CERTIFICATE]}),
            [Change("certificate.added", "acme", CERTIFICATE["name"])],
        ),
        (
            config(acme={}),
            config(acme={}, issuers=[ISSUER]),
            [Change("issuer.added", name="https://issuer.example")],
        ),
        (
            config(acme={}, issuers=[ISSUER]),
            config(acme={}, issuers=[ISSUER | {"leeway_s": 1.0}]),
            [Change("issuer.changed", name="https://issuer.example")],
        ),
    ],
)
def test_a_change_is_named_once(before, after, found):
    assert changes(before, after) == found


def test_each_change_has_a_line_without_a_digest(tmp_path):
    log = AuditLog(open_file(tmp_path / "audit.jsonl"))
    audit_changes(log, config(), config(acme={"keys": [key()]}))
    log.close()
    content = (tmp_path / "audit.jsonl").read_text()
    lines = [json.loads(line) for line in content.splitlines()]
    assert [(line["event"], line["tenant"], line.get("name")) for line in lines] == [
        ("tenant.added", "acme", None),
        ("key.added", "acme", KEY),
    ]
    assert DIGEST not in content
