"""Command WebSocket at `/ws/<secret>`: one reader and one writer per socket around a session's driver."""

import asyncio
import contextlib

from starlette.types import Message, Receive, Scope
from starlette.types import Send as AsgiSend

from liveavatar_emulator import protocol
from liveavatar_emulator.driver import SessionDriver
from liveavatar_emulator.outbox import CloseFrame, Outbox
from liveavatar_emulator.service import Emulator
from liveavatar_emulator.transport import EXTENSION, ClientConnection

NO_CLOSE_FRAME = 1006


class CommandSockets:
    """ASGI application for the sockets of one emulator.

    The secret in the path is the only credential, as on the real service. An unknown secret, or that of an ended
    session, is refused before the upgrade with HTTP 403.
    """

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    async def __call__(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        """Serve one connection until it is closed."""
        await receive()
        connection: ClientConnection = scope["extensions"][EXTENSION]
        prefix, _, secret = scope["path"].rpartition("/")
        started = self._emulator.sessions.for_socket(secret) if prefix.endswith("/ws") else None
        refusals = started.driver.active_faults.refusals if started is not None else ["forbidden"]
        if started is None or refusals:
            how = refusals[-1]
            ordinal = started.driver.ordinal if started is not None else None
            self._emulator.log.append("socket.refused", session=ordinal, how=how)
            if how == "reset":
                connection.reset()
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.accept"})
        driver = started.driver
        outbox = driver.outbox_for(connection)
        record = driver.attach(outbox, connection)
        code, reason = NO_CLOSE_FRAME, ""
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write(outbox, send), name=f"session-{started.record.id}/write")
            try:
                code, reason = await self._read(receive, driver)
            finally:
                writer.cancel()
                driver.detach(outbox, record, code, reason)

    async def _read(self, receive: Receive, driver: SessionDriver) -> tuple[int, str]:
        while True:
            message = await receive()
            now_s = self._emulator.clock.now_s()
            if message["type"] == "websocket.disconnect":
                return _close_of(message)
            text = message.get("text")
            if text is None:
                driver.command(protocol.Invalid(None, "", "binary frames are not part of the protocol"), now_s)
            elif len(text) > self._emulator.settings.frame_limit_chars:
                driver.oversize(len(text), now_s)
            else:
                driver.command(protocol.parse(text), now_s)

    async def _write(self, outbox: Outbox, send: AsgiSend) -> None:
        # A lost connection raises OSError here; the reader notices the loss too, and reports it.
        with contextlib.suppress(OSError):
            while True:
                item = await outbox.take()
                if isinstance(item, CloseFrame):
                    await send({"type": "websocket.close", "code": item.code, "reason": item.reason})
                    return
                await send({"type": "websocket.send", "text": item.decode()})


def _close_of(message: Message) -> tuple[int, str]:
    # uvicorn reports a connection that was lost without a close frame as 1005 without a reason.
    if message.get("reason") is None:
        return NO_CLOSE_FRAME, ""
    return int(message.get("code", NO_CLOSE_FRAME)), str(message["reason"])
