"""Server process of the emulator under uvicorn: listening socket, ready file, signals and shutdown."""

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import structlog
import uvicorn

from liveavatar_emulator.app import build
from liveavatar_emulator.config import LiveKitServer, ServerConfig, Settings
from liveavatar_emulator.guard import is_loopback
from liveavatar_emulator.scenario import Scenario
from liveavatar_emulator.service import Emulator
from liveavatar_emulator.transport import ClientConnection, reset

if TYPE_CHECKING:
    from liveavatar_emulator.avatar.host import AvatarHost

IDLE_CONNECTION_S = 75
"""Time after which an idle HTTP connection is closed. Longer than HTTP clients keep a connection, which would
otherwise race with the close."""
MAX_FRAME_BYTES = 64_000_000
"""Limit of uvicorn, far above the knob `frame_limit_chars`, which decides."""

_log = structlog.stdlib.get_logger()


class _Server(uvicorn.Server):
    """uvicorn with a callback when it is ready, restarts, and avatars that leave after the last connection."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        emulator: Emulator,
        listener: socket.socket,
        on_ready: Callable[[], None],
        avatar_host: "AvatarHost | None",
    ) -> None:
        super().__init__(config)
        self._emulator = emulator
        self._listener = listener
        self._on_ready = on_ready
        self._avatar_host = avatar_host

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        async with self._avatar_host or contextlib.nullcontext():
            await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._emulator.begin()
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def main_loop(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            restarts = tasks.create_task(self._restart_on_request(), name="restarts")
            await super().main_loop()
            restarts.cancel()

    async def _restart_on_request(self) -> None:
        while True:
            await self._stay_down(await self._emulator.restarts.get())
            self._emulator.finish_restart()

    async def _stay_down(self, down_s: float) -> None:
        """Reset all connections and refuse new ones for `down_s`, then accept again on the same port."""
        address = self._listener.getsockname()
        for server in self.servers:
            server.close()
        self._listener.close()
        # A bound socket that does not listen refuses connections and keeps the port from other processes.
        listener = self._listener = _listen(address[0], address[1])
        for connection in list(self.server_state.connections):
            if not _is_answering_control(connection):
                reset(connection.transport)
        try:
            await self._emulator.clock.outage(down_s)
            await super().startup([listener])
        except asyncio.CancelledError:
            listener.close()
            raise


def _is_answering_control(connection: object) -> bool:
    """Return whether a control call awaits its response: the caller of a restart must receive one."""
    cycle = getattr(connection, "cycle", None)
    return cycle is not None and not cycle.response_complete and cycle.scope["path"].startswith("/_emulator/")


def run(config: ServerConfig, settings: Settings, scenario: Scenario, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then close all sockets and return.

    Raises:
        OSError: the address cannot be bound.
        InvalidSetting: the event log cannot be written.
    """
    avatar_host = _avatar_host(config.livekit) if config.livekit else None
    emulator = Emulator(config, settings, avatar_host, scenario)
    listener = _listen(config.host, config.port)
    port = listener.getsockname()[1]
    host = f"[{config.host}]" if ":" in config.host else config.host
    url = f"http://{host}:{port}"

    def on_ready() -> None:
        if config.ready_file is not None:
            _write_atomically(config.ready_file, orjson.dumps({"url": url, "pid": os.getpid()}))
        say(_banner(url, config, settings))

    server = _Server(
        uvicorn.Config(
            build(emulator),
            loop="uvloop",
            http="h11",
            ws=ClientConnection,
            ws_max_size=MAX_FRAME_BYTES,
            ws_per_message_deflate=False,
            ws_ping_interval=None,
            ws_ping_timeout=None,
            lifespan="off",
            access_log=False,
            # uvicorn's info lines contain request paths, and a socket's path is a secret.
            log_level="warning",
            server_header=False,
            timeout_keep_alive=IDLE_CONNECTION_S,
            timeout_graceful_shutdown=1,
            backlog=4096,
        ),
        emulator=emulator,
        listener=listener,
        on_ready=on_ready,
        avatar_host=avatar_host,
    )
    # uvicorn raises the signal again after its shutdown, and the default handlers would then kill the process.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: None)
    try:
        server.run(sockets=[listener])
    finally:
        emulator.log.close()
        if config.ready_file is not None:
            config.ready_file.unlink(missing_ok=True)
    _log.info("emulator.stopped")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


def _avatar_host(livekit: LiveKitServer) -> "AvatarHost":
    # Importing the LiveKit SDK takes a quarter of a second and 60 MB, so it is imported only for rooms.
    from liveavatar_emulator.avatar.host import AvatarHost  # noqa: PLC0415

    return AvatarHost(livekit)


def _write_atomically(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(name).replace(path)


def _banner(url: str, config: ServerConfig, settings: Settings) -> str:
    off = ["TLS"] if config.livekit else ["video and audio in rooms (no LiveKit configured)", "TLS"]
    rooms = f"; rooms on {config.livekit.url}, watch them on {url}/viewer" if config.livekit else ""
    if not settings.rate:
        off.append("rate limit")
    if not config.control_token and not is_loopback(config.host):
        off.append("control API (other machines can reach it, so it needs --control-token-file)")
    clock = f", seed {config.seed}"
    if config.clock == "manual":
        clock += ", time stands still until POST /_emulator/clock/advance"
    elif config.clock_speed != 1:
        clock += f", time runs {config.clock_speed:g} times as fast"
    return f"LiveAvatar emulator on {url} (profile {settings.profile}{clock}){rooms}; off: {', '.join(off)}"
