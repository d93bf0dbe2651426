"""Gateway with tenants in front of an emulator, for the lines of this area."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from testkit import processes
from testkit.certificates import Authority
from testkit.tenants import TenantsFile
from testkit.tokens import TokenIssuer


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything that a line needs."""

    emulator: processes.Emulator
    gateway: processes.Gateway
    tenants: TenantsFile
    issuer: TokenIssuer
    """Issuer of tokens for every tenant, with the roles that a token names."""
    jwks: Path
    """File with the key set of the issuer."""
    folder: Path

    def token(self, tenant: str, *roles: str, lifetime_s: float = 3600.0) -> str:
        """Make a token of a tenant with some roles."""
        return self.issuer.token(lifetime_s=lifetime_s, tenant=tenant, roles=" ".join(roles))


@contextlib.contextmanager
def stage(*tenants: str, authenticates: bool = True, **settings: object) -> Iterator[Stage]:
    """Run a gateway that several tenants share.

    Args:
        tenants: Names of the tenants, with wide quotas.
        authenticates: False for a gateway that asks for no credential, as the base of a comparison.
        settings: Settings of the gateway.
    """
    issuer = TokenIssuer()
    with tempfile.TemporaryDirectory() as name, processes.emulator() as emulator:
        folder = Path(name)
        jwks = folder / "jwks.json"
        jwks.write_bytes(issuer.jwks)
        file = TenantsFile(folder / "tenants.toml")
        for tenant in tenants:
            file.tenant(tenant)
        file.issuer(
            issuer=issuer.name,
            audience=["gateway"],
            algorithms=["ES256"],
            jwks_file=jwks,
            tenant_claim="tenant",
            tenants=["*"],
            roles=["open", "speak", "listen", "control", "watch", "admin"],
            roles_claim="roles",
        )
        if authenticates:
            settings["auth_file"] = file.path
        with processes.gateway(emulator.url, **settings) as gateway:
            yield Stage(emulator=emulator, gateway=gateway, tenants=file, issuer=issuer, jwks=jwks, folder=folder)


@contextlib.contextmanager
def certificates(authority: Authority) -> Iterator[dict[str, Path]]:
    """Write a server's certificate; yields the settings of the files."""
    server = authority.server()
    contents = {"ca.pem": authority.certificate, "cert.pem": server.certificate, "key.pem": server.key}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            Path(folder, name).write_bytes(content)
        yield {
            "tls_cert_file": Path(folder, "cert.pem"),
            "tls_key_file": Path(folder, "key.pem"),
            "tls_client_ca_file": Path(folder, "ca.pem"),
        }
