"""API keys: their text, the digest that is stored, and the comparison of both."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from liveavatar_gateway.core.errors import CredentialInvalid

PREFIX: Final = "lag_"
"""Begin of every key, by which secret scanners and the gateway recognise one."""
MAX_ACTIVE: Final = 2
"""Active keys of a tenant: the current one, and the next one while callers change over."""
_SECRET_BYTES: Final = 32
_ID_CHARS: Final = 12
_ID_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"
"""Letters and digits that are not mistaken for each other: 60 bits in an id."""

ID_PATTERN: Final = r"[a-z0-9]{12}"
DIGEST_PATTERN: Final = r"sha256:[0-9a-f]{64}"
# 43 characters of URL-safe base64 are 32 bytes.
_KEY: Final = re.compile(rf"{PREFIX}({ID_PATTERN})_([A-Za-z0-9_-]{{43}})", re.ASCII)
_NO_DIGEST: Final = "sha256:" + "0" * 64
"""Digest that no text is known to have."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """API key with its secret: exists only while it is made or compared."""

    key_id: str
    text: str = field(repr=False)
    """Key as callers send it."""

    @property
    def digest(self) -> str:
        """Digest that is stored instead of the key.

        A single SHA-256 is enough: the secret has 256 random bits, so nobody can try the possible ones, and a slow
        hash would only slow down calls. The digest covers the id, so it is of use with no other one.
        """
        return f"sha256:{hashlib.sha256(self.text.encode()).hexdigest()}"


class StoredKey(Protocol):
    """Stored part of a key."""

    @property
    def digest(self) -> str:
        """Digest of the key."""

    @property
    def expires(self) -> datetime | None:
        """End of the validity; None for a key without an end."""

    @property
    def revoked(self) -> datetime | None:
        """Time of the revocation; None for a key that was not revoked."""


def generate() -> ApiKey:
    """Return a new key with 256 random bits."""
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARS))
    return ApiKey(key_id, f"{PREFIX}{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}")


def parse(text: str) -> ApiKey:
    """Return the key of a text.

    Raises:
        CredentialInvalid: the text is not an API key; the error repeats no part of it.
    """
    # The pattern has a fixed length, so a long text costs no more than a short one.
    matched = _KEY.fullmatch(text)
    if matched is None:
        raise CredentialInvalid("malformed API key")
    return ApiKey(matched[1], text)


def matches(key: ApiKey, stored: StoredKey | None) -> bool:
    """Return whether a key is the stored one.

    Takes the same time for an unknown id, None, as for a wrong secret: ids cannot be found out by the clock.
    """
    digest = _NO_DIGEST if stored is None else stored.digest
    return hmac.compare_digest(key.digest, digest) and stored is not None


def is_active(stored: StoredKey, now: datetime) -> bool:
    """Return whether a key is neither revoked nor expired."""
    return stored.revoked is None and (stored.expires is None or now < stored.expires)


def count_active(keys: Iterable[StoredKey], now: datetime) -> int:
    """Return the number of active keys."""
    return sum(is_active(key, now) for key in keys)
