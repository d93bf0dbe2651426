"""`keys`: a key is printed once, the file keeps its digest, and mistakes are explained."""

import json

import pytest
from click.testing import CliRunner

from liveavatar_gateway.auth import keys as api_keys
from liveavatar_gateway.auth.auth_file import read
from liveavatar_gateway.auth.principal import Role
from liveavatar_gateway.cli.keys import ROLES, keys
from liveavatar_gateway.cli.settings import EX_CONFIG


@pytest.fixture
def path(tmp_path):
    return tmp_path / "auth.toml"


@pytest.fixture
def run(path):
    def invoke(*arguments, code=0):
        result = CliRunner().invoke(keys, arguments, env={"GATEWAY_AUTH_FILE": str(path)})
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture
def made(run):
    return json.loads(run("make", "acme", "--new-tenant", "--role", "open", "--role", "speak", "--json").stdout)


def test_the_key_alone_is_on_standard_output(run, path):
    result = run("make", "acme", "--new-tenant", "--role", "open", "--note", "agent")
    key = api_keys.parse(result.stdout.removesuffix("\n"))
    tenant, entry = read(path).key(key.key_id)
    assert (tenant, entry.roles, entry.note) == ("acme", {Role.OPEN}, "agent")
    assert api_keys.matches(key, entry)
    assert "cannot be shown again" in result.stderr


def test_the_roles_of_the_command_are_those_of_the_gateway():
    assert set(ROLES) == set(Role)


def test_the_help_teaches_every_role_and_the_header():
    shown = CliRunner().invoke(keys, ["--help"]).output
    assert "authorization: Bearer lag_" in shown
    for role in Role:
        assert f" {role} " in shown


def test_a_misspelled_tenant_is_not_created(run, made, path):
    result = run("make", "amce", "--role", "open", code=1)
    assert f"no tenant amce in {path}; add --new-tenant" in result.stderr
    assert "exists already" in run("make", "acme", "--new-tenant", "--role", "open", code=1).stderr
    assert list(read(path).tenants) == ["acme"]


@pytest.mark.parametrize("tenant", ["Acme", "a b", "-a", "x" * 64, "a.b"])
def test_a_name_that_is_no_tenant_is_refused(run, tenant, path):
    run("make", "--new-tenant", "--role", "open", "--", tenant, code=2)
    assert not path.exists()


def test_a_third_key_is_refused(run, made):
    run("make", "acme", "--role", "open")
    assert "has 2 active keys already" in run("make", "acme", "--role", "open", code=1).stderr


@pytest.mark.parametrize(
    ("text", "days"), [("90d", 90), ("2w", 14), ("24h", 1), ("2999-01-31", None), ("2999-01-31T12:00+02:00", None)]
)
def test_a_key_may_expire(run, path, text, days):
    key = api_keys.parse(run("make", "acme", "--new-tenant", "--role", "open", "--expires", text).stdout.strip())
    _, entry = read(path).key(key.key_id)
    if days is None:
        assert entry.expires.isoformat() in ("2999-01-31T00:00:00+00:00", "2999-01-31T10:00:00+00:00")
    else:
        assert abs((entry.expires - entry.created).total_seconds() - days * 86_400) <= 2


@pytest.mark.parametrize(("text", "said"), [("soon", "is neither a span"), ("2001-01-01", "is in the past")])
def test_a_bad_end_is_refused(run, text, said):
    assert said in run("make", "acme", "--new-tenant", "--role", "open", "--expires", text, code=2).stderr


def test_keys_are_listed_with_their_states(run, made):
    run("make", "acme", "--role", "watch", "--expires", "90d")
    run("revoke", made["id"])
    run("make", "beta", "--new-tenant", "--role", "admin")
    listed = json.loads(run("list", "--json").stdout)
    assert [(key["tenant"], key["state"], key["roles"]) for key in listed] == [
        ("acme", "revoked", ["open", "speak"]),
        ("acme", "active", ["watch"]),
        ("beta", "active", ["admin"]),
    ]
    table = run("list", "acme").stdout.splitlines()
    assert table[0].split() == ["id", "tenant", "state", "roles", "created", "expires", "note"]
    assert [line.split()[0] for line in table[1:]] == [key["id"] for key in listed[:2]]
    assert "digest" not in listed[0]


def test_an_empty_file_has_no_keys(run, path):
    path.write_text("[tenants.acme]\n")
    assert run("list").stdout == "no keys\n"
    assert json.loads(run("list", "--json").stdout) == []


def test_an_unknown_tenant_has_no_list(run, made):
    assert "no tenant amce" in run("list", "amce", code=1).stderr


def test_a_key_is_revoked_by_its_id(run, made, path):
    assert made["id"] in run("revoke", made["id"]).stdout
    assert read(path).key(made["id"])[1].revoked is not None
    assert "was revoked at" in run("revoke", made["id"], code=1).stderr


def test_a_whole_key_is_not_taken_on_the_command_line(run, made):
    result = run("revoke", made["key"], code=2)
    assert "give the id alone" in result.stderr
    assert made["key"] not in result.output


@pytest.mark.parametrize("command", [("list",), ("revoke", "x"), ("make", "acme", "--role", "open")])
def test_an_invalid_file_is_named_with_its_mistake(run, path, command):
    path.write_text("tenants = 1")
    result = run(*command, code=EX_CONFIG)
    assert str(path) in result.stderr
    assert "tenants: Input should be a valid dictionary" in result.stderr


@pytest.mark.parametrize("command", [("list",), ("revoke", "x")])
def test_a_missing_file_is_not_created(run, path, command):
    assert str(path) in run(*command, code=EX_CONFIG).stderr
    assert not path.exists()


def test_the_file_must_be_named():
    result = CliRunner(env={"GATEWAY_AUTH_FILE": ""}).invoke(keys, ["list"])
    assert result.exit_code == 2
    assert "GATEWAY_AUTH_FILE" in result.output
