"""A TCP proxy that makes connections bad while they run: delays, cuts, resets, silence; see `toxics`.

It runs in a thread of its own with its own event loop, so a caller that blocks slows no connection. Its methods
may be called from any thread and from coroutines: each returns at once, when the change is in effect.

Unlike toxiproxy it keeps half-closes, passes resets on as resets, and resets also a connection on which nothing
moves.
"""

import asyncio
import contextlib
import dataclasses
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Self, TypeVar, get_args

from chaos.toxics import (
    Bandwidth,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Stream,
    Timeout,
    Toxic,
)

READ_BYTES = 16 * 1024
QUEUED_READS = 64
"""Per direction: what the proxy takes ahead of a slow receiver is at most this many times `READ_BYTES`."""

BANDWIDTH_INTERVAL_S = 0.1
"""Data under a `Bandwidth` is passed on in bits that take at most so long."""

Kind = TypeVar("Kind")
Answer = TypeVar("Answer")


@dataclasses.dataclass(frozen=True, slots=True)
class Applied:
    """A toxic as the proxy has it. `since_s` is monotonic: when it was added or last changed."""

    name: str
    stream: Stream
    toxicity: float
    toxic: Toxic
    since_s: float


@dataclasses.dataclass(slots=True)
class Passed:
    """A connection, as its client had it."""

    request: bytes
    """The first bytes that the client sent: of HTTP, its request."""
    began_s: float
    """Monotonic time of the connection."""
    ended_s: float | None = None
    """Monotonic time of the client's close or reset; None while the connection is open."""


class Proxy:
    """Passes connections to 127.0.0.1:`port` on to `target`, through its toxics.

    Which connections a toxic of `toxicity` below 1 hits follows from `seed`, the number of the connection and the
    toxic's name alone. Use it as a context manager: leaving it resets what runs.
    """

    def __init__(self, target: str, *, listen_port: int = 0, seed: int = 0) -> None:
        host, _, port = target.removeprefix("http://").rpartition(":")
        self.seed = seed
        self._target = (host, int(port))
        # Keeps the port while the proxy is down: bound, never listening, so connections are refused meanwhile.
        self._reserved = _bound(listen_port)
        self.port: int = self._reserved.getsockname()[1]
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._toxics: dict[str, Applied] = {}
        self._connections: set[_Connection] = set()
        self._accepted = 0
        self.passed: list[Passed] = []
        """All connections on which anything was sent."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def active(self) -> int:
        """Connections that run."""
        return len(self._connections)

    @property
    def accepted(self) -> int:
        """Connections that were ever accepted."""
        return self._accepted

    def __enter__(self) -> Self:
        self._thread.start()
        self.enable()
        return self

    def __exit__(self, *_: object) -> None:
        self.disable()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._reserved.close()

    def add(self, toxic: Toxic, *, stream: Stream = "downstream", name: str = "", toxicity: float = 1.0) -> str:
        """Apply a toxic to connections that run and to new ones; the name is by default like `latency_downstream`.

        Raises:
            ValueError: the name is taken, or there is no such stream or toxicity.
        """
        if stream not in get_args(Stream):
            raise ValueError(f"no stream {stream!r}; there are {', '.join(get_args(Stream))}")
        if not 0 <= toxicity <= 1:
            raise ValueError(f"toxicity={toxicity} is not within 0 and 1")
        name = name or f"{_words(type(toxic).__name__)}_{stream}"
        self._run(self._add(Applied(name, stream, toxicity, toxic, time.monotonic())))
        return name

    def update(self, name: str, **attributes: float) -> None:
        """Change a toxic's attributes, or its `toxicity`; its time begins anew."""
        self._run(self._update(name, attributes))

    def remove(self, name: str) -> None:
        self._run(self._remove([name]))

    @contextlib.contextmanager
    def toxic(
        self, toxic: Toxic, *, stream: Stream = "downstream", name: str = "", toxicity: float = 1.0
    ) -> Iterator[str]:
        """Apply a toxic for as long as the block takes."""
        name = self.add(toxic, stream=stream, name=name, toxicity=toxicity)
        try:
            yield name
        finally:
            self.remove(name)

    def disable(self) -> None:
        """Go down: new connections are refused, those that run are reset."""
        self._run(self._disable())

    def enable(self) -> None:
        """Come back on the same port."""
        self._run(self._enable())

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        self.disable()
        try:
            yield
        finally:
            self.enable()

    def drop(self) -> None:
        """Reset all connections that run, and go on accepting."""
        self._run(self._drop())

    def reset(self) -> None:
        """Remove all toxics and be up."""
        self._run(self._remove(list(self._toxics)))
        self.enable()

    def _run(self, change: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(change, self._loop).result(10)

    async def _add(self, applied: Applied) -> None:
        if applied.name in self._toxics:
            raise ValueError(f"there is a toxic {applied.name!r} already")
        self._toxics[applied.name] = applied
        self._changed()

    async def _update(self, name: str, attributes: dict[str, float]) -> None:
        applied = self._toxics[name]
        toxicity = attributes.pop("toxicity", applied.toxicity)
        toxic = dataclasses.replace(applied.toxic, **attributes)
        self._toxics[name] = Applied(name, applied.stream, toxicity, toxic, time.monotonic())
        self._changed()

    async def _remove(self, names: list[str]) -> None:
        for name in names:
            del self._toxics[name]
        self._changed()

    def _changed(self) -> None:
        for connection in self._connections:
            connection.conditions(list(self._toxics.values()))

    async def _enable(self) -> None:
        if self._listener is None:
            self._listener = _bound(self.port)
            self._listener.listen(128)
            self._accepting = asyncio.create_task(self._accept(self._listener), name="accept")

    async def _disable(self) -> None:
        if self._listener is not None and self._accepting is not None:
            # A task that is cancelled before its first step would never close what it was given.
            await asyncio.sleep(0)
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
            self._listener.close()
            self._listener = None

    async def _drop(self) -> None:
        for connection in self._connections:
            connection.finish(reset=True)

    async def _accept(self, listener: socket.socket) -> None:
        """Accept until cancelled; the connections end with it."""
        async with asyncio.TaskGroup() as group:
            while True:
                client, _ = await self._loop.sock_accept(listener)
                self._accepted += 1
                group.create_task(self._serve(client, self._accepted), name=f"connection-{self._accepted}")

    async def _serve(self, client: socket.socket, number: int) -> None:
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        reset = True
        try:
            for end in (client, server):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(server, self._target)
            connection = _Connection(client, server, f"{self.seed}/{number}", self.passed)
            connection.conditions(list(self._toxics.values()))
            self._connections.add(connection)
            try:
                reset = await connection.run()
            finally:
                self._connections.discard(connection)
        except OSError:
            pass  # the target is not there: the client is told so by the reset
        finally:
            for end in (client, server):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()


class _Connection:
    """Relay a connection until one side resets it, both directions have ended, or a toxic ends it."""

    def __init__(self, client: socket.socket, server: socket.socket, chance: str, passed: list[Passed]) -> None:
        self._all_passed = passed
        self._passed: Passed | None = None
        self._chance = chance
        self._since_s = time.monotonic()
        self._finished: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._directions: dict[Stream, _Direction] = {
            "upstream": _Direction(client, server, random.Random(f"{chance}/upstream"), self, self.note),
            "downstream": _Direction(server, client, random.Random(f"{chance}/downstream"), self),
        }
        self._open = len(self._directions)
        self._deadlines: list[tuple[float, bool]] = []
        self._changed = asyncio.Event()

    def conditions(self, toxics: list[Applied]) -> None:
        """Take the toxics as they are now; those that do not hit this connection are left out."""
        hit = [one for one in toxics if random.Random(f"{self._chance}/{one.name}").random() < one.toxicity]
        for stream, direction in self._directions.items():
            direction.conditions({one.name: one.toxic for one in hit if one.stream == stream})
        self._deadlines = [
            (max(self._since_s, one.since_s) + one.toxic.timeout / 1000, isinstance(one.toxic, ResetPeer))
            for one in hit
            if isinstance(one.toxic, ResetPeer) or (isinstance(one.toxic, Timeout) and one.toxic.timeout > 0)
        ]
        self._changed.set()

    def note(self, data: bytes) -> None:
        """Note what the client sent, or with no data that it has closed or reset the connection."""
        if not data:
            self._note_end()
        elif self._passed is None:
            self._passed = Passed(data[:200], time.monotonic())
            self._all_passed.append(self._passed)

    def _note_end(self) -> None:
        if self._passed is not None and self._passed.ended_s is None:
            self._passed.ended_s = time.monotonic()

    def finish(self, *, reset: bool) -> None:
        self._note_end()
        if not self._finished.done():
            self._finished.set_result(reset)

    def ended(self) -> None:
        """Note that one direction has passed its end on."""
        self._open -= 1
        if self._open == 0:
            self.finish(reset=False)

    async def run(self) -> bool:
        """Pass data on until the connection is over; True if it shall be reset."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._watch())]
            for direction in self._directions.values():
                tasks += [group.create_task(direction.read()), group.create_task(direction.write())]
            try:
                return await self._finished
            finally:
                self._note_end()
                for task in tasks:
                    task.cancel()

    async def _watch(self) -> None:
        """End the connection when a toxic's time is over."""
        while True:
            self._changed.clear()
            when_s, reset = min(self._deadlines, default=(None, False))
            try:
                async with asyncio.timeout_at(when_s):
                    await self._changed.wait()
            except TimeoutError:
                self.finish(reset=reset)
                return


class _Direction:
    """Data from `source` to `sink`: one task reads ahead, a bounded way, and one writes through the toxics."""

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        chance: random.Random,
        connection: _Connection,
        note: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self._note = note
        self._source = source
        self._sink = sink
        self._random = chance
        self._connection = connection
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_READS)
        self._toxics: dict[str, Toxic] = {}
        self._changed = asyncio.Event()
        self._passed_bytes: dict[str, int] = {}
        """Under each `LimitData`, by its name."""
        self._lost_data = False

    def conditions(self, toxics: dict[str, Toxic]) -> None:
        self._toxics = toxics
        limits = [name for name, toxic in toxics.items() if isinstance(toxic, LimitData)]
        self._passed_bytes = {name: self._passed_bytes.get(name, 0) for name in limits}
        if self._lost_data and not self._with(Timeout):
            self._connection.finish(reset=False)
        self._changed.set()

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        data = b"."
        while data:
            try:
                data = await loop.sock_recv(self._source, READ_BYTES)
            except OSError:
                self._connection.finish(reset=True)
                return
            self._note(data)
            await self._queue.put((time.monotonic(), data))

    async def write(self) -> None:
        while True:
            arrived_s, data = await self._queue.get()
            await self._until_due(arrived_s)
            try:
                if data:
                    await self._pass(data)
                else:
                    await self._end()
                    return
            except OSError:
                self._connection.finish(reset=True)
                return

    async def _until_due(self, arrived_s: float) -> None:
        chance = self._random.uniform(-1, 1)
        while True:
            delays_ms = [one.latency + chance * one.jitter for one in self._with(Latency)]
            if await self._unchanged_until(arrived_s + sum(delays_ms) / 1000):
                return

    async def _pass(self, data: bytes) -> None:
        """Write data as the toxics say, which may change between any two bits of it."""
        line_free_s = time.monotonic()
        while data:
            if self._with(Timeout):
                self._lost_data = True
                return
            size = min([len(data), *(self._random_size(one) for one in self._with(Slicer))])
            for name, passed in self._passed_bytes.items():
                limit = self._toxics[name]
                size = min(size, max(limit.bytes - passed, 0)) if isinstance(limit, LimitData) else size
            if rates := [one.rate * 1000 for one in self._with(Bandwidth)]:
                rate = min(rates)
                size = min(size, max(int(rate * BANDWIDTH_INTERVAL_S), 1))
                if not await self._unchanged_until(line_free_s + size / rate if rate > 0 else None):
                    continue
                line_free_s += size / rate
            else:
                line_free_s = time.monotonic()
            if size:
                await asyncio.get_running_loop().sock_sendall(self._sink, data[:size])
            data = data[size:]
            if self._limit_reached(size):
                self._connection.finish(reset=False)
                return
            if pause_us := sum(one.delay for one in self._with(Slicer)):
                await self._unchanged_until(time.monotonic() + pause_us / 1e6)

    async def _end(self) -> None:
        ended_s = time.monotonic()
        while self._with(Timeout) or not await self._unchanged_until(
            ended_s + sum(one.delay for one in self._with(SlowClose)) / 1000
        ):
            if self._with(Timeout):
                await self._unchanged_until(None)
        self._sink.shutdown(socket.SHUT_WR)
        self._connection.ended()

    def _with(self, kind: type[Kind]) -> list[Kind]:
        return [toxic for toxic in self._toxics.values() if isinstance(toxic, kind)]

    def _random_size(self, slicer: Slicer) -> int:
        return slicer.average_size + self._random.randint(-slicer.size_variation, slicer.size_variation)

    def _limit_reached(self, size: int) -> bool:
        """Count what was passed on; True if that is all that may be."""
        reached = False
        for name in self._passed_bytes:
            self._passed_bytes[name] += size
            limit = self._toxics[name]
            reached |= isinstance(limit, LimitData) and self._passed_bytes[name] >= limit.bytes
        return reached

    async def _unchanged_until(self, when_s: float | None) -> bool:
        """Wait; False as soon as toxics change. None waits for that alone."""
        self._changed.clear()
        if when_s is not None and when_s <= time.monotonic():
            return True
        try:
            async with asyncio.timeout_at(when_s):
                await self._changed.wait()
        except TimeoutError:
            return True
        return False


def _bound(port: int) -> socket.socket:
    """Return a socket on 127.0.0.1; SO_REUSEADDR lets several be bound to a port, of which one listens."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setblocking(False)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _words(name: str) -> str:
    """`SlowClose` is `slow_close`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
