"""A wire between client and gateway that a test can cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from testkit.tcp import tcp_server


class Wire:
    """A TCP relay. While it is down, new connections are closed at once."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._writers: set[asyncio.StreamWriter] = set()
        self._down = False
        self._silent: set[asyncio.StreamWriter] = set()
        self.address = ""
        self.connection_count = 0

    def cut(self, *, stay_down: bool = False) -> None:
        """Break all connections as a crash of the network does: by a reset, without a goodbye."""
        self._down = stay_down
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        """Let new connections through again."""
        self._down = False

    def silence(self) -> None:
        """Swallow all that comes on today's connections, without a reset: nobody is told. New ones work."""
        self._silent |= self._writers

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection."""
        if self._down:
            writer.transport.abort()
            return
        self.connection_count += 1
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._relay(reader, far_writer))
                tasks.create_task(self._relay(far_reader, writer))
        finally:
            self._writers -= ends
            self._silent -= ends
            for end in ends:
                end.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if writer not in self._silent:
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()


@contextlib.asynccontextmanager
async def wire_to(target: str) -> AsyncIterator[Wire]:
    """Run a wire to a gateway."""
    wire = Wire(target)
    async with tcp_server(wire.serve) as address:
        wire.address = address
        try:
            yield wire
        finally:
            wire.cut(stay_down=True)
