"""A LiveKit server for development: where its program is found, its configuration, and its life as a child.

Every packet stays on 127.0.0.1. `make livekit-server` installs the program.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from livekit import api

VERSION: Final = "1.13.5"
"""Newest release that `go install` takes: from 1.13.6 on its go.mod has `replace` directives, which it refuses."""

VARIABLE: Final = "LIVEKIT_SERVER"
"""Environment variable that names another program."""

_HOST: Final = "127.0.0.1"
_KEY: Final = "devkey"
_NO_STUN: Final = f"{_HOST}:9"
"""Nobody answers there. It must not be the media port: libwebrtc takes all that comes from a STUN server's address
for its answers, and no media would get through by UDP."""
_ATTEMPTS: Final = 3
_START_TIMEOUT_S: Final = 20.0
_LEAVE_S: Final = 0.3
_STOP_TIMEOUT_S: Final = 5.0
_ASK_TIMEOUT_S: Final = 2.0
_POLL_S: Final = 0.05
_TAIL_LINES: Final = 12
_LINE_CHARS: Final = 240


class ServerMissing(RuntimeError):
    """No program was found; the message has the command that brings it."""


class StartFailed(RuntimeError):
    """The server did not come up; the message holds the end of its log."""


def cached_program(environment: Mapping[str, str]) -> Path:
    """Where `make livekit-server` puts the program of this version."""
    caches = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".cache"
    return Path(caches) / "liveavatar-gateway" / f"livekit-server-{VERSION}"


def find_program(environment: Mapping[str, str]) -> Path:
    """The program to run: the one named by LIVEKIT_SERVER, else the cached one, else the one on PATH.

    Raises:
        ServerMissing: there is none, or LIVEKIT_SERVER names no program.
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
    """HTTP, where clients and the server API connect."""
    media_udp: int
    media_tcp: int
    """For clients that get no UDP through."""


def loopback_configuration(ports: Ports, *, key: str, secret: str) -> dict[str, Any]:
    """A configuration under which no packet of server or client has a reason to leave 127.0.0.1.

    ICE lite, since a full agent would probe from every address; a STUN server is named, since the server otherwise
    tells clients to ask public ones.

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
class LiveKitServer:
    """A running server. `repr` leaves the secret out."""

    url: str
    """What clients connect to, `ws://127.0.0.1:...`."""
    api_key: str
    api_secret: str = field(repr=False)
    pid: int
    log_path: Path

    def log_tail(self, lines: int = _TAIL_LINES) -> str:
        """The last lines of its log."""
        return _tail(self.log_path, lines)


@contextlib.contextmanager
def livekit_server(environment: Mapping[str, str] = os.environ) -> Iterator[LiveKitServer]:
    """Run a server on free ports for a block; the environment says which program, see `find_program`.

    Raises:
        ServerMissing: there is no program.
        StartFailed: it did not come up.
    """
    program = find_program(environment)
    secret = secrets.token_hex(32)
    with tempfile.TemporaryDirectory(prefix="livekit-server-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                found = stack.enter_context(_attempt(program, folder, secret))
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
    log_path = folder / "livekit-server.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - a program the user chose, no shell
            [program, "--config", configuration],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        found = LiveKitServer(
            url=f"ws://{_HOST}:{ports.signal_tcp}",
            api_key=_KEY,
            api_secret=secret,
            pid=process.pid,
            log_path=log_path,
        )
        _wait_ready(process, found)
        yield found
    finally:
        _stop(process)


def _wait_ready(process: subprocess.Popen[bytes], found: LiveKitServer) -> None:
    """Wait until it answers to its own key: another server on the same port would not."""
    token = (
        api.AccessToken(found.api_key, found.api_secret)
        .with_grants(api.VideoGrants(room_list=True))
        .with_ttl(timedelta(seconds=_START_TIMEOUT_S * 2))
        .to_jwt()
    )
    url = found.url.replace("ws", "http", 1) + "/twirp/livekit.RoomService/ListRooms"
    give_up_mono_s = time.monotonic() + _START_TIMEOUT_S
    with httpx.Client(trust_env=False, timeout=_ASK_TIMEOUT_S) as http:
        while True:
            if process.poll() is not None:
                raise StartFailed(f"livekit-server ended at once; its log ends with\n{found.log_tail()}")
            with contextlib.suppress(httpx.TransportError):
                answer = http.post(url, json={}, headers={"Authorization": f"Bearer {token}"})
                if answer.is_success:
                    return
            if time.monotonic() > give_up_mono_s:
                raise StartFailed(
                    f"livekit-server was not ready within {_START_TIMEOUT_S:.0f} s; its log ends with\n"
                    f"{found.log_tail()}"
                )
            time.sleep(_POLL_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    # The first SIGTERM waits for participants to leave, and is lost in the first 100 ms; the second goes at once.
    try:
        for patience_s in (_LEAVE_S, _STOP_TIMEOUT_S):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
                return
        process.kill()
        process.wait()
    except BaseException:
        # A second Ctrl-C: no patience left, but no child left either.
        process.kill()
        process.wait()
        raise


def _free_ports() -> Ports:
    # All three are held at once, so that they differ.
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


def _tail(path: Path, lines: int) -> str:
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  livekit-server: {line[:_LINE_CHARS]}" for line in text[-lines:])
