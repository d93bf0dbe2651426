"""In-memory stand-ins for gRPC calls and for the client's shared state: no sockets."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from liveavatar.gateway import GatewayError
from liveavatar.gateway.backoff import Backoff
from liveavatar.gateway.credentials import Renewal
from liveavatar.gateway.targets import Retries, Route


class FakeCall:
    """Bidirectional call: `arrive` plays the gateway, `written` holds the requests."""

    def __init__(self, *messages: Any) -> None:
        self.written: list[Any] = []
        self.half_closed = False
        self.cancelled = False
        self.unwritten_s = 0.0
        self.renew: Callable[[], Awaitable[bool]] | None = None
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self.arrive(*messages)

    def arrive(self, *messages: Any) -> None:
        """Queue messages for `read`; an exception breaks the call, and None ends it with OK."""
        for message in messages:
            self._messages.put_nowait(message)

    async def read(self) -> Any:
        message = await self._messages.get()
        if isinstance(message, GatewayError):
            raise message
        return message

    async def write(self, request: Any) -> bool:
        if self.cancelled:
            return False
        self.written.append(type(request).FromString(request.SerializeToString()))
        return True

    async def finish_writing(self) -> None:
        self.half_closed = True
        self.arrive(None)

    async def keep_alive(self, heartbeat: Any, interval_s: float) -> None:
        await asyncio.Event().wait()

    def cancel(self) -> None:
        self.cancelled = True
        self.arrive(None)


class FakeRuntime:
    """State shared by the sessions of a client, with prepared calls instead of connections."""

    def __init__(self, *calls: FakeCall) -> None:
        self.targets = ("a:1",)
        self.route = Route(self.targets)
        self.registered: list[Any] = []
        self.spawned: list[asyncio.Task[Any]] = []
        self._calls = list(calls)

    async def _next(self, target: str) -> FakeCall:
        return self._calls.pop(0)

    attach = stream_audio = watch = listen = _next

    def renewal(self) -> Renewal:
        return Renewal(renewable=False)

    def register(self, leave: Any, timeout_s: Callable[[], float]) -> None:
        self.registered.append(leave)

    def release(self, leave: Any) -> None:
        if leave in self.registered:
            self.registered.remove(leave)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        self.spawned.append(asyncio.create_task(work, name=name))
        return self.spawned[-1]


def retries(*targets: str) -> Retries:
    """Attempts without delays."""
    return Retries(Route(targets or ("a:1",)), Backoff(first_s=0.0, longest_s=0.0))


async def settle(count: int = 20) -> None:
    """Let all ready tasks run."""
    for _ in range(count):
        await asyncio.sleep(0)


def connecting(calls: list[FakeCall]) -> Callable[[str], Awaitable[FakeCall]]:
    """Return a function that starts the given calls, one after the other."""

    async def connect(target: str) -> FakeCall:
        return calls.pop(0)

    return connect
