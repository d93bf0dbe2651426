"""Emulator and gateway as a measurement starts them."""

import contextlib
import os
import shlex
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from stage.daemon import Daemon, module

API_KEY: Final = "load-key"


def emulator(
    *, sessions: int, cores: Collection[int], workdir: Path, knobs: Mapping[str, object] | None = None
) -> Daemon:
    """Return an emulator that refuses no session and keeps no audio, unless `knobs` say otherwise."""
    settings: dict[str, object] = {
        "concurrency": sessions,
        "rate": 0,
        "credits": 1_000_000,
        "ready_delay_ms": 50,
        "keep_audio_mb": 0,
        **(knobs or {}),
    }
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    command = module("liveavatar_emulator", "serve", "--port=0", f"--api-key={API_KEY}", "--log-level=warning")
    return Daemon("emulator", [*command, *options], cores=cores, workdir=workdir)


@contextlib.contextmanager
def gateway(
    emulator_url: str,
    *,
    sessions: int,
    cores: Collection[int],
    workdir: Path,
    command: str = "",
    settings: Mapping[str, str] | None = None,
) -> Iterator[Daemon]:
    """Start a gateway in front of an emulator. Other GATEWAY_* variables apply too, to compare settings.

    Its registry is outside `workdir`, which is uploaded as an artifact: a registry holds tokens, and its key lies
    beside it.

    Args:
        emulator_url: Base URL of LiveAvatar's API.
        sessions: Most sessions at once.
        cores: Cores that it may use.
        workdir: Folder of its log.
        command: Command in place of this checkout's gateway; it must take `--ready-file FILE`.
        settings: More variables of the gateway.
    """
    environment = {
        "LIVEAVATAR_API_URL": emulator_url,
        "LIVEAVATAR_API_KEY": API_KEY,
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": "0",
        "GATEWAY_METRICS_PORT": "0",
        "GATEWAY_MAX_SESSIONS": str(sessions),
        "GATEWAY_DRAIN_GRACE_S": "1",
        "GATEWAY_LOG_LEVEL": "warning",
        **(settings or {}),
    }
    if {"GATEWAY_POOL_FILE"} & {*environment, *os.environ}:
        # The file names the accounts with their keys and limits; a key beside it is refused.
        del environment["LIVEAVATAR_API_KEY"]
    words = shlex.split(command) if command else module("liveavatar_gateway", "serve")
    with tempfile.TemporaryDirectory(prefix="load-registry-") as private:
        environment["GATEWAY_REGISTRY_FILE"] = str(Path(private) / "registry.db")
        with Daemon("gateway", words, cores=cores, workdir=workdir, environment=environment) as running:
            yield running
