"""Settings: where they come from, who wins, and what is said about a bad one."""

import json
from pathlib import Path

import pytest

from liveavatar_gateway.config import ConfigError, Settings, components, load

_SECRET = "la-secret-key-123"


@pytest.fixture
def file(tmp_path):
    """Writes a configuration file."""

    def write(text: str, name: str = "gateway.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


# --- where values come from


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


# --- bad values


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


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("GATEWAY_PORT", "70000", "less than or equal to 65535"),
        ("GATEWAY_PORT", "abc", "valid integer"),
        ("GATEWAY_MAX_SESSIONS", "0", "greater than or equal to 1"),
        ("GATEWAY_REST_TIMEOUT_S", "0", "greater than 0"),
        ("GATEWAY_FIRST_PACKET_S", "0.01", "greater than or equal to 0.1"),
        ("GATEWAY_MAX_CHUNK_BYTES", "1", "greater than or equal to 1024"),
        ("GATEWAY_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("GATEWAY_API_URL", "ftp://x", "pattern"),
        ("GATEWAY_API_URL", "https://api.liveavatar.com/v1", "pattern"),
        ("GATEWAY_REFLECTION", "perhaps", "valid boolean"),
    ],
)
def test_a_value_out_of_its_range_names_the_variable_and_the_range(name, value, words):
    with pytest.raises(ConfigError) as refused:
        load({name: value})
    assert str(refused.value).startswith(f"{name}: ")
    assert words in str(refused.value)


def test_all_bad_values_are_named_at_once():
    with pytest.raises(ConfigError) as refused:
        load({"GATEWAY_PORT": "-1", "GATEWAY_MAX_SESSIONS": "0"})
    assert "GATEWAY_PORT" in str(refused.value)
    assert "GATEWAY_MAX_SESSIONS" in str(refused.value)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"GATEWAY_MARGIN_S": "0.5"}, "GATEWAY_MARGIN_S must not be above GATEWAY_FIRST_PACKET_S"),
        ({"GATEWAY_MAX_PACKET_S": "5"}, "GATEWAY_MAX_PACKET_S must not be above GATEWAY_MAX_LEAD_S"),
        (
            {"GATEWAY_TLS_CERT_FILE": "/x/cert.pem"},
            "GATEWAY_TLS_CERT_FILE and GATEWAY_TLS_KEY_FILE must be set together",
        ),
        (
            {"GATEWAY_TLS_KEY_FILE": "/x/key.pem"},
            "GATEWAY_TLS_CERT_FILE and GATEWAY_TLS_KEY_FILE must be set together",
        ),
        ({"GATEWAY_LIVEKIT_URL": "wss://x"}, "missing: GATEWAY_LIVEKIT_KEY, GATEWAY_LIVEKIT_SECRET$"),
        ({"GATEWAY_LIVEKIT_SECRET": _SECRET}, "missing: GATEWAY_LIVEKIT_URL, GATEWAY_LIVEKIT_KEY$"),
        (
            {"GATEWAY_LIVEKIT_URL": "wss://x", "GATEWAY_LIVEKIT_SECRET": _SECRET},
            "a LiveKit server needs a URL, a key and a secret; missing: GATEWAY_LIVEKIT_KEY$",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(environment, words):
    with pytest.raises(ConfigError, match=words):
        load(environment)


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


# --- secrets


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


def test_there_is_no_livekit_server_unless_it_is_set():
    settings = load({})
    assert components.livekit(settings) is None
    assert not components.rpc(settings).own_rooms


def test_a_livekit_server_is_its_url_key_and_secret(file):
    path = file(f"{_SECRET}\n", "livekit")
    settings = load(
        {
            "GATEWAY_LIVEKIT_URL": "wss://rooms.example.com",
            "GATEWAY_LIVEKIT_KEY": "APIkey",
            "GATEWAY_LIVEKIT_SECRET_FILE": str(path),
        }
    )
    livekit = components.livekit(settings)
    assert livekit is not None
    assert (livekit.url, livekit.api_key, livekit.api_secret) == ("wss://rooms.example.com", "APIkey", _SECRET)
    assert components.rpc(settings).own_rooms
    shown = settings.shown()
    assert (shown["livekit_key"], shown["livekit_secret"]) == ("set", "set")


@pytest.mark.parametrize("url", ["https://x", "rooms.example.com", "wss://", "wss://key:secret@x", "wss://x/path"])
def test_a_livekit_url_is_the_address_of_a_websocket_server(url):
    with pytest.raises(ConfigError, match="GATEWAY_LIVEKIT_URL"):
        load({"GATEWAY_LIVEKIT_URL": url, "GATEWAY_LIVEKIT_KEY": "k", "GATEWAY_LIVEKIT_SECRET": _SECRET})


def test_a_secret_is_in_no_text_form_of_the_settings():
    settings = load(
        {
            "LIVEAVATAR_API_KEY": _SECRET,
            "GATEWAY_LIVEKIT_URL": "wss://x",
            "GATEWAY_LIVEKIT_KEY": _SECRET,
            "GATEWAY_LIVEKIT_SECRET": _SECRET,
        }
    )
    for text in (repr(settings), str(settings), str(settings.shown()), settings.model_dump_json()):
        assert _SECRET not in text


@pytest.mark.parametrize(("key", "shown"), [(_SECRET, "set"), ("", "not set")])
def test_what_is_shown_of_a_secret_is_whether_it_is_there(key, shown):
    assert load({"LIVEAVATAR_API_KEY": key}).shown()["api_key"] == shown


@pytest.mark.parametrize("environment", [{"GATEWAY_PORT": "x"}, {"GATEWAY_MARGIN_S": "0.5"}, {"GATEWAY_KEY": "x"}])
def test_a_secret_is_in_no_error_about_other_settings(environment):
    with pytest.raises(ConfigError) as refused:
        load({"LIVEAVATAR_API_KEY": _SECRET, **environment})
    assert _SECRET not in str(refused.value)
    assert refused.value.__cause__ is None


# --- the parts


def test_every_setting_says_what_it_is_for():
    assert all(field.description for field in Settings.model_fields.values())


def test_the_parts_get_what_was_set():
    settings = load(
        {},
        flags={
            "max_sessions": 7,
            "max_waiting": 8,
            "wait_s": 9,
            "keep_alive_s": 50,
            "api_url": "http://127.0.0.1:1",
            "rest_timeout_s": 3,
            "first_packet_s": 0.5,
            "max_lead_s": 4,
            "max_buffered_s": 20,
            "ready_timeout_s": 11,
            "end_tail_s": 1.5,
            "retention_s": 12,
            "detach_grace_s": 13,
            "max_chunk_bytes": 2048,
        },
    )
    account, pool = components.account(settings), components.pool(settings)
    directory, rpc = components.directory(settings), components.rpc(settings)
    assert (account.permits.limit, account.permits.max_waiting, account.permits.wait_s) == (7, 8, 9)
    assert pool.keep_alive.interval_s == 50
    assert (components.rest(settings).base_url, components.rest(settings).timeout_s) == ("http://127.0.0.1:1", 3)
    assert components.speech(settings).scheduler.first_packet_s == 0.5
    assert (directory.session.speech, directory.session.readiness.ready_timeout_s) == (
        components.speech(settings),
        11,
    )
    assert directory.session.end_tail_s == 1.5
    assert (directory.retention_s, rpc.detach_grace_s, rpc.max_chunk_bytes) == (12, 13, 2048)
    assert rpc.speech.max_buffered_s == 20


# --- what can be sent


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LIVEAVATAR_API_URL", "https://b\u00fccher.example"),
        ("LIVEAVATAR_API_URL", "https://x/v1"),
        ("GATEWAY_API_URL", "https://x\u200b"),
        ("GATEWAY_LIVEKIT_URL", "wss://\u00fc"),
        ("GATEWAY_HOST", "::1\u200b"),
        ("GATEWAY_ADVERTISED_ADDRESS", "::1:50051"),
        ("GATEWAY_ADVERTISED_ADDRESS", "b\u00fccher:1"),
    ],
)
def test_an_address_that_is_none_names_the_variable_that_it_came_from(name, value):
    with pytest.raises(ConfigError, match=f"^{name}: "):
        load({name: value})


@pytest.mark.parametrize("value", ["[::1]:50051", "10.0.0.1:1", "gateway-0.gateway:50051", "[fe80::1%eth0]:1"])
def test_addresses_that_can_be_advertised(value):
    assert load({"GATEWAY_ADVERTISED_ADDRESS": value}).advertised_address == value


@pytest.mark.parametrize("value", ["::1", "[::1]"])
def test_brackets_around_the_address_to_listen_on_change_nothing(value):
    settings = load({"GATEWAY_HOST": value, "GATEWAY_ADMIN_HOST": value})
    assert (settings.host, settings.admin_host) == ("::1", "::1")


def test_what_is_shown_keeps_its_types():
    shown = load({"GATEWAY_TLS_CERT_FILE": "/x/c", "GATEWAY_TLS_KEY_FILE": "/x/k", "GATEWAY_PORT": "7"}).shown()
    assert (shown["port"], shown["reflection"], shown["metrics_port"]) == (7, False, None)
    assert (shown["tls_cert_file"], shown["api_key"], shown["lease_s"]) == ("/x/c", "not set", 10.0)
    assert json.loads(json.dumps(shown)) == shown


def test_retired_keys_come_one_a_line_from_a_file_and_the_one_in_use_is_not_among_them(tmp_path):
    file = tmp_path / "keys"
    file.write_text("first-key\r\nsecond-key, in-use\n\n")
    settings = load({"LIVEAVATAR_API_KEY": "in-use", "GATEWAY_RETIRED_API_KEYS_FILE": str(file)})
    assert sorted(components.retired_keys(settings).values()) == ["first-key", "second-key"]
    assert "first-key" not in str(settings.shown())


def test_a_retired_key_that_cannot_be_sent_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"GATEWAY_RETIRED_API_KEYS.*U\+00E9"):
        load({"GATEWAY_RETIRED_API_KEYS": "good-key k\u00e9y"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LIVEAVATAR_API_URL", "https://user:hidden@api.example"),
        ("LIVEAVATAR_API_URL", "https://api.example?key=hidden"),
        ("LIVEAVATAR_API_URL", "https://api.example#hidden"),
        ("LIVEAVATAR_API_URL", "https://api.example:99999"),
        ("LIVEAVATAR_API_URL", "https://[::hidden]:1"),
        ("LIVEAVATAR_API_URL", "https://:443"),
        ("GATEWAY_LIVEKIT_URL", "wss://livekit.example?token=hidden"),
        ("GATEWAY_LIVEKIT_URL", "wss://livekit.example:99999"),
    ],
)
def test_an_address_with_a_secret_or_without_a_usable_host_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name) as refused:
        load({name: value})
    assert "user:hidden" not in str(refused.value)
    assert "=hidden" not in str(refused.value)


@pytest.mark.parametrize("content", ["no certificate", None])
def test_certificates_of_authorities_that_cannot_be_read_are_refused_by_name(tmp_path, content):
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
        load({"SSL_CERT_FILE": str(path)})


def test_a_secret_file_without_end_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"GATEWAY_API_KEY_FILE.*larger"):
        load({"GATEWAY_API_KEY_FILE": "/dev/zero"})
