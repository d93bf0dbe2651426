"""Keeps secrets readable for processes that have the key, and for nobody who has the database alone."""

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_KEY_ID_BYTES: Final = 4


class BadKey(ValueError):
    """A key cannot be used; the message says why, and what it may be."""


class Unopenable(ValueError):
    """What was sealed cannot be opened: another key sealed it, or it was changed or moved."""


class Sealer:
    """AES-256-GCM with a random nonce, bound to the place where the sealed value is kept.

    A sealed value is version (1 byte), id of the key (4), nonce (12), ciphertext with tag. One key may seal 2**32
    values (NIST SP 800-38D, section 8.3): at a session a second they last for a century.
    """

    def __init__(self, key: bytes) -> None:
        """Take a key of 32 bytes.

        Raises:
            BadKey: it has another length.
        """
        if len(key) != KEY_BYTES:
            raise BadKey(f"a registry key has {KEY_BYTES} bytes, this one has {len(key)}")
        self._cipher = AESGCM(key)
        self._key_id = hashlib.sha256(b"registry key id" + key).digest()[:_KEY_ID_BYTES]

    def seal(self, value: bytes, *, place: str) -> bytes:
        """Seal a value; it opens only at the same `place`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + self._key_id + nonce + self._cipher.encrypt(nonce, value, place.encode())

    def open(self, sealed: bytes, *, place: str) -> bytes:
        """Open what was sealed for `place`.

        Raises:
            Unopenable: it cannot be, and why.
        """
        head = len(_VERSION) + _KEY_ID_BYTES
        if sealed[: len(_VERSION)] != _VERSION:
            raise Unopenable("sealed by another version of the gateway")
        if sealed[len(_VERSION) : head] != self._key_id:
            raise Unopenable("sealed with another key; is GATEWAY_REGISTRY_KEY the one of all processes?")
        nonce, ciphertext = sealed[head : head + _NONCE_BYTES], sealed[head + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, ciphertext, place.encode())
        except (InvalidTag, ValueError):
            raise Unopenable("changed since it was sealed, or kept in another place") from None


def parsed_key(text: str) -> bytes:
    """Read a key as people write it: 64 hexadecimal digits, or 32 bytes in base64.

    Raises:
        BadKey: it is neither.
    """
    text = text.strip()
    for reading in (bytes.fromhex, base64.urlsafe_b64decode, base64.b64decode):
        with contextlib.suppress(ValueError, binascii.Error):
            if len(key := reading(text)) == KEY_BYTES:
                return key
    raise BadKey(
        "a registry key is 64 hexadecimal digits or 32 bytes in base64; make one with `openssl rand -hex 32`"
    )


def key_beside(path: Path) -> bytes:
    """Return the key in a file, made on first use and readable for its owner alone.

    Raises:
        BadKey: the file holds none.
        OSError: it can be neither read nor made.
    """
    if not path.exists():
        # Under a name of its own first, then linked: whoever is faster wins, and nobody reads half a key.
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(KEY_BYTES) + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(draft)
        finally:
            draft.unlink()
    return parsed_key(path.read_text(encoding="ascii"))
