"""Secrets and other values that are sent: reading their files, and refusing characters that cannot be sent."""

from pathlib import Path
from typing import Final

from liveavatar_gateway.config.settings import PREFIX, ConfigError
from liveavatar_gateway.guarded_files import UnsafeFile, read_guarded

_ALLOW_SPACES: Final = ("livekit_secret",)
"""Secrets that may contain spaces, because they sign and are never sent."""
_KEY_LISTS: Final = ("retired_api_keys",)
"""Settings that hold several keys."""
_MAX_SENT_CHARS: Final = 4096
_MAX_SECRET_BYTES: Final = 64 * 1024
"""Largest secret file that is read."""
_QUOTES: Final = ("'", '"')


def split_keys(keys: str) -> list[str]:
    """Split a list of keys at spaces, commas and newlines."""
    return keys.replace(",", " ").split()


def read_secret(secret: str, path: Path, *, closes_to_group: bool = False) -> str:
    """Read the file of a secret, for instance of `api_key`.

    Args:
        secret: Name of the setting.
        path: Path of the file.
        closes_to_group: Take the group's access to the file away first; see `read_guarded`.

    Raises:
        ConfigError: the file cannot be read, is empty, or holds characters that cannot be sent.
    """
    variable = f"{PREFIX}{secret.upper()}_FILE"
    try:
        content = read_guarded(path, _MAX_SECRET_BYTES, private=True, closes_to_group=closes_to_group)
        # Editors on Windows begin a file with a byte order mark.
        value = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{variable}: {path} cannot be read: it is not text") from None
    except UnsafeFile as error:
        raise ConfigError(f"{variable}: {error}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{variable}: {path} cannot be read: {error}") from None
    if len(content) > _MAX_SECRET_BYTES:
        raise ConfigError(f"{variable}: {path} is larger than {_MAX_SECRET_BYTES} bytes and cannot be a secret")
    if not value:
        raise ConfigError(f"{variable}: {path} is empty")
    for key in split_keys(value) if secret in _KEY_LISTS else [value]:
        require_sendable(secret, key, variable)
    return value


def require_sendable(name: str, value: object, variable: str) -> None:
    """Refuse a value that cannot be sent in a header, an address or a token; the error does not repeat the value.

    Args:
        name: Name of the setting.
        value: Value of the setting; anything but text is accepted.
        variable: Name of the setting's source, for the error.

    Raises:
        ConfigError: the value is too long, is in quotes, or has characters that cannot be sent.
    """
    if not isinstance(value, str):
        return
    if len(value) > _MAX_SENT_CHARS:
        raise ConfigError(f"{variable}: {len(value)} characters are too many; the limit is {_MAX_SENT_CHARS}")
    if len(value) > 1 and value[0] == value[-1] and value[0] in _QUOTES:
        raise ConfigError(f"{variable}: the value is in quotes; remove them")
    for position, character in enumerate(value, start=1):
        if not ("!" <= character <= "~" or (character == " " and name in _ALLOW_SPACES)):
            raise ConfigError(
                f"{variable}: character {position} is U+{ord(character):04X}, "
                "which cannot be sent; use visible ASCII without spaces"
            )
