"""File of accounts for a gateway in tests."""

from collections.abc import Mapping
from pathlib import Path


class AccountsFile:
    """File of accounts in a folder, with a file for each key."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "accounts.toml"
        self._folder = folder

    def write(self, accounts: Mapping[str, Mapping[str, object]], more: str = "") -> Path:
        """Write accounts by name, each with its `key` and the values of its table; return the file's path."""
        tables = []
        for name, account in accounts.items():
            values = dict(account)
            self.write_key(name, str(values.pop("key", f"{name}-key")))
            lines = {"api_key_file": str(self.key_path(name)), "max_sessions": 5, **values}
            tables.append(
                "\n".join([f"[accounts.{name}]", *(f"{key} = {_toml(one)}" for key, one in lines.items())])
            )
        self.path.write_text("\n\n".join([*tables, more]) + "\n")
        return self.path

    def write_key(self, name: str, key: str) -> None:
        """Write the file of an account's key."""
        self.key_path(name).write_text(f"{key}\n")

    def key_path(self, name: str) -> Path:
        """Return the path of the file of an account's key."""
        return self._folder / f"{name}.key"


def _toml(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
