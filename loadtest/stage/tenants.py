"""File of two tenants for a gateway that they share, and a key of each."""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stage.daemon import module
from stage.errors import StageError

QUIET: Final = "quiet"
"""Tenant with quotas that it never reaches."""
NOISY: Final = "noisy"
"""Tenant that floods the gateway at a multiple of its quotas."""

QUOTAS: Final[Mapping[str, Mapping[str, int]]] = {
    QUIET: {
        "max_sessions": 5000,
        "opens_per_min": 60_000,
        "max_streams": 20_000,
        "audio_bytes_per_s": 500_000_000,
        "unary_calls_per_s": 10_000,
    },
    NOISY: {
        "max_sessions": 4,
        "opens_per_min": 60,
        "max_waiting": 2,
        "max_streams": 8,
        "max_watches": 2,
        "audio_bytes_per_s": 96_000,
        "unary_calls_per_s": 10,
        "list_calls_per_s": 2,
    },
}
"""Quotas by tenant."""
_ROLES: Final = ("open", "speak", "control", "watch")
_WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Tenants:
    """File of tenants, with a file for the key of each."""

    file: Path
    key_files: tuple[Path, ...]
    """In the order of `QUOTAS`."""


@contextlib.contextmanager
def tenants() -> Iterator[Tenants]:
    """Write the files, outside of any folder that is kept: they hold credentials.

    Raises:
        StageError: the gateway's command line makes no key.
    """
    with tempfile.TemporaryDirectory(prefix="load-tenants-") as private:
        file = Path(private) / "tenants.toml"
        key_files = []
        for tenant in QUOTAS:
            key_files.append(Path(private) / f"{tenant}.key")
            key_files[-1].write_text(_make_key(file, tenant))
        with file.open("a") as content:
            for tenant, quotas in QUOTAS.items():
                content.write(f"\n[tenants.{tenant}.quotas]\n")
                content.writelines(f"{name} = {json.dumps(limit)}\n" for name, limit in quotas.items())
        yield Tenants(file, tuple(key_files))


def _make_key(file: Path, tenant: str) -> str:
    roles = [word for role in _ROLES for word in ("--role", role)]
    command = module("liveavatar_gateway", "keys", "make", tenant, "--new-tenant", "--file", str(file), *roles)
    made = subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN_S, check=False)
    if made.returncode:
        raise StageError(f"no key of {tenant} was made: {made.stderr.strip()}")
    return made.stdout
