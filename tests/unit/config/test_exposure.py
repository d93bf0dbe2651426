"""Other machines are served only with authentication and TLS, or where settings name the exception."""

from pathlib import Path

import pytest

from liveavatar_gateway.config import ConfigError, Settings
from liveavatar_gateway.config.exposure import check, exceptions, is_local

TLS = {"tls_cert_file": Path("c.pem"), "tls_key_file": Path("k.pem")}
AUTH = {"auth_file": Path("tenants.toml")}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_loopback_address_needs_nothing(host):
    assert is_local(host)
    settings = Settings(host=host, admin_host=host, admin_port=0)
    check(settings)
    assert exceptions(settings) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "fe80::1%eth0", "gateway.example"])
@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "GATEWAY_AUTH_FILE"),
        (TLS, "GATEWAY_ANONYMOUS=1"),
        (AUTH, "GATEWAY_PLAINTEXT=behind-proxy"),
        ({"anonymous": True}, "GATEWAY_TLS_CERT_FILE"),
    ],
)
def test_other_machines_are_not_served_without_protection(host, values, named):
    assert not is_local(host)
    with pytest.raises(ConfigError, match=named):
        check(Settings(host=host, **values))


@pytest.mark.parametrize(
    ("values", "off"),
    [
        ({**TLS, **AUTH}, []),
        ({**TLS, "anonymous": True}, ["anonymous"]),
        ({**AUTH, "plaintext": "behind-proxy"}, ["plaintext"]),
        ({"anonymous": True, "plaintext": "behind-proxy"}, ["anonymous", "plaintext"]),
    ],
)
def test_each_exception_is_named(values, off):
    settings = Settings(host="10.1.2.3", **values)
    check(settings)
    assert exceptions(settings) == off


def test_operators_on_other_machines_need_certificates():
    values = {**TLS, **AUTH, "admin_host": "10.1.2.3", "admin_port": 0}
    with pytest.raises(ConfigError, match="GATEWAY_TLS_CLIENT_CA_FILE"):
        check(Settings(**values))
    check(Settings(**values, tls_client_ca_file=Path("ca.pem")))
