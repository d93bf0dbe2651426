"""Changes to the file of tenants that keep its comments: another key, and the revocation of a key.

A change is made in the text, then the new text is parsed and compared with the intended content; a file that is
written in another way than expected is left alone. The new file replaces the old one at once, so that no reader
sees half of it.
"""

import contextlib
import fcntl
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from liveavatar_gateway.auth import keys
from liveavatar_gateway.auth.auth_file import MAX_BYTES, AuthConfig, UnusableAuthFile, parse
from liveavatar_gateway.auth.principal import Role

_NEW_FILE: Final = """\
# Tenants of the gateway, their credentials and quotas: GATEWAY_AUTH_FILE.
# Keys are added and revoked with `liveavatar-gateway keys`; a running gateway reads changes by itself.
"""
_NEW_FILE_MODE: Final = 0o600
_TABLE: Final = re.compile(r"\s*\[")


class EditRefused(ValueError):
    """Change that cannot be made; the message names the cause and the next step."""


def add_key(
    text: str,
    tenant: str,
    key: keys.ApiKey,
    *,
    roles: Sequence[Role],
    created: datetime,
    expires: datetime | None = None,
    note: str = "",
) -> str:
    """Return the text of a file with another key of a tenant.

    Args:
        text: Text of the file.
        tenant: Name of the tenant, which may be new.
        key: Key, of which only id and digest are written.
        roles: Roles of the key.
        created: Time at which the key was made.
        expires: End of the key's validity.
        note: Purpose of the key.

    Raises:
        EditRefused: the tenant has enough active keys, or its keys are written in a way that cannot be extended.
        UnusableAuthFile: the text is not a valid file, or would no longer be.
    """
    config = _parsed(text, created)
    known = config.tenants.get(tenant)
    if known is not None and keys.count_active(known.keys, created) >= keys.MAX_ACTIVE:
        raise EditRefused(
            f"the tenant {tenant} has {keys.MAX_ACTIVE} active keys already; revoke one: "
            f"`liveavatar-gateway keys list {tenant}`, `liveavatar-gateway keys revoke ID`"
        )
    lines = [
        f"[[tenants.{tenant}.keys]]",
        f'id = "{key.key_id}"',
        f'digest = "{key.digest}"',
        "roles = [" + ", ".join(_toml_text(role) for role in roles) + "]",
        f"created = {_toml_time(created)}",
    ]
    if expires is not None:
        lines.append(f"expires = {_toml_time(expires)}")
    if note:
        lines.append(f"note = {_toml_text(note)}")
    end = _line_end(text)
    gap = "" if not text or text.endswith(("\n\n", "\r\n\r\n")) else end if text.endswith("\n") else end * 2
    changed = text + gap + end.join(lines) + end
    # The values of the new key, as TOML has them.
    expected = tomllib.loads(text)
    (added,) = tomllib.loads("\n".join(lines))["tenants"][tenant]["keys"]
    expected.setdefault("tenants", {}).setdefault(tenant, {}).setdefault("keys", []).append(added)
    _require(changed, expected, created, f"add the key to `tenants.{tenant}.keys` by hand, as `[[...]]` tables")
    return changed


def revoke_key(text: str, key_id: str, now: datetime) -> str:
    """Return the text of a file in which a key is revoked; the key stays in it, for the record.

    Raises:
        EditRefused: the file has no such key, the key was revoked before, or it is written in a way that cannot be
            changed.
        UnusableAuthFile: the text is not a valid file.
    """
    found = _parsed(text, now).key(key_id)
    if found is None:
        raise EditRefused(f"no key {key_id!r} in the file; `liveavatar-gateway keys list` lists all")
    tenant, entry = found
    if entry.revoked is not None:
        raise EditRefused(f"the key {key_id} was revoked at {entry.revoked.isoformat()} already")
    by_hand = f"add `revoked = {_toml_time(now)}` to the key by hand"
    lines = text.splitlines(keepends=True)
    position = _position(lines, key_id)
    if position is None:
        raise EditRefused(f"the key {key_id} is not in a table of its own; {by_hand}")
    indent = lines[position][: len(lines[position]) - len(lines[position].lstrip())]
    end = _line_end(text)
    if not lines[position].endswith("\n"):
        lines[position] += end
    lines.insert(position + 1, f"{indent}revoked = {_toml_time(now)}{end}")
    changed = "".join(lines)
    expected = tomllib.loads(text)
    (values,) = (values for values in expected["tenants"][tenant]["keys"] if values["id"] == key_id)
    values["revoked"] = tomllib.loads(f"revoked = {_toml_time(now)}")["revoked"]
    _require(changed, expected, now, by_hand)
    return changed


def _position(lines: Sequence[str], key_id: str) -> int | None:
    """Return the number of the line with the id of a key in a table of its own."""
    wanted = re.compile(rf"""\s*id\s*=\s*["']{key_id}["']""")
    found = [number for number, line in enumerate(lines) if wanted.match(line)]
    if len(found) != 1:
        return None
    tables = [line for line in lines[: found[0]] if _TABLE.match(line)]
    return found[0] if tables and tables[-1].lstrip().startswith("[[") else None


def _parsed(text: str, now: datetime) -> AuthConfig:
    return parse(text.encode(), now=now)


def _require(changed: str, expected: dict[str, Any], now: datetime, by_hand: str) -> None:
    """Refuse a text that does not say what it should."""
    try:
        is_expected = tomllib.loads(changed) == expected
    except tomllib.TOMLDecodeError:
        is_expected = False
    if not is_expected:
        raise EditRefused(f"the file is written in a way that this command cannot change; {by_hand}")
    _parsed(changed, now)


def _toml_time(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def _toml_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(f"\\u{ord(c):04X}" if ord(c) < 32 or ord(c) == 127 else c for c in escaped) + '"'


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def edit(path: Path, change: Callable[[str], str]) -> None:
    """Replace a file by a changed one, as the only editor at the time. Owner and permissions stay.

    Args:
        path: Path of the file; a file that does not exist is created, readable by its owner alone.
        change: Returns the new text; whatever it raises leaves the file alone.

    Raises:
        UnusableAuthFile: the file cannot be read or is not text.
        EditRefused: the file cannot be written.
    """
    # A link stays, and what it names is replaced.
    target = path.resolve()
    if not target.parent.is_dir():
        raise EditRefused(f"{path} cannot be changed: there is no folder {target.parent}; create it first")
    try:
        with _only_editor(target.parent):
            text, status = _read(target)
            _replace(target, change(text if status is not None else _NEW_FILE), status)
    except OSError as error:
        raise EditRefused(f"{path} cannot be changed: {error.strerror or error}") from None


def _read(path: Path) -> tuple[str, os.stat_result | None]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return "", None
    if len(content) > MAX_BYTES:
        raise UnusableAuthFile(f"{path} is larger than {MAX_BYTES} bytes")
    try:
        return content.decode("utf-8-sig"), status
    except UnicodeDecodeError:
        raise UnusableAuthFile(f"{path} is not text in UTF-8") from None


@contextlib.contextmanager
def _only_editor(folder: Path) -> Iterator[None]:
    """Wait for other editors of the folder's files. The folder is locked, since the file itself is replaced."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
        # The new name must survive a crash as well as the new content.
        os.fsync(fd)
    finally:
        os.close(fd)


def _replace(path: Path, text: str, status: os.stat_result | None) -> None:
    fd, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(text.encode())
            file.flush()
            os.fchmod(fd, _NEW_FILE_MODE if status is None else status.st_mode & 0o777)
            if status is not None and (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                # Otherwise a gateway of another user could no longer read the file.
                os.fchown(fd, status.st_uid, status.st_gid)
            os.fsync(fd)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
