"""The command WebSocket at `/ws/<secret>`: one reader and one writer per socket around a live session."""

import asyncio
import contextlib

from starlette.types import Message, Receive, Scope
from starlette.types import Send as AsgiSend

from liveavatar_emulator import protocol
from liveavatar_emulator.driver import LiveSession
from liveavatar_emulator.outbox import CloseFrame, Outbox
from liveavatar_emulator.service import Emulator
from liveavatar_emulator.transport import EXTENSION, Wire

NO_CLOSE_FRAME = 1006


class CommandSockets:
    """ASGI application for the sockets of one emulator.

    The secret in the path is the only credential, as on the real service; an unknown one, or that of an ended
    session, is refused before the upgrade with HTTP 403.
    """

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    async def __call__(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        """Serve one connection until it is closed."""
        await receive()
        wire: Wire = scope["extensions"][EXTENSION]
        prefix, _, secret = scope["path"].rpartition("/")
        entry = self._emulator.entry_for_socket(secret) if prefix.endswith("/ws") else None
        refused = entry.live.afflictions.refusals if entry is not None else ["forbidden"]
        if entry is None or refused:
            how = refused[-1]
            ordinal = entry.live.ordinal if entry is not None else None
            self._emulator.log.note("socket.refused", session=ordinal, how=how)
            if how == "reset":
                wire.reset()
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.accept"})
        live = entry.live
        outbox = live.outbox_for(wire)
        seen = live.attach(outbox, wire)
        code, reason = NO_CLOSE_FRAME, ""
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write(outbox, send), name=f"session-{entry.record.id}/write")
            try:
                code, reason = await self._read(receive, live)
            finally:
                writer.cancel()
                live.detach(outbox, seen, code, reason)

    async def _read(self, receive: Receive, live: LiveSession) -> tuple[int, str]:
        while True:
            message = await receive()
            now_s = self._emulator.clock.now_s()
            if message["type"] == "websocket.disconnect":
                return _close_of(message)
            text = message.get("text")
            if text is None:
                live.command(protocol.Invalid(None, "", "binary frames are not part of the protocol"), now_s)
            elif len(text) > self._emulator.settings.frame_limit_chars:
                live.oversize(len(text), now_s)
            else:
                live.command(protocol.parse(text), now_s)

    async def _write(self, outbox: Outbox, send: AsgiSend) -> None:
        # A connection that is gone raises OSError here; the reader notices too, and is the one to say so.
        with contextlib.suppress(OSError):
            while True:
                item = await outbox.take()
                if isinstance(item, CloseFrame):
                    await send({"type": "websocket.close", "code": item.code, "reason": item.reason})
                    return
                await send({"type": "websocket.send", "text": item.decode()})


def _close_of(message: Message) -> tuple[int, str]:
    # uvicorn reports a connection that died without a close frame as 1005, but then gives no reason.
    if message.get("reason") is None:
        return NO_CLOSE_FRAME, ""
    return int(message.get("code", NO_CLOSE_FRAME)), str(message["reason"])
