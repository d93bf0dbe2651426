"""Secrets: their files, and values that cannot be sent."""

import stat

import pytest

from liveavatar_gateway.config import ConfigError, load

_SECRET = "la-secret-key-123"


def test_a_key_is_read_from_its_file_without_the_newline(file):
    path = file(f"{_SECRET}\n", "key")
    assert load({"GATEWAY_API_KEY_FILE": str(path)}).api_key.get_secret_value() == _SECRET


def test_a_key_goes_before_its_file(file):
    path = file("from the file", "key")
    environment = {"GATEWAY_API_KEY_FILE": str(path), "LIVEAVATAR_API_KEY": "direct"}
    assert load(environment).api_key.get_secret_value() == "direct"


def test_a_key_file_that_is_not_there_is_an_error():
    with pytest.raises(ConfigError, match=r"GATEWAY_API_KEY_FILE: .* cannot be read"):
        load({"GATEWAY_API_KEY_FILE": "/nowhere/key"})


@pytest.mark.parametrize(
    "name", ["LIVEAVATAR_API_KEY", "GATEWAY_API_KEY", "GATEWAY_LIVEKIT_KEY", "GATEWAY_LIVEKIT_SECRET"]
)
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("sch\u00f6n", "character 4 is U+00F6"),
        ("\u200bkey", "character 1 is U+200B"),
        ("a\nb", "character 2 is U+000A"),
        ('"key"', "the value is in quotes; remove them"),
        ("x" * 5000, "5000 characters are too many"),
    ],
)
def test_a_secret_that_cannot_be_sent_is_refused_by_the_name_of_its_variable(name, value, words):
    livekit = {"GATEWAY_LIVEKIT_URL": "wss://x", "GATEWAY_LIVEKIT_KEY": "k", "GATEWAY_LIVEKIT_SECRET": "s"}
    with pytest.raises(ConfigError) as refused:
        load({**livekit, name: value})
    assert str(refused.value).startswith(f"{name}: {words}")
    assert value not in str(refused.value)


def test_a_space_inside_is_refused_where_it_would_be_sent_and_not_in_what_signs():
    with pytest.raises(ConfigError, match=r"^LIVEAVATAR_API_KEY: character 4 is U\+0020"):
        load({"LIVEAVATAR_API_KEY": "two words"})
    livekit = {"GATEWAY_LIVEKIT_URL": "wss://x", "GATEWAY_LIVEKIT_KEY": "k", "GATEWAY_LIVEKIT_SECRET": "two words"}
    assert load(livekit).livekit_secret.get_secret_value() == "two words"


@pytest.mark.parametrize("secret", ["api_key", "livekit_secret", "registry_key"])
def test_a_file_with_what_cannot_be_a_secret_is_refused_by_the_name_of_its_variable(file, secret):
    name = f"GATEWAY_{secret.upper()}_FILE"
    for text in ("sch\u00f6n", "", " \n"):
        with pytest.raises(ConfigError, match=f"^{name}: "):
            load({name: str(file(text, "secret"))})
    binary = file("", "binary")
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=f"^{name}: .* it is not text"):
        load({name: str(binary)})


def test_a_retired_key_that_cannot_be_sent_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"GATEWAY_RETIRED_API_KEYS.*U\+00E9"):
        load({"GATEWAY_RETIRED_API_KEYS": "good-key k\u00e9y"})


def test_a_secret_file_without_end_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"GATEWAY_API_KEY_FILE.*larger"):
        load({"GATEWAY_API_KEY_FILE": "/dev/zero"})


@pytest.mark.parametrize("name", ["LIVEAVATAR_API_URL", "GATEWAY_API_URL", "GATEWAY_LIVEKIT_URL"])
@pytest.mark.parametrize("userinfo", ["user:pa55word", "pa55word", ":pa55word", "user:pa55word@more"])
def test_credentials_in_an_address_are_refused_and_not_shown(name, userinfo):
    scheme = "wss" if "LIVEKIT" in name else "https"
    with pytest.raises(ConfigError, match=f"^{name}: must have no user name and no password") as refused:
        load({name: f"{scheme}://{userinfo}@host"})
    assert "pa55word" not in str(refused.value)


@pytest.mark.parametrize("secret", ["api_key", "retired_api_keys", "registry_key", "livekit_secret"])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o666])
def test_a_secret_file_that_is_open_to_others_is_refused_by_the_name_of_its_variable(file, secret, mode):
    path = file("ab" * 32, "secret")
    # The group's access to the registry's key is taken away, see below.
    path.chmod(mode | 0o004 if secret == "registry_key" else mode)
    name = f"GATEWAY_{secret.upper()}_FILE"
    with pytest.raises(ConfigError, match=f"^{name}: .* other users .* run `chmod"):
        load({name: str(path)})


def test_a_configuration_file_with_a_secret_is_for_its_owner_alone(file):
    path = file('api_key = "secret"')
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=r"GATEWAY_CONFIG or --config: .* read by other users"):
        load({}, file=path)
    path = file("port = 1")
    path.chmod(0o644)
    assert load({}, file=path).port == 1
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="changed by other users"):
        load({}, file=path)


@pytest.mark.parametrize("mode", [0o660, 0o640])
def test_access_of_the_group_to_the_registry_key_which_kubernetes_adds_is_taken_away(file, mode):
    path = file("ab" * 32, "key")
    path.chmod(mode)
    settings = load({"GATEWAY_REGISTRY_KEY_FILE": str(path)})
    assert settings.registry_key.get_secret_value() == "ab" * 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_file_of_the_registry_key_may_be_missing_since_the_gateway_makes_it(tmp_path):
    settings = load({"GATEWAY_REGISTRY_KEY_FILE": str(tmp_path / "key")})
    assert settings.registry_key.get_secret_value() == ""
    assert settings.registry_key_file == tmp_path / "key"
    assert list(tmp_path.iterdir()) == []
