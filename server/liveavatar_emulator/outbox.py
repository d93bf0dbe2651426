"""Outbox of one socket: events that wait to be written, possibly delayed, and the close frame behind them."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from liveavatar_emulator.clock import Clock, Timer
from liveavatar_emulator.states import OUTBOX_STATES, OutboxState, State

OUTBOX_LIMIT = 10_000
"""Events waiting for a client that does not read; one more resets its connection."""

_FINAL = (OutboxState.CLOSED, OutboxState.RESET, OutboxState.OVERFLOWED)


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """Last item of an outbox."""

    code: int
    reason: str


Item = bytes | CloseFrame


class DelayQueue:
    """Delayed items in their order: an item is released after its delay and not before the item ahead of it."""

    def __init__(self, clock: Clock, release: Callable[[Item], None]) -> None:
        self._clock = clock
        self._release = release
        self._delayed: deque[tuple[float, Item]] = deque()
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._delayed)

    def put(self, item: Item, delay_s: float) -> None:
        """Release `item` after `delay_s`; at once if the queue is empty and the delay is 0."""
        if not self._delayed and delay_s <= 0:
            self._release(item)
            return
        due_s = self._clock.now_s() + delay_s
        if self._delayed:
            due_s = max(due_s, self._delayed[-1][0])
        self._delayed.append((due_s, item))
        if self._timer is None:
            self._timer = self._clock.call_at(due_s, self._fire)

    def clear(self) -> None:
        """Discard all delayed items."""
        self._delayed.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        now_s = self._clock.now_s()
        while self._delayed and self._delayed[0][0] <= now_s:
            self._release(self._delayed.popleft()[1])
        if self._delayed:
            self._timer = self._clock.call_at(self._delayed[0][0], self._fire)


class Outbox:
    """Outbox with one writer; `put` never blocks. Closed by `discard` once its socket is gone.

    Delayed acks have a queue of their own: they keep their order among each other, and other events overtake them.
    """

    def __init__(
        self, clock: Clock, *, reset: Callable[[], None], on_release: Callable[[bytes], None] = lambda _: None
    ) -> None:
        self._ready: deque[Item] = deque()
        self._filled = asyncio.Event()
        self._events = DelayQueue(clock, self._release)
        self._acks = DelayQueue(clock, self._release)
        self._reset = reset
        self._on_release = on_release
        self._state = State(OutboxState.OPEN, OUTBOX_STATES)

    @property
    def state(self) -> OutboxState:
        """Current state."""
        return self._state.value

    def put(self, item: Item, *, delay_s: float = 0.0, ack_delay_s: float | None = None) -> None:
        """Queue an event or the close frame; after a close frame nothing more is accepted.

        Args:
            item: a text frame, or the close frame.
            delay_s: delay that keeps the order among events.
            ack_delay_s: delay of an ack, which other events overtake.
        """
        if self.state is not OutboxState.OPEN:
            return
        if isinstance(item, CloseFrame):
            self._state.move(OutboxState.CLOSING)
        elif len(self._ready) + len(self._events) + len(self._acks) >= OUTBOX_LIMIT:
            self._reset_as(OutboxState.OVERFLOWED)
            return
        if ack_delay_s is not None or (self._acks and isinstance(item, bytes) and is_ack(item)):
            self._acks.put(item, ack_delay_s or 0.0)
        else:
            self._events.put(item, delay_s)

    def reset(self) -> None:
        """Reset the TCP connection without a close frame."""
        if self.state not in _FINAL:
            self._reset_as(OutboxState.RESET)

    def discard(self) -> None:
        """Discard everything that was not written."""
        self._events.clear()
        self._acks.clear()
        self._ready.clear()

    async def take(self) -> Item:
        """Wait for the next item and return it."""
        while not self._ready:
            self._filled.clear()
            await self._filled.wait()
        return self._ready.popleft()

    def _reset_as(self, state: OutboxState) -> None:
        self._state.move(state)
        self.discard()
        self._reset()

    def _release(self, item: Item) -> None:
        if self.state in _FINAL:
            return
        if isinstance(item, CloseFrame):
            self._state.move(OutboxState.CLOSED)
        else:
            self._on_release(item)
        self._ready.append(item)
        self._filled.set()


def is_ack(frame: bytes) -> bool:
    """Return whether an event is one of the three acks. Every event of the emulator begins with its type."""
    return frame.startswith(b'{"type":"agent.audio_buffer_')
