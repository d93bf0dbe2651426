"""TLS certificate of the servers: read, checked, and taken up again by a running process when it was renewed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from liveavatar_gateway.config import ConfigError

CERT_SETTING: Final = "GATEWAY_TLS_CERT_FILE"
KEY_SETTING: Final = "GATEWAY_TLS_KEY_FILE"
_MAX_BYTES: Final = 1024 * 1024
"""Largest file that is read: chains have some kilobytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate chain and its private key, as PEM; they belong together."""

    chain: bytes
    key: bytes = field(repr=False)
    not_after: str
    """End of the certificate's validity, ISO 8601."""


def read_pair(cert_file: Path, key_file: Path) -> KeyPair:
    """Read and check a certificate chain and its key.

    Raises:
        ConfigError: one of them cannot be used, or they do not belong together; the message names the setting.
    """
    chain, key_pem = _read(cert_file, CERT_SETTING), _read(key_file, KEY_SETTING)
    try:
        certificates = x509.load_pem_x509_certificates(chain)
        cert_public = certificates[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{CERT_SETTING}: {cert_file} holds no usable PEM certificate: {_short(error)}"
        ) from None
    key_public = _private_key(key_pem, key_file).public_key()
    if key_public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != cert_public:
        raise ConfigError(
            f"{KEY_SETTING}: {key_file} is not the key of the certificate in {CERT_SETTING}, {cert_file}"
        )
    return KeyPair(chain=chain, key=key_pem, not_after=certificates[0].not_valid_after_utc.isoformat())


def _private_key(pem: bytes, key_file: Path) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError:
        raise ConfigError(
            f"{KEY_SETTING}: {key_file} is encrypted, and there is no setting for its passphrase; decrypt it"
        ) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{KEY_SETTING}: {key_file} holds no usable PEM private key: {_short(error)}") from None


def _read(path: Path, setting: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {error.strerror or error}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{setting}: {path} is larger than {_MAX_BYTES} bytes and cannot be a PEM file")
    return data


def _short(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


class ServerCertificate:
    """The pair that servers show to new connections. Connections that are open keep theirs."""

    def __init__(self, pair: KeyPair) -> None:
        self.pair = pair
        """Replaced as a whole, since gRPC reads it from threads of its own."""

    def credentials(self) -> grpc.ServerCredentials:
        """Make the credentials of one server; it asks for the pair at each handshake."""
        shown = self.pair

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            # Called by gRPC before each handshake, where nothing may block or raise: the file was read before.
            nonlocal shown
            if self.pair is shown:
                return None
            shown = self.pair
            return _configuration(shown)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(shown),
            # None means no change, which the stubs do not know.
            fetch,  # type: ignore[arg-type]
            require_client_authentication=False,
        )


def _configuration(pair: KeyPair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)])
