"""A session of the gateway in this process, with an avatar that a test plays itself."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from liveavatar_gateway.auth.limiter import Limiter
from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.rooms.servers import RoomServers
from liveavatar_gateway.sessions.reconnector import ReconnectConfig
from liveavatar_gateway.sessions.services import SessionServices
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.account import AccountSpec
from liveavatar_gateway.upstream.egress import Egress, EgressConfig
from liveavatar_gateway.upstream.model import AvatarRequest, RemoteStatus, Started
from liveavatar_gateway.upstream.permits import Permits, PermitsConfig

AVATAR_ID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"


class Journal:
    """Keeps nothing, and remembers the names of its calls."""

    closed = False

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith(("note_", "change", "reserved")):
            raise AttributeError(name)
        return lambda *_, **__: self.calls.append(name)

    async def confirm_lease(self) -> None: ...

    async def save(self) -> None:
        self.calls.append("save")

    async def finish(self, _: float) -> None:
        self.calls.append("finish")


class Socket:
    """Takes every command, and is lost when a test says so."""

    takes_nothing = False

    def __init__(self, on_event: Callable[[m.Event], None]) -> None:
        self.say = on_event
        self.commands: list[m.Command] = []
        self.lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def send(self, command: m.Command, *, ping: int) -> None:
        self.commands.append(command)

    async def closed(self) -> Any:
        return await asyncio.shield(self.lost)

    def abort(self) -> None: ...

    async def close(self) -> None: ...


class Upstream:
    """A session at LiveAvatar."""

    def __init__(self, number: int) -> None:
        self.started = Started(
            session_id=f"up-{number}", ws_url="", room_url="wss://room", viewer_token="viewer", max_duration_s=600
        )
        self.sockets: list[Socket] = []
        self.end = ""
        self.kept_alive = 0
        self.remote_end: str | None = None
        """LiveAvatar's reason for an end that it decided; None while the session runs."""

    async def connect(self, on_event: Callable[[m.Event], None]) -> Socket:
        self.sockets.append(Socket(on_event))
        # As some builds do: with the answer to the handshake.
        on_event(m.StateUpdated("connected"))
        return self.sockets[-1]

    async def close(self) -> str:
        self.end = "closed"
        return ""

    async def leave(self) -> None:
        self.end = "left"

    async def keep_alive(self) -> bool:
        self.kept_alive += 1
        return True

    async def ended_reason(self, *, max_age_s: float) -> str | None:
        assert max_age_s > 0
        return self.remote_end


class Pool:
    """Starts one upstream session after the other, while a permit is free."""

    rooms = RoomServers(None)
    egress = Egress(EgressConfig())

    def __init__(self) -> None:
        self.upstreams: list[Upstream] = []
        self.permit = asyncio.Event()
        self.permit.set()
        self.refusal: GatewayError | None = None
        self.keep_alive_targets: list[object] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self, *_: object, **__: object) -> Upstream:
        await self.permit.wait()
        if self.refusal is not None:
            raise self.refusal
        self.upstreams.append(Upstream(len(self.upstreams) + 1))
        return self.upstreams[-1]

    def run(self, work: Any, *, name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def add_keep_alive(self, target: object) -> None:
        self.keep_alive_targets.append(target)

    def remove_keep_alive(self, _: object) -> None: ...


class JournaledUpstream(Upstream):
    """A session at LiveAvatar that its journal knows of, as that of a real pool."""

    def __init__(self, number: int, journal: Any) -> None:
        super().__init__(number)
        self.journal = journal
        self.account: Any = None
        self.status = RemoteStatus(over=False)
        self.is_silent = False
        """True for an avatar that is never ready."""

    async def connect(self, on_event: Callable[[m.Event], None]) -> Socket:
        if not self.is_silent:
            return await super().connect(on_event)
        self.sockets.append(Socket(on_event))
        return self.sockets[-1]

    async def remote_status(self) -> RemoteStatus:
        return self.status

    def transfer(self, journal: Any, started: Started, *, tenant: str, session_id: str) -> None:
        self.journal, self.started = journal, started
        self.caller = (tenant, session_id)

    async def close(self) -> str:
        if not self.end:
            self.end = "closed"
            if self.journal is not None:
                await self.journal.stopped(self.started.session_id)
        return ""


class JournaledPool(Pool):
    """A pool whose sessions are in their journals, and so in the bill."""

    def __init__(self) -> None:
        super().__init__()
        self.max_duration_s: float | None = 600
        self.is_silent = False
        self.answer = asyncio.Event()
        """Set while LiveAvatar answers to starts."""
        self.answer.set()
        self.failure: GatewayError | None = None
        """Failure of a start that was carried out nevertheless."""
        self.stop = asyncio.Event()
        """Set while LiveAvatar stops what such a start has left."""
        self.stop.set()
        self.permits = Permits(PermitsConfig(limit=9))
        self.accounts = [SimpleNamespace(id="default", name="default", spec=AccountSpec())]
        self.wait_s = 1.0
        self.wishes: list[Any] = []

    async def start(self, _: object, journal: Any, *, wish: Any, **__: object) -> Upstream:
        self.wishes.append(wish)
        await self.permit.wait()
        if self.refusal is not None:
            raise self.refusal
        sending = self.run(self._send(journal), name="start")
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            sending.add_done_callback(lambda sent: self.run(sent.result().close(), name="unwanted"))
            raise

    async def _send(self, journal: Any) -> Upstream:
        upstream = JournaledUpstream(len(self.upstreams) + 1, journal)
        upstream.is_silent = self.is_silent
        upstream.account = self.accounts[0]
        upstream.started = replace(upstream.started, max_duration_s=self.max_duration_s)
        await journal.minted(upstream.started.session_id)
        self.upstreams.append(upstream)
        await self.answer.wait()
        if self.failure is not None:
            self.run(self._undo(upstream), name="undo")
            raise self.failure
        await journal.started(upstream.started)
        return upstream

    async def _undo(self, upstream: Upstream) -> None:
        await self.stop.wait()
        await upstream.close()

    async def settle(self) -> None:
        """Wait for all work that was run."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))


class NothingWarm:
    """Has no warm session for anybody."""

    def take(self, *_: object, **__: object) -> None:
        return None

    def has(self, *_: object, **__: object) -> bool:
        return False


class Billing:
    """Counts nothing, and refuses if a test says so."""

    refusal: GatewayError | None = None

    async def require(self, _: object) -> None:
        if self.refusal is not None:
            raise self.refusal

    def adopt(self, *_: object, **__: object) -> None: ...

    async def ended(self, *_: object) -> None: ...

    def stopped(self, *_: object, **__: object) -> None: ...

    async def refund(self, _: object) -> None: ...


class Process:
    """State that the sessions of a process share."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.limiter = Limiter(lambda _: None)
        self.journal = Journal()
        self.news: list[str] = []
        self.services = SessionServices(
            config=SessionConfig(),
            reconnect=ReconnectConfig(),
            retention_s=0.0,
            pool=self.pool,
            warm=NothingWarm(),
            journals=SimpleNamespace(open=lambda *_: self.journal),
            billing=Billing(),
            usage_label="",
            metrics=Metrics(),
            listener=SimpleNamespace(on_news=self.news.append),
        )
        self.running: list[asyncio.Task[None]] = []

    def session(self, **spec: Any) -> SessionActor:
        """Return a session that is not started yet."""
        wishes = {"avatar": AvatarRequest(avatar_id=AVATAR_ID), "detach_grace_s": 5.0, **spec}
        return SessionActor(SessionSpec(**wishes), self.services)

    def run(self, session: SessionActor) -> asyncio.Task[None]:
        """Start a session."""
        self.running.append(asyncio.create_task(session.lifecycle.run(None, self.limiter.count_session(""))))
        return self.running[-1]

    async def ready(self, **spec: Any) -> SessionActor:
        """Return a session whose avatar is ready."""
        session = self.session(**spec)
        self.run(session)
        await asyncio.wait_for(session.ready(), 10)
        return session

    @property
    def socket(self) -> Socket:
        """The newest command socket."""
        return self.pool.upstreams[-1].sockets[-1]

    async def sent(self, kind: type[m.Command]) -> Any:
        """Wait for a command of a kind, and return it."""
        async with asyncio.timeout(10):
            while True:
                for command in self.socket.commands:
                    if isinstance(command, kind):
                        return command
                await asyncio.sleep(0)

    async def close(self) -> None:
        """End what still runs."""
        for task in self.running:
            task.cancel()
        if self.running:
            await asyncio.wait(self.running)


class Context:
    """A call of gRPC: takes what is written to it."""

    def __init__(self, requests: Any = ()) -> None:
        self.written: asyncio.Queue[Any] = asyncio.Queue()
        self.requests: asyncio.Queue[Any] = asyncio.Queue()
        for request in requests:
            self.requests.put_nowait(request)

    async def write(self, response: Any) -> None:
        self.written.put_nowait(response)

    async def read(self) -> Any:
        return await self.requests.get()

    async def iterate(self) -> Any:
        """Give the requests one after the other; None ends them."""
        while (request := await self.requests.get()) is not None:
            yield request

    def time_remaining(self) -> float | None:
        return None

    async def until(self, kind: str) -> Any:
        """Return the next response of a kind."""
        async with asyncio.timeout(10):
            while True:
                response = await self.written.get()
                if response.WhichOneof("message") == kind:
                    return getattr(response, kind)
