"""Files of a TLS connection: read when the client is made, and again when they have changed."""

import logging

import grpc
import pytest

from liveavatar.gateway import TLS, PlaintextRefused
from liveavatar.gateway.tls import ChannelSecurity, require_encryption
from testkit.certificates import Authority


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def files(tmp_path, authority):
    signed = authority.sign("caller")
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    (tmp_path / "cert.pem").write_bytes(signed.certificate)
    (tmp_path / "key.pem").write_bytes(signed.key)
    return TLS(
        ca_file=tmp_path / "ca.pem", certificate_file=str(tmp_path / "cert.pem"), key_file=tmp_path / "key.pem"
    )


def test_without_tls_there_are_no_channel_credentials():
    for given in (None, False):
        security = ChannelSecurity(given)
        assert not security.encrypted
        assert security.credentials() is None


def test_the_systems_authorities_and_grpcs_own_objects():
    assert ChannelSecurity(True).encrypted
    ours = grpc.ssl_channel_credentials()
    assert ChannelSecurity(ours).credentials() is ours


def test_unchanged_files_are_not_read_again(files):
    security = ChannelSecurity(files)
    assert security.credentials() is security.credentials()


def test_a_replaced_pair_is_used_once_it_is_whole(files, tmp_path, authority, caplog):
    security = ChannelSecurity(files)
    before = security.credentials()
    signed = authority.sign("caller")
    (tmp_path / "cert.pem").write_bytes(signed.certificate + b"\n")
    with caplog.at_level(logging.WARNING):
        assert security.credentials() is before
        assert security.credentials() is before
    assert caplog.text.count("tls.not_reloaded") == 1
    (tmp_path / "key.pem").write_bytes(signed.key + b"\n")
    assert security.credentials() is not before


def test_a_removed_file_leaves_the_former_ones_in_use(files, tmp_path):
    security = ChannelSecurity(files)
    before = security.credentials()
    (tmp_path / "key.pem").unlink()
    assert security.credentials() is before


def test_unusable_files_are_refused(files, tmp_path):
    with pytest.raises(ValueError, match="both"):
        ChannelSecurity(TLS(key_file=tmp_path / "key.pem"))
    with pytest.raises(FileNotFoundError):
        ChannelSecurity(TLS(ca_file=tmp_path / "missing"))
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(ValueError, match=r"key\.pem"):
        ChannelSecurity(files)
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ValueError, match=r"ca\.pem"):
        ChannelSecurity(TLS(ca_file=tmp_path / "ca.pem"))


def test_plaintext_to_another_machine_is_refused_with_the_next_step():
    with pytest.raises(PlaintextRefused, match="allow_plaintext=True"):
        require_encryption("gateway:50051", ChannelSecurity(None))
    require_encryption("localhost:50051", ChannelSecurity(None))
    require_encryption("gateway:50051", ChannelSecurity(True))
