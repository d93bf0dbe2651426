"""Certificates: usable pairs, and errors that name the setting of an unusable file."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from liveavatar_gateway.certificates import CERT_SETTING, KEY_SETTING, KeyPair, ServerCertificate, read_pair
from liveavatar_gateway.config import ConfigError


def test_an_unusable_certificate_names_its_setting(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    with pytest.raises(ConfigError, match=f"^{CERT_SETTING}: .* cannot be read"):
        read_pair(cert, key)
    cert.write_text("no certificate")
    key.write_text("no key")
    with pytest.raises(ConfigError, match=f"^{CERT_SETTING}: .* no usable PEM certificate"):
        read_pair(cert, key)
    cert.write_bytes(b"x" * (1024 * 1024 + 1))
    with pytest.raises(ConfigError, match=f"^{CERT_SETTING}: .* is larger than"):
        read_pair(cert, key)


def test_an_encrypted_key_is_refused(tmp_path):
    from liveavatar_gateway.certificates import _private_key

    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(ConfigError, match=f"^{KEY_SETTING}: .* is encrypted"):
        _private_key(pem, tmp_path / "key.pem")


def test_only_another_pair_replaces_the_current_one():
    pair = KeyPair(chain=b"c", key=b"k", not_after="2030")
    certificate = ServerCertificate(pair)
    assert not certificate.replace(KeyPair(chain=b"c", key=b"k", not_after="2030"))
    assert certificate.replace(KeyPair(chain=b"d", key=b"k", not_after="2031"))
