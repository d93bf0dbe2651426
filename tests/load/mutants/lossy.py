"""The gateway that drops one packet in 10 000; the first of them early, so that a short run meets it.

A packet at the end of what an interrupt cuts is nothing that anybody misses: then the next one goes.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from liveavatar_gateway.__main__ import main
from liveavatar_gateway.core.messages import Command, Interrupt, Speak, SpeakEnd
from liveavatar_gateway.upstream.socket import CommandSocket

_ONE_IN = 10_000
_FIRST = 20


@dataclass
class Losses:
    """State of the lost packet, and of the packets after it."""

    packets: int = 0
    next_at: int = _FIRST
    of_utterance: Counter[str] = field(default_factory=Counter)
    lost: str = ""
    socket: CommandSocket | None = None

    def loses(self, socket: CommandSocket, command: Command) -> bool:
        match command:
            case Speak(event_id=utterance):
                self.packets += 1
                self.of_utterance[utterance] += 1
                if not self.lost and self.packets >= self.next_at and self.of_utterance[utterance] == 2:
                    self.lost, self.socket = utterance, socket
                    return True
                self._missed(utterance)
            case SpeakEnd(event_id=utterance):
                self._missed(utterance)
            case Interrupt() if socket is self.socket:
                self.lost, self.socket = "", None
        return False

    def _missed(self, utterance: str) -> None:
        if utterance == self.lost:
            self.lost, self.socket = "", None
            self.next_at = self.packets + _ONE_IN


_losses = Losses()
_send = CommandSocket.send


async def send(self: CommandSocket, command: Command, **options: Any) -> Any:
    return None if _losses.loses(self, command) else await _send(self, command, **options)


if __name__ == "__main__":
    CommandSocket.send = send  # type: ignore[method-assign]
    main()
