"""The gateway that drops one packet in 10 000; the first of them early, so that a short run meets it."""

from typing import Any

from liveavatar_gateway.__main__ import main
from liveavatar_gateway.core.messages import Command, Speak
from liveavatar_gateway.upstream.socket import CommandSocket

_ONE_IN = 10_000
_FIRST = 20
_send = CommandSocket.send
_packets = 0


async def send(self: CommandSocket, command: Command) -> Any:
    global _packets  # noqa: PLW0603 - a process is one mutant
    if isinstance(command, Speak):
        _packets += 1
        if _packets % _ONE_IN == _FIRST:
            return None
    return await _send(self, command)


if __name__ == "__main__":
    CommandSocket.send = send  # type: ignore[method-assign]
    main()
