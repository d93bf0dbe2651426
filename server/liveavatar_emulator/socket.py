"""The command WebSocket at `/ws/<secret>`: one reader and one writer per socket around a live session."""

import asyncio
import contextlib
import random

from starlette.types import Message, Receive, Scope
from starlette.types import Send as AsgiSend

from liveavatar_emulator import protocol
from liveavatar_emulator.driver import CloseFrame, LiveSession, Outbox
from liveavatar_emulator.service import Emulator

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
        prefix, _, secret = scope["path"].rpartition("/")
        entry = self._emulator.entry_for_socket(secret) if prefix.endswith("/ws") else None
        if entry is None:
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.accept"})
        outbox = Outbox(abort=scope["extensions"]["emulator.transport"]["abort"])
        seen = entry.live.attach(outbox)
        code, reason = NO_CLOSE_FRAME, ""
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write(outbox, send), name=f"session-{entry.record.id}/write")
            try:
                code, reason = await self._read(receive, entry.live)
            finally:
                writer.cancel()
                entry.live.detach(outbox, seen, code, reason)

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
                live.oversize(now_s)
            else:
                live.command(protocol.parse(text), now_s)

    async def _write(self, outbox: Outbox, send: AsgiSend) -> None:
        # A connection that is gone raises OSError here; the reader notices too, and is the one to say so.
        with contextlib.suppress(OSError):
            while True:
                item = await outbox.take()
                if jitter_ms := self._emulator.settings.jitter_ms:
                    await self._emulator.clock.sleep(random.uniform(0, jitter_ms) / 1000)  # noqa: S311 - not a secret
                if isinstance(item, CloseFrame):
                    await send({"type": "websocket.close", "code": item.code, "reason": item.reason})
                    return
                await send({"type": "websocket.send", "text": item.decode()})


def _close_of(message: Message) -> tuple[int, str]:
    # uvicorn reports a connection that died without a close frame as 1005, but then gives no reason.
    if message.get("reason") is None:
        return NO_CLOSE_FRAME, ""
    return int(message.get("code", NO_CLOSE_FRAME)), str(message["reason"])
