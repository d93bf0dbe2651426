"""The gateway with a sleep of 100 ms in the packet path."""

import asyncio
from typing import Any

from liveavatar_gateway.__main__ import main
from liveavatar_gateway.core.messages import Command, Speak
from liveavatar_gateway.upstream.socket import CommandSocket

_send = CommandSocket.send


async def send(self: CommandSocket, command: Command, **options: Any) -> Any:
    if isinstance(command, Speak):
        await asyncio.sleep(0.1)
    return await _send(self, command, **options)


if __name__ == "__main__":
    CommandSocket.send = send  # type: ignore[method-assign]
    main()
