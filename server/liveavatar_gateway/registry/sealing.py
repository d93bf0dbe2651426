"""Sealing of secrets: readable for processes that have the key, and for nobody with the database alone."""

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

from liveavatar_gateway.guarded_files import open_own, require_closed_folder

KEY_BYTES: Final = 32
_MAX_KEY_CHARS: Final = 4096
_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_KEY_ID_BYTES: Final = 4


class BadKey(ValueError):
    """Key that cannot be used; the message has the reason and the accepted forms."""


class Unopenable(ValueError):
    """Sealed value that cannot be opened: it has another key, or was changed or moved."""


class Sealer:
    """AES-256-GCM with a random nonce, bound to the context in which the sealed value is stored.

    A sealed value is version (1 byte), id of the key (4), nonce (12), ciphertext with tag. One key may seal 2**32
    values (NIST SP 800-38D, section 8.3): at a session a second they last for a century.
    """

    def __init__(self, key: bytes) -> None:
        """Use a key of 32 bytes.

        Raises:
            BadKey: the key has another length.
        """
        if len(key) != KEY_BYTES:
            raise BadKey(f"a registry key has {KEY_BYTES} bytes, not {len(key)}")
        self._cipher = AESGCM(key)
        self._key_id = hashlib.sha256(b"registry key id" + key).digest()[:_KEY_ID_BYTES]

    def seal(self, value: bytes, *, context: str) -> bytes:
        """Seal a value; it opens only in the same `context`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + self._key_id + nonce + self._cipher.encrypt(nonce, value, context.encode())

    def has_other_key(self, sealed: bytes) -> bool:
        """Return True for a value that was sealed with another key; its first bytes are enough."""
        head = len(_VERSION) + _KEY_ID_BYTES
        return sealed[: len(_VERSION)] == _VERSION and sealed[len(_VERSION) : head] != self._key_id

    def open(self, sealed: bytes, *, context: str) -> bytes:
        """Open a value that was sealed for `context`.

        Raises:
            Unopenable: the value cannot be opened; the message has the reason.
        """
        head = len(_VERSION) + _KEY_ID_BYTES
        if sealed[: len(_VERSION)] != _VERSION:
            raise Unopenable("sealed by another version of the gateway")
        if self.has_other_key(sealed):
            raise Unopenable("sealed with another key; all processes must have the same GATEWAY_REGISTRY_KEY")
        nonce, ciphertext = sealed[head : head + _NONCE_BYTES], sealed[head + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, ciphertext, context.encode())
        except (InvalidTag, ValueError):
            raise Unopenable("changed since it was sealed, or stored in another place") from None


def parse_key(text: str) -> bytes:
    """Parse a key: 64 hexadecimal digits, or 32 bytes in base64.

    Raises:
        BadKey: the text is neither.
    """
    text = text.strip()
    for reading in (bytes.fromhex, base64.urlsafe_b64decode, base64.b64decode):
        with contextlib.suppress(ValueError, binascii.Error):
            if len(key := reading(text)) == KEY_BYTES:
                return key
    raise BadKey(
        "a registry key is 64 hexadecimal digits or 32 bytes in base64; make one with `openssl rand -hex 32`"
    )


def read_or_make_key(path: Path) -> bytes:
    """Return the key in a file, made on first use with access for its owner alone.

    Raises:
        BadKey: the file holds no key.
        UnsafeFile: another user may have made, changed or read the file.
        OSError: the file can be neither read nor made.
    """
    require_closed_folder(path.parent)
    if not os.path.lexists(path):
        # Written under another name, then linked: the faster process wins, and nobody reads half a key.
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(KEY_BYTES) + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(draft)
        finally:
            draft.unlink()
    with open_own(path, os.O_RDONLY) as key:
        return parse_key(os.read(key, _MAX_KEY_CHARS).decode("ascii"))
