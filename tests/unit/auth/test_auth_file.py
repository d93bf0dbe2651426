"""The file of tenants: what it says is read, and a mistake is named with its file, its place and its cause."""

from datetime import UTC, datetime

import pytest

from liveavatar_gateway.auth.auth_file import MAX_BYTES, UnusableAuthFile, parse, read
from liveavatar_gateway.auth.principal import Role

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
DIGEST = "sha256:" + "0123456789abcdef" * 4


def key(number: int = 1, tenant: str = "acme", **more: str) -> str:
    lines = {
        "id": f'"key{number:09}"',
        "digest": f'"{DIGEST}"',
        "roles": '["open", "speak"]',
        "created": "2026-11-01T00:00:00Z",
    } | more
    return f"[[tenants.{tenant}.keys]]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items())


def issuer(**more: str | None) -> str:
    lines = {
        "issuer": '"https://issuer.example"',
        "audience": '["gateway"]',
        "algorithms": '["ES256"]',
        "jwks_url": '"https://issuer.example/jwks"',
        "tenant": '"acme"',
        "roles": '["speak"]',
    } | more
    return "[[issuers]]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items() if value is not None)


def refusal(text: str) -> str:
    with pytest.raises(UnusableAuthFile) as refused:
        parse(text.encode(), now=NOW)
    return str(refused.value)


WHOLE = f"""
# A comment.
[tenants.acme]
suspended = true
quotas = {{ max_sessions = 4, audio_bytes_per_s = 100_000 }}

{key()}
{key(2, expires="2026-12-31T00:00:00+01:00", revoked="2026-11-20T00:00:00Z", note='"the old agent"')}
[[tenants.acme.certificates]]
name = "uri:spiffe://example.org/agent"
roles = ["speak"]

[tenants.beta]

{issuer()}
"""


def test_a_whole_file_is_read():
    config = parse(WHOLE.encode(), now=NOW)
    acme = config.tenants["acme"]
    assert (acme.suspended, acme.quotas.max_sessions, acme.quotas.max_watches) == (True, 4, 2)
    tenant, first = config.key("key000000001")
    assert (tenant, first.roles, first.expires) == ("acme", {Role.OPEN, Role.SPEAK}, None)
    assert config.key("key000000002")[1].expires == datetime(2026, 12, 30, 23, tzinfo=UTC)
    assert config.certificate("uri:spiffe://example.org/agent")[0] == "acme"
    assert config.issuer("https://issuer.example").tenant == "acme"
    assert not config.tenants["beta"].suspended
    assert (config.key("key000000003"), config.certificate("dns:x"), config.issuer("x")) == (None, None, None)


def test_an_empty_file_knows_nobody():
    assert parse(b"").tenants == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tenants", "is not TOML: "),
        ("tenant = 1", "tenant: unknown key; did you mean tenants?"),
        ("[tenants.acme]\nsuspend = true", "tenants.acme.suspend: unknown key; did you mean suspended?"),
        ("[tenants.acme]\nsuspended = 1", "tenants.acme.suspended: Input should be a valid boolean"),
        ("[tenants.Acme]", "tenants.Acme: does not match "),
        ("[tenants.acme.quotas]\nmax_sessions = -1", "tenants.acme.quotas.max_sessions: Input should be greater"),
        ("[tenants.acme.quotas]\nmax_sesions = 1", "did you mean max_sessions?"),
        ("[tenants.acme.budget]\nminutes_per_day = -1", "tenants.acme.budget.minutes_per_day: Input should be"),
        ("[tenants.acme.budget]\nminutes_a_day = 1", "did you mean minutes_per_day?"),
        (key(digest='"sha256:1"'), "tenants.acme.keys[0].digest: does not match ^sha256:"),
        (key(id='"x"'), "tenants.acme.keys[0].id: does not match "),
        (key(roles="[]"), "tenants.acme.keys[0].roles: "),
        (key(roles='["speek"]'), "tenants.acme.keys[0].roles[0]: Input should be 'open'"),
        (key(created="2026-11-01T00:00:00"), "tenants.acme.keys[0].created: Input should have timezone info"),
        (key(created='"yesterday"'), "tenants.acme.keys[0].created: "),
        ('[[tenants.acme.keys]]\nroles = ["open"]', "tenants.acme.keys[0].id: is missing"),
        (key() + key(), "the API key 'key000000001' occurs twice"),
        (key() + key(tenant="beta"), "the API key 'key000000001' occurs twice"),
        (key(1) + key(2) + key(3), "tenants.acme.keys: 3 keys are active, and at most 2 may be"),
        (
            '[[tenants.acme.certificates]]\nname = "agent"\nroles = ["open"]',
            "certificates[0].name: does not match",
        ),
        (issuer(), "issuers[0] names the tenant 'acme', which the file does not have"),
        ("[tenants.acme]\n" + issuer() + issuer(), "the issuer 'https://issuer.example' occurs twice"),
        ("[tenants.acme]\n" + issuer(jwks_url=None), "issuers[0]: needs either jwks_file or jwks_url"),
        ("[tenants.acme]\n" + issuer(jwks_file='"/jwks"'), "issuers[0]: needs either jwks_file or jwks_url"),
        ("[tenants.acme]\n" + issuer(jwks_url=None, jwks_file='"jwks"'), "jwks_file is not an absolute path"),
        ("[tenants.acme]\n" + issuer(jwks_url='"http://issuer.example"'), "jwks_url must use https://"),
        ("[tenants.acme]\n" + issuer(jwks_url='"https://u:p@issuer.example"'), "without credentials"),
        ("[tenants.acme]\n" + issuer(jwks_url='"https://:p@issuer.example"'), "without credentials"),
        ("[tenants.acme]\n" + issuer(jwks_url='"file:///etc/passwd"'), "is not an https:// address"),
        ("[tenants.acme]\n" + issuer(jwks_url='"https://[x"'), "is not an https:// address"),
        ("[tenants.acme]\n" + issuer(tenant=None), "needs either tenant or tenant_claim"),
        ("[tenants.acme]\n" + issuer(tenant=None, tenant_claim='"t"'), "belong together"),
        ("[tenants.acme]\n" + issuer(roles_prefix='"x:"'), "only with roles_claim"),
        ("[tenants.acme]\n" + issuer(algorithms='["HS256"]'), "issuers[0].algorithms[0]: Input should be 'RS256'"),
        ("[tenants.acme]\n" + issuer(algorithms='["none"]'), "issuers[0].algorithms[0]: Input should be 'RS256'"),
        ("[tenants.acme]\n" + issuer(audience="[]"), "issuers[0].audience: "),
    ],
)
def test_a_mistake_is_named_with_its_place(text, said):
    assert said in refusal(text)


def test_an_error_repeats_no_values():
    assert "hunter2" not in refusal(key(digest='"hunter2"', roles='["hunter2"]', note="['hunter2']"))


def test_an_error_lists_a_few_of_many_problems():
    said = refusal("".join(key(number, digest='"x"') for number in range(8)))
    assert said.count("does not match") == 5
    assert said.endswith("; and 3 more")


def test_old_keys_do_not_count_as_active():
    expired = [key(number, expires="2026-11-30T12:00:00Z") for number in (3, 4)]
    revoked = [key(number, revoked="2026-11-30T12:00:00Z") for number in (5, 6)]
    assert len(parse("".join([key(1), key(2), *expired, *revoked]).encode(), now=NOW).tenants["acme"].keys) == 6


def test_loopback_may_serve_keys_without_tls():
    text = "[tenants.acme]\n" + issuer(jwks_url='"http://127.0.0.1:8000/jwks"')
    assert parse(text.encode()).issuers


@pytest.mark.parametrize(
    ("tenants", "allowed"),
    [('["acme"]', {"acme"}), ('["acme", "beta"]', {"acme", "beta"}), ('["*"]', {"acme", "beta"})],
)
def test_an_issuer_names_the_tenants_that_it_may_name(tenants, allowed):
    text = "[tenants.acme]\n[tenants.beta]\n" + issuer(tenant=None, tenant_claim='"t"', tenants=tenants)
    (found,) = parse(text.encode()).issuers
    assert {tenant for tenant in ("acme", "beta") if found.allows(tenant)} == allowed


def test_a_file_of_another_user_is_named_with_the_next_step(tmp_path, monkeypatch):
    def refused(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refused)
    with pytest.raises(UnusableAuthFile, match="Permission denied; chown it to the user"):
        read(tmp_path / "auth.toml")


def test_reading_names_setting_and_file(tmp_path):
    path = tmp_path / "auth.toml"
    with pytest.raises(
        UnusableAuthFile, match=f"^GATEWAY_AUTH_FILE: {path} cannot be read: No such file.*keys make"
    ):
        read(path)
    path.write_text("tenants = 1")
    with pytest.raises(UnusableAuthFile, match=f"^GATEWAY_AUTH_FILE: {path}: tenants: Input should be"):
        read(path)
    path.write_bytes(b"\xff")
    with pytest.raises(UnusableAuthFile, match="is not text in UTF-8"):
        read(path)
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(UnusableAuthFile, match="is larger than"):
        read(path)
    path.write_text("\ufeff" + WHOLE)
    assert read(path, now=NOW) == parse(WHOLE.encode(), now=NOW)


@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5000], ids=["nesting", "digits"])
def test_what_python_cannot_read_is_an_error_and_not_a_crash(value):
    assert "is not TOML" in refusal(f"a = {value}")


@pytest.mark.parametrize(
    ("tenant", "room", "allowed"),
    [
        ("acme", "acme-1", True),
        ("acme", "acme-b-1", False),
        ("acme-b", "acme-b-1", True),
        ("acme-b", "acme-1", False),
        # "acme-c" has given up the prefix of its name.
        ("acme", "acme-c-1", True),
        ("acme-c", "acme-c-1", False),
        ("acme", "acme-desk", False),
        ("beta", "acme-desk", True),
        # Another server, so the room is another one.
        ("acme", "acme-x-1", True),
        ("acme-x", "acme-x-1", True),
        ("nobody", "acme-1", False),
    ],
)
def test_a_room_belongs_to_the_tenant_with_the_longest_entry(tenant, room, allowed):
    config = parse(
        b"""
[tenants.acme]
[tenants.acme-b]
[tenants.acme-c.rooms]
prefix = "c-"
[tenants.acme-x.rooms]
livekit_url = "wss://x.example"
livekit_key = "x"
livekit_secret_file = "/x"
[tenants.beta.rooms]
names = ["acme-desk"]
"""
    )
    assert config.may_use_room(tenant, room) is allowed


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("issuer = 1", "issuers"),
        ("[tenants.keys]\nkey = 1", "keys"),
        (key(digests='"x"'), "digest"),
        ('[[tenants.acme.certificates]]\nnames = 1\nname = "dns:x"\nroles = ["open"]', "name"),
        ("[tenants.acme]\n" + issuer(jwks_uri='"x"'), "jwks_url"),
        ("[tenants.quotas.quotas]\nmax_watch = 1", "max_watches"),
    ],
)
def test_an_unknown_key_is_compared_with_those_of_its_table(text, meant):
    assert refusal(text).endswith(f"unknown key; did you mean {meant}?")


def test_a_tenant_has_all_avatars_or_those_of_its_list():
    ada = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
    text = f'[tenants.all]\n[tenants.some]\navatars = ["{ada}"]\n[tenants.none]\navatars = []\n'
    found = parse(text.encode(), now=NOW).tenants
    assert [found[name].avatars for name in ("all", "some", "none")] == [None, (ada,), ()]
    said = refusal('[tenants.acme]\navatars = ["Ada"]')
    assert said.startswith("tenants.acme.avatars[0]: does not match ")


def test_the_budget_of_a_tenant_is_found_and_strangers_have_none():
    config = parse(b"[tenants.acme.budget]\nminutes_per_day = 60\nat_limit = 'end'\n[tenants.zoo]")
    assert (config.budget("acme").minutes_per_day, config.budget("acme").at_limit) == (60, "end")
    assert not config.budget("zoo").is_limited
    assert not config.budget("nobody").is_limited


def test_a_budget_needs_a_registry():
    config = parse(b"[tenants.acme.budget]\nminutes_per_month = 0")
    config.require_countable(has_registry=True)
    with pytest.raises(UnusableAuthFile, match=r"tenants\.acme\.budget needs a registry.*GATEWAY_REGISTRY_FILE"):
        config.require_countable(has_registry=False)
    parse(b"[tenants.acme]").require_countable(has_registry=False)


class TestRooms:
    TEXT = """
[tenants.acme.rooms]
livekit_url = "wss://own"
livekit_key = "own"
livekit_secret_file = "{}"
"""

    def test_a_tenant_may_bring_its_own_livekit_server(self, tmp_path):
        secret, file = tmp_path / "secret", tmp_path / "tenants.toml"
        secret.write_text("s" * 32 + "\n")
        file.write_text(self.TEXT.format(secret))
        before = read(file)
        server = before.tenants["acme"].rooms.server
        assert (server.url, server.api_key, server.api_secret) == ("wss://own", "own", "s" * 32)
        assert "s" * 32 not in repr(before)
        assert read(file) == before
        secret.write_text("t" * 32)
        assert read(file) != before, "a changed secret is a changed file"

    @pytest.mark.parametrize("content", [b"", b"\xff", b"x" * 5000])
    def test_an_unusable_secret_is_named_by_its_file(self, tmp_path, content):
        secret, file = tmp_path / "secret", tmp_path / "tenants.toml"
        secret.write_bytes(content)
        file.write_text(self.TEXT.format(secret))
        with pytest.raises(UnusableAuthFile, match=str(secret)):
            read(file)

    @pytest.mark.parametrize(
        ("text", "cause"),
        [
            ('livekit_url = "wss://own"', "belong together"),
            ('livekit_url = "https://own"', "does not match"),
            ('livekit_url = "wss://own"\nlivekit_key = "k"\nlivekit_secret_file = "s"', "absolute"),
        ],
    )
    def test_half_a_server_is_refused(self, text, cause):
        assert cause in refusal(f"[tenants.acme.rooms]\n{text}")

    def test_without_a_server_of_its_own_a_tenant_uses_the_common_one(self):
        assert parse(b"[tenants.acme]").tenants["acme"].rooms.server is None


def test_a_tenants_share_of_the_pool_is_read_and_has_defaults():
    config = parse(b"[tenants.acme.pool]\nweight = 3\nreserved = 2\nceiling = 5\n[tenants.beta]")
    shares = config.pool_shares()
    assert (shares["acme"].weight, shares["acme"].reserved, shares["acme"].ceiling) == (3.0, 2, 5)
    assert (shares["beta"].weight, shares["beta"].reserved, shares["beta"].ceiling) == (1.0, 0, None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("weight = 0", "tenants.acme.pool.weight: Input should be greater"),
        ("weight = inf", "tenants.acme.pool.weight: Input should be"),
        ("reserve = 1", "tenants.acme.pool.reserve: unknown key; did you mean reserved?"),
        ("reserved = 3\nceiling = 2", "tenants.acme.pool: reserved is above ceiling"),
    ],
)
def test_a_mistake_in_a_share_is_named(line, said):
    assert said in refusal(f"[tenants.acme.pool]\n{line}")
