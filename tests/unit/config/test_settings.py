"""The settings model: ranges, rules between settings, and output without secrets."""

import json

import pytest

from liveavatar_gateway.config import ConfigError, Settings, load

_SECRET = "la-secret-key-123"


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
        ("GATEWAY_VIEWER_ABSENCE_S", "4.9", "must be 0 or at least 5"),
        ("GATEWAY_REFLECTION", "perhaps", "valid boolean"),
    ],
)
def test_a_value_out_of_its_range_names_the_variable_and_the_range(name, value, words):
    with pytest.raises(ConfigError) as refused:
        load({name: value})
    assert str(refused.value).startswith(f"{name}: ")
    assert words in str(refused.value)


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


def test_every_setting_says_what_it_is_for():
    assert all(field.description for field in Settings.model_fields.values())


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
    settings = load({"GATEWAY_HOST": value, "GATEWAY_ADMIN_HOST": value, "GATEWAY_METRICS_HOST": value})
    assert (settings.host, settings.admin_host, settings.metrics_host) == ("::1", "::1", "::1")


def test_an_address_for_metrics_that_cannot_be_one_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"^GATEWAY_METRICS_HOST: "):
        load({"GATEWAY_METRICS_HOST": "127.0.0.1 \u00fc"})


def test_what_is_shown_keeps_its_types():
    shown = load({"GATEWAY_TLS_CERT_FILE": "/x/c", "GATEWAY_TLS_KEY_FILE": "/x/k", "GATEWAY_PORT": "7"}).shown()
    assert (shown["port"], shown["reflection"], shown["metrics_port"]) == (7, False, None)
    assert (shown["tls_cert_file"], shown["api_key"], shown["lease_s"]) == ("/x/c", "not set", 10.0)
    assert json.loads(json.dumps(shown)) == shown


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
