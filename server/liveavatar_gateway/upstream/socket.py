"""The command socket: one connection, one reader, one writer."""

from collections.abc import AsyncIterator

import websockets
from websockets.asyncio.client import ClientConnection, connect

from liveavatar_gateway.core.errors import UpstreamUnreachable
from liveavatar_gateway.core.messages import Command, Event
from liveavatar_gateway.upstream.wire import decode, encode

_CLOSE_MEANINGS = {
    1000: "normal end",
    1001: "going away",
    1006: "connection lost",
    1009: "message too large",
    1011: "server error",
}
"""Source: RFC 6455 section 7.4.1, and what LiveAvatar's clients saw."""


class SocketClosed(Exception):
    """The socket is gone, with its close code and what that means."""

    def __init__(self, code: int, reason: str) -> None:
        meaning = _CLOSE_MEANINGS.get(code, "unknown")
        super().__init__(f"command socket closed with {code} ({meaning}) {reason}".rstrip())
        self.code = code


class CommandSocket:
    """LiveAvatar's command socket. `send` from one task, `events` in another; whoever opened it closes it."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, ws_url: str, *, timeout_s: float) -> "CommandSocket":
        """Connect. The address is a secret and is in no error.

        Raises:
            UpstreamUnreachable: it cannot be reached within `timeout_s`.
        """
        try:
            connection = await connect(
                ws_url,
                # Deflate costs 6 ms per second of audio and saves little on base64.
                compression=None,
                # Media servers delay pongs under load: a missing pong is no death.
                ping_interval=None,
                open_timeout=timeout_s,
                close_timeout=1.0,
                max_size=2**20,
            )
        except (OSError, websockets.WebSocketException) as error:
            raise UpstreamUnreachable(
                f"LiveAvatar's command socket cannot be reached: {type(error).__name__}", retry_after_s=1.0
            ) from error
        return cls(connection)

    async def send(self, command: Command) -> None:
        """Send a command. Returns when the send buffer is low again, so that an interrupt waits for one packet.

        Raises:
            SocketClosed: it is gone.
        """
        try:
            await self._connection.send(encode(command), text=True)
        except websockets.ConnectionClosed as closed:
            raise self._closed() from closed

    async def events(self) -> AsyncIterator[Event]:
        """Yield events until the socket is gone.

        Raises:
            SocketClosed: always, in the end.
        """
        try:
            while True:
                yield decode(await self._connection.recv(decode=False))
        except websockets.ConnectionClosed as closed:
            raise self._closed() from closed

    async def close(self) -> None:
        """Close it; the session upstream lives on until it is stopped."""
        await self._connection.close()

    def _closed(self) -> SocketClosed:
        return SocketClosed(self._connection.close_code or 1006, self._connection.close_reason or "")
