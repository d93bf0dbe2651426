"""LiveKit server for development: its program, its configuration and its process.

Every packet stays on 127.0.0.1. `make livekit-server` installs the program.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from livekit import api

from liveavatar_demo.process import Process, StartFailed

VERSION: Final = "1.13.5"
"""Newest release that `go install` takes: from 1.13.6 on its go.mod has `replace` directives, which it refuses."""

VARIABLE: Final = "LIVEKIT_SERVER"
"""Environment variable that names another program."""

_HOST: Final = "127.0.0.1"
_KEY: Final = "devkey"
_NO_STUN: Final = f"{_HOST}:9"
"""Address without a listener. The media port must not stand here: libwebrtc takes every packet from a STUN
server's address for an answer of that server, and no media would get through by UDP."""
_ATTEMPTS: Final = 3
_START_TIMEOUT_S: Final = 20.0
_STOP_TIMEOUTS_S: Final = (0.3, 5.0)
"""Waits after each SIGTERM: the first one lets participants leave, and is lost in the first 100 ms."""
_ASK_TIMEOUT_S: Final = 2.0
_POLL_S: Final = 0.05


class ServerMissing(RuntimeError):
    """Program not found; the message has the command that installs it."""


def cached_program(environment: Mapping[str, str]) -> Path:
    """Return the path at which `make livekit-server` installs the program of this version."""
    caches = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".cache"
    return Path(caches) / "liveavatar-gateway" / f"livekit-server-{VERSION}"


def find_program(environment: Mapping[str, str]) -> Path:
    """Find the program: the one that LIVEKIT_SERVER names, else the installed one, else the one on PATH.

    Raises:
        ServerMissing: no program was found, or LIVEKIT_SERVER names none.
    """
    if named := environment.get(VARIABLE):
        if shutil.which(named) is None:
            raise ServerMissing(f"{VARIABLE}={named} is not a program; correct it or unset it")
        return Path(named)
    cached = cached_program(environment)
    if cached.exists():
        return cached
    if on_path := shutil.which("livekit-server", path=environment.get("PATH", "")):
        return Path(on_path)
    raise ServerMissing(
        f"no livekit-server in {cached} or on PATH; install one with `make livekit-server`, "
        f"or name one in {VARIABLE}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Free ports of 127.0.0.1."""

    signal_tcp: int
    """HTTP port, for clients and the server API."""
    media_udp: int
    media_tcp: int
    """Media port for clients without UDP."""


def loopback_configuration(ports: Ports, *, key: str, secret: str) -> dict[str, Any]:
    """Return a configuration under which no packet of server or client has a reason to leave 127.0.0.1.

    ICE is lite, since a full agent would probe from every address. A STUN server is named, since the server
    otherwise sends clients to public ones.

    Source: livekit-server 1.13.5, config-sample.yaml and pkg/service/roommanager.go (iceServersForParticipant).
    """
    return {
        "port": ports.signal_tcp,
        "bind_addresses": [_HOST],
        "rtc": {
            "tcp_port": ports.media_tcp,
            "udp_port": ports.media_udp,
            "node_ip": _HOST,
            "use_external_ip": False,
            "enable_loopback_candidate": True,
            "use_ice_lite": True,
            "interfaces": {"includes": ["lo", "lo0"]},
            "stun_servers": [_NO_STUN],
        },
        "keys": {key: secret},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """LiveKit server, and a key that may create rooms there. `repr` leaves the secret out."""

    url: str
    """Address for clients, `ws://` or `wss://`."""
    api_key: str
    api_secret: str = field(repr=False)

    def settings(self) -> dict[str, str]:
        """Return the environment variables under which an emulator opens its rooms on this server."""
        return {
            "EMULATOR_LIVEKIT_URL": self.url,
            "EMULATOR_LIVEKIT_KEY": self.api_key,
            "EMULATOR_LIVEKIT_SECRET": self.api_secret,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitServer(Room):
    """LiveKit server that runs as a child of this process."""

    process: Process


@contextlib.contextmanager
def livekit_server(environment: Mapping[str, str] = os.environ) -> Iterator[LiveKitServer]:
    """Run a server on free ports for a block; `find_program` finds its program by the environment.

    Raises:
        ServerMissing: no program was found.
        StartFailed: the server did not become ready.
    """
    program = find_program(environment)
    secret = secrets.token_hex(32)
    with tempfile.TemporaryDirectory(prefix="livekit-server-") as name, contextlib.ExitStack() as stack:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                found = stack.enter_context(_attempt(program, Path(name), secret))
                break
            except StartFailed:
                # Between choosing a free port and binding it, another process may have taken it.
                if attempt == _ATTEMPTS:
                    raise
        yield found


@contextlib.contextmanager
def _attempt(program: Path, folder: Path, secret: str) -> Iterator[LiveKitServer]:
    ports = _free_ports()
    configuration = folder / "livekit.yaml"  # JSON is YAML
    configuration.write_text(json.dumps(loopback_configuration(ports, key=_KEY, secret=secret)), encoding="utf-8")
    configuration.chmod(0o600)
    process = Process(
        "livekit-server",
        [program, "--config", configuration],
        folder=folder,
        environment=os.environ,
        ready_file=False,
    )
    found = LiveKitServer(url=f"ws://{_HOST}:{ports.signal_tcp}", api_key=_KEY, api_secret=secret, process=process)
    try:
        process.start()
        _wait_ready(found)
        yield found
    finally:
        process.stop(_STOP_TIMEOUTS_S)


def _wait_ready(server: LiveKitServer) -> None:
    """Wait until the server accepts its own key: another server on the same port would not."""
    token = (
        api.AccessToken(server.api_key, server.api_secret)
        .with_grants(api.VideoGrants(room_list=True))
        .with_ttl(timedelta(seconds=_START_TIMEOUT_S * 2))
        .to_jwt()
    )
    url = server.url.replace("ws", "http", 1) + "/twirp/livekit.RoomService/ListRooms"
    give_up_mono_s = time.monotonic() + _START_TIMEOUT_S
    with httpx.Client(trust_env=False, timeout=_ASK_TIMEOUT_S) as http:
        while True:
            log_tail = f"its log ends with\n{server.process.log_tail()}"
            if server.process.exit_code is not None:
                raise StartFailed(f"livekit-server ended at once; {log_tail}")
            with contextlib.suppress(httpx.TransportError):
                answer = http.post(url, json={}, headers={"Authorization": f"Bearer {token}"})
                if answer.is_success:
                    return
            if time.monotonic() > give_up_mono_s:
                raise StartFailed(f"livekit-server was not ready within {_START_TIMEOUT_S:.0f} s; {log_tail}")
            time.sleep(_POLL_S)


def _free_ports() -> Ports:
    # The three sockets are open at the same time, so that their ports differ.
    with contextlib.ExitStack() as stack:

        def free(kind: socket.SocketKind) -> int:
            found = stack.enter_context(socket.socket(socket.AF_INET, kind))
            found.bind((_HOST, 0))
            return int(found.getsockname()[1])

        return Ports(
            signal_tcp=free(socket.SOCK_STREAM),
            media_udp=free(socket.SOCK_DGRAM),
            media_tcp=free(socket.SOCK_STREAM),
        )
