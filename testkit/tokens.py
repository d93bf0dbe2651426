"""Issuer of JSON web tokens, for tests: its keys, its key set, and tokens right and wrong."""

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def private_key(kind: str = "P-256") -> PrivateKey:
    """Make a key: P-256, P-384, P-521, Ed25519, or RSA with the number of its bits."""
    match kind:
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "P-521":
            return ec.generate_private_key(ec.SECP521R1())
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(65537, int(kind.removeprefix("RSA-")))


def public_jwk(key: PrivateKey, **members: Any) -> dict[str, Any]:
    """Return the public part of a key as an entry of a key set."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        entry = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        entry = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        entry = OKPAlgorithm.to_jwk(public, as_dict=True)
    return {**entry, **members}


def key_set(*entries: Any) -> bytes:
    return json.dumps({"keys": list(entries)}).encode()


class TokenIssuer:
    """Issuer with one key at a time."""

    def __init__(
        self, name: str = "https://issuer.example", *, kind: str = "P-256", algorithm: str = "ES256"
    ) -> None:
        self.name = name
        self.algorithm = algorithm
        self._kind = kind
        self._count = 0
        self.entries: list[dict[str, Any]] = []
        self.rotate()

    def rotate(self) -> None:
        """Sign with a new key from now on; the set keeps the older ones."""
        self._count += 1
        self.key = private_key(self._kind)
        self.kid = f"k{self._count}"
        self.entries.append(public_jwk(self.key, kid=self.kid, use="sig"))

    @property
    def jwks(self) -> bytes:
        return key_set(*self.entries)

    def token(self, *, headers: dict[str, Any] | None = None, lifetime_s: float = 60.0, **claims: Any) -> str:
        """Make a token; claims of None are left out, headers too."""
        now_s = int(time.time())
        all_claims = {"iss": self.name, "aud": "gateway", "exp": int(now_s + lifetime_s), "sub": "agent"} | claims
        all_headers = {"kid": self.kid} | (headers or {})
        return jwt.encode(
            {name: value for name, value in all_claims.items() if value is not None},
            self.key,
            algorithm=self.algorithm,
            headers={name: value for name, value in all_headers.items() if value is not None},
        )
