"""TLS certificate of the servers: reading, checking, and replacing a renewed one at run time."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from liveavatar_gateway.config import ConfigError
from liveavatar_gateway.guarded_files import UnsafeFile, read_guarded

CERT_SETTING: Final = "GATEWAY_TLS_CERT_FILE"
KEY_SETTING: Final = "GATEWAY_TLS_KEY_FILE"
CLIENT_CA_SETTING: Final = "GATEWAY_TLS_CLIENT_CA_FILE"
_MAX_BYTES: Final = 1024 * 1024
"""Largest file that is read; certificate chains take a few kilobytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """PEM certificate chain with the private key that belongs to it."""

    chain: bytes
    key: bytes = field(repr=False)
    not_after: str
    """End of the certificate's validity, ISO 8601."""


def read_pair(cert_file: Path, key_file: Path) -> KeyPair:
    """Read and check a certificate chain and its key.

    Raises:
        ConfigError: a file cannot be used, or certificate and key do not match; the message names the setting.
    """
    chain, key_pem = _read(cert_file, CERT_SETTING), _read(key_file, KEY_SETTING, private=True)
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
            f"{KEY_SETTING}: {key_file} is encrypted, and no setting holds a passphrase; decrypt the file"
        ) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{KEY_SETTING}: {key_file} holds no usable PEM private key: {_short(error)}") from None


def _read(path: Path, setting: str, *, private: bool = False) -> bytes:
    try:
        data = read_guarded(path, _MAX_BYTES, private=private)
    except UnsafeFile as error:
        raise ConfigError(f"{setting}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {error.strerror or error}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{setting}: {path} is larger than {_MAX_BYTES} bytes and cannot be a PEM file")
    return data


def _short(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


class ServerCertificate:
    """Certificate that servers present to new connections. Open connections keep theirs."""

    def __init__(self, pair: KeyPair) -> None:
        # Replaced as a whole, since gRPC reads the pair from its own threads.
        self._pair = pair

    def replace(self, pair: KeyPair) -> bool:
        """Use another pair for new connections; return False if the pair is the same."""
        changed = pair != self._pair
        self._pair = pair
        return changed

    def credentials(self, client_ca: "ClientAuthorities | None" = None) -> grpc.ServerCredentials:
        """Return the credentials of one port, which reads the current certificates at each handshake.

        Args:
            client_ca: Authorities that sign callers' certificates, which callers must then show; None asks for
                none.
        """
        used = self._pair, None if client_ca is None else client_ca.pem

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            # gRPC calls this before each handshake, so it must not block or raise: files are read elsewhere.
            nonlocal used
            present = self._pair, None if client_ca is None else client_ca.pem
            if present == used:
                return None
            used = present
            return _configuration(*used)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(*used),
            # None means no change; gRPC's type stubs do not allow None.
            fetch,  # type: ignore[arg-type]
            require_client_authentication=client_ca is not None,
        )


def _configuration(pair: KeyPair, client_ca: bytes | None) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], root_certificates=client_ca)


def read_authorities(file: Path) -> bytes:
    """Read and check certificates of authorities, PEM.

    Raises:
        ConfigError: the file cannot be used.
    """
    pem = _read(file, CLIENT_CA_SETTING)
    try:
        x509.load_pem_x509_certificates(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{CLIENT_CA_SETTING}: {file} holds no usable PEM certificate: {_short(error)}"
        ) from None
    return pem


class ClientAuthorities:
    """Authorities that sign callers' certificates. Open connections stay when they change."""

    def __init__(self, pem: bytes) -> None:
        self.pem = pem
        """Certificates of the authorities."""

    def replace(self, pem: bytes) -> bool:
        """Use other authorities for new connections; return False if they are the same."""
        changed = pem != self.pem
        self.pem = pem
        return changed
