"""What waits to be written to one socket: events, held back or not, and the close frame behind them."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from liveavatar_emulator.clock import Clock, Timer

OUTBOX_LIMIT = 10_000
"""Events waiting for a client that does not read; one more and its connection is reset."""


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """Last item of an outbox."""

    code: int
    reason: str


Item = bytes | CloseFrame


class Lane:
    """Items that are held back, each at least until the one before it is released."""

    def __init__(self, clock: Clock, release: Callable[[Item], None]) -> None:
        self._clock = clock
        self._release = release
        self._held: deque[tuple[float, Item]] = deque()
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._held)

    def put(self, item: Item, delay_s: float) -> None:
        """Release `item` after `delay_s`, or at once when nothing is held and there is no delay."""
        if not self._held and delay_s <= 0:
            self._release(item)
            return
        due_s = self._clock.now_s() + delay_s
        if self._held:
            due_s = max(due_s, self._held[-1][0])
        self._held.append((due_s, item))
        if self._timer is None:
            self._timer = self._clock.call_at(due_s, self._fire)

    def clear(self) -> None:
        """Forget what is held."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        now_s = self._clock.now_s()
        while self._held and self._held[0][0] <= now_s:
            self._release(self._held.popleft()[1])
        if self._held:
            self._timer = self._clock.call_at(self._held[0][0], self._fire)


class Outbox:
    """One writer takes from it; putting never blocks. `discard` it when its socket is gone.

    Held-back acks have a lane of their own: they keep their order among each other and are overtaken by the rest.
    """

    def __init__(
        self, clock: Clock, *, reset: Callable[[], None], on_release: Callable[[bytes], None] = lambda _: None
    ) -> None:
        self._ready: deque[Item] = deque()
        self._filled = asyncio.Event()
        self._events = Lane(clock, self._release)
        self._acks = Lane(clock, self._release)
        self._reset = reset
        self._on_release = on_release
        self._closing = False
        self._done = False
        self.closed_by_server = False
        self.was_reset = False
        self.overflowed = False
        """True when the client was reset since it read nothing while `OUTBOX_LIMIT` events waited."""

    def put(self, item: Item, *, delay_s: float = 0.0, ack_delay_s: float | None = None) -> None:
        """Queue an event or the close frame; after a close frame nothing more is taken.

        Args:
            item: a text frame, or how to close.
            delay_s: how long to hold it back, without letting others overtake.
            ack_delay_s: for an ack, how long to hold it back while others overtake it.
        """
        if self._closing:
            return
        if isinstance(item, CloseFrame):
            self._closing = self.closed_by_server = True
        elif len(self._ready) + len(self._events) + len(self._acks) >= OUTBOX_LIMIT:
            self.overflowed = True
            self.reset()
            return
        if ack_delay_s is not None or (self._acks and isinstance(item, bytes) and is_ack(item)):
            self._acks.put(item, ack_delay_s or 0.0)
        else:
            self._events.put(item, delay_s)

    def reset(self) -> None:
        """Reset the TCP connection without a close frame."""
        if not self._done:
            self._closing = self._done = self.was_reset = True
            self.discard()
            self._reset()

    def discard(self) -> None:
        """Forget what was not written."""
        self._events.clear()
        self._acks.clear()
        self._ready.clear()

    async def take(self) -> Item:
        """The next item; waits for one."""
        while not self._ready:
            self._filled.clear()
            await self._filled.wait()
        return self._ready.popleft()

    def _release(self, item: Item) -> None:
        if self._done:
            return
        if isinstance(item, CloseFrame):
            self._done = True
        else:
            self._on_release(item)
        self._ready.append(item)
        self._filled.set()


def is_ack(frame: bytes) -> bool:
    """Whether an event is one of the three acks. Every event of ours begins with its type."""
    return frame.startswith(b'{"type":"agent.audio_buffer_')
