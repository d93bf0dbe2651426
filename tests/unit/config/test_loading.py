"""Loading of settings: sources, precedence, and errors that name the source."""

import pytest

from liveavatar_gateway.config import ConfigError, load

_SECRET = "la-secret-key-123"


def test_nothing_set_gives_the_defaults():
    settings = load({})
    assert (settings.host, settings.port, settings.max_sessions) == ("127.0.0.1", 50051, 1)
    assert settings.api_key.get_secret_value() == ""


def test_the_environment_is_read_with_its_prefix():
    assert load({"GATEWAY_PORT": "1234", "GATEWAY_REFLECTION": "true"}).port == 1234


def test_variables_of_others_are_left_alone():
    assert load({"PORT": "1", "LIVEAVATAR_OTHER": "x", "gateway_port": "7"}).port == 50051


def test_the_names_that_everyone_knows_are_read_too():
    settings = load({"LIVEAVATAR_API_KEY": "k", "LIVEAVATAR_API_URL": "http://127.0.0.1:8080"})
    assert (settings.api_key.get_secret_value(), settings.api_url) == ("k", "http://127.0.0.1:8080")


def test_our_own_name_goes_before_the_one_that_everyone_knows():
    settings = load({"LIVEAVATAR_API_KEY": "theirs", "GATEWAY_API_KEY": "ours"})
    assert settings.api_key.get_secret_value() == "ours"


def test_an_empty_key_in_the_environment_is_none():
    assert load({"LIVEAVATAR_API_KEY": ""}).api_key.get_secret_value() == ""


def test_a_file_is_read(file):
    assert load({}, file=file("port = 1234\nlog_format = 'json'")).log_format == "json"


def test_a_file_may_be_named_in_the_environment(file):
    assert load({"GATEWAY_CONFIG": str(file("port = 1234"))}).port == 1234


def test_a_file_given_directly_goes_before_one_named_in_the_environment(file):
    named, given = file("port = 1", "named.toml"), file("port = 2", "given.toml")
    assert load({"GATEWAY_CONFIG": str(named)}, file=given).port == 2


def test_the_environment_goes_before_the_file_and_flags_before_both(file):
    path = file("port = 1\nhost = 'file'\nmax_sessions = 5")
    settings = load({"GATEWAY_PORT": "2", "GATEWAY_HOST": "environment"}, file=path, flags={"port": 3})
    assert (settings.port, settings.host, settings.max_sessions) == (3, "environment", 5)


def test_a_flag_that_was_not_given_changes_nothing():
    assert load({"GATEWAY_PORT": "2"}, flags={"port": None}).port == 2


def test_the_process_environment_leaks_in_only_where_it_is_asked_for(monkeypatch):
    monkeypatch.setenv("GATEWAY_PORT", "999")
    assert load({}).port == 50051
    assert load().port == 999


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"GATEWAY_MAX_SESION": "3"}, "unknown setting GATEWAY_MAX_SESION in the environment"),
        ({"GATEWAY_MAX_SESION": "3"}, "did you mean GATEWAY_MAX_SESSIONS?"),
        ({"GATEWAY_ZZZ": "3"}, "unknown setting GATEWAY_ZZZ"),
    ],
)
def test_an_unknown_variable_is_an_error_with_a_suggestion(environment, words):
    with pytest.raises(ConfigError) as refused:
        load(environment)
    assert words in str(refused.value)


def test_a_setting_that_resembles_none_gets_no_suggestion():
    with pytest.raises(ConfigError) as refused:
        load({"GATEWAY_ZZZ": "3"})
    assert "did you mean" not in str(refused.value)


def test_an_unknown_setting_in_a_file_is_an_error_with_a_suggestion(file):
    with pytest.raises(ConfigError, match=r"unknown setting prot in the file; did you mean port\?"):
        load({}, file=file("prot = 1"))


def test_all_bad_values_are_named_at_once():
    with pytest.raises(ConfigError) as refused:
        load({"GATEWAY_PORT": "-1", "GATEWAY_MAX_SESSIONS": "0"})
    assert "GATEWAY_PORT" in str(refused.value)
    assert "GATEWAY_MAX_SESSIONS" in str(refused.value)


def test_a_file_that_is_no_toml_is_named(file):
    path = file("port = = 1")
    with pytest.raises(ConfigError, match="cannot be read") as refused:
        load({}, file=path)
    assert str(path) in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read"):
        load({}, file=tmp_path / "nowhere.toml")


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.toml cannot be read"):
        load({}, file=path)


@pytest.mark.parametrize("environment", [{"GATEWAY_PORT": "x"}, {"GATEWAY_MARGIN_S": "0.5"}, {"GATEWAY_KEY": "x"}])
def test_a_secret_is_in_no_error_about_other_settings(environment):
    with pytest.raises(ConfigError) as refused:
        load({"LIVEAVATAR_API_KEY": _SECRET, **environment})
    assert _SECRET not in str(refused.value)
    assert refused.value.__cause__ is None


def test_space_around_values_is_not_a_part_of_them(file):
    path = file("\ufeffkey\r\n", "key")
    assert load({"GATEWAY_API_KEY_FILE": f" {path} "}).api_key.get_secret_value() == "key"
    settings = load({"LIVEAVATAR_API_KEY": " key\r\n", "LIVEAVATAR_API_URL": "https://x\n", "GATEWAY_PORT": " 7 "})
    assert (settings.api_key.get_secret_value(), settings.api_url, settings.port) == ("key", "https://x", 7)
    assert load({"LIVEAVATAR_API_KEY": " \n"}).api_key.get_secret_value() == ""


@pytest.mark.parametrize("name", ["GATEWAY_REGISTRY_KEY", "GATEWAY_REGISTRY_KEY_FILE"])
def test_a_registry_key_that_cannot_be_used_names_its_variable(file, name):
    value = str(file("abc", "key")) if name.endswith("FILE") else "abc"
    with pytest.raises(ConfigError, match=f"^{name}: "):
        load({name: value})


@pytest.mark.parametrize("content", ["no certificate", None])
def test_certificates_of_authorities_that_cannot_be_read_are_refused_by_name(tmp_path, content):
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
        load({"SSL_CERT_FILE": str(path)})


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"LIVEAVATAR_API_KEY": "a-key", "GATEWAY_POOL_FILE": "/accounts.toml"}, "exclude each other"),
        ({"GATEWAY_POOL_FILE": "accounts.toml"}, "must be an absolute path"),
        ({"GATEWAY_BREAKER_S": "0"}, "GATEWAY_BREAKER_S"),
    ],
)
def test_settings_of_accounts_are_checked(variables, said):
    with pytest.raises(ConfigError, match=said) as refused:
        load(variables)
    assert "a-key" not in str(refused.value)
