"""File of accounts with profiles of warm sessions, for tests and proofs: one account on the emulator."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testkit.accounts import AccountsFile
from testkit.caller import AVATAR
from testkit.emulator import API_KEY


def profile(**values: Any) -> dict[str, Any]:
    """Return a profile of the usual avatar."""
    return {"avatar_id": AVATAR, "min": 1, **values}


def write_pool_file(
    folder: Path, profiles: Mapping[str, Mapping[str, Any]], *, max_sessions: int = 200, **account: Any
) -> Path:
    """Write a file of one account with the emulator's key; return its path."""
    # Texts, numbers, lists and truth values are written alike in JSON and TOML.
    tables = [
        "\n".join([f"[profiles.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())])
        for name, values in profiles.items()
    ]
    accounts = {"main": {"key": API_KEY, "max_sessions": max_sessions, **account}}
    return AccountsFile(folder).write(accounts, "\n\n".join(tables))
