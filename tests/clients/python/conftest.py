"""Fixtures of the Python client's tests: a real gateway, in the clear and with TLS."""

import datetime as dt
import ipaddress
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from liveavatar.gateway import AsyncClient, Client
from testkit import processes


@dataclass(frozen=True)
class Identity:
    """A self-signed certificate for 127.0.0.1."""

    certificate_path: Path
    key_path: Path

    @property
    def certificate(self) -> bytes:
        return self.certificate_path.read_bytes()

    @property
    def key(self) -> bytes:
        return self.key_path.read_bytes()


@pytest.fixture(scope="session")
def identity(tmp_path_factory) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(addresses, critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    found = Identity(folder / "cert.pem", folder / "key.pem")
    found.certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    found.key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return found


@pytest.fixture(scope="session")
def tls_gateway(shared_emulator: processes.Emulator, identity: Identity) -> Iterator[processes.Gateway]:
    arguments = ["--tls-cert", str(identity.certificate_path), "--tls-key", str(identity.key_path)]
    with processes.gateway(shared_emulator.url, *arguments) as found:
        yield found


@pytest.fixture
async def client(emulator: processes.Emulator, shared_gateway: processes.Gateway) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(shared_gateway.address) as found:
        yield found


@pytest.fixture
def blocking(emulator: processes.Emulator, shared_gateway: processes.Gateway) -> Iterator[Client]:
    with Client(shared_gateway.address) as found:
        yield found
