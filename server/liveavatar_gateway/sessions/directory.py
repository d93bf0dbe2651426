"""Who is where: all sessions of this process, found by id, handle or request id."""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

import structlog

from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.errors import (
    Draining,
    GatewayError,
    InternalError,
    InvalidField,
    OwnerMoved,
    RegistryUnavailable,
    RequestIdReused,
    SessionNotFound,
    UpstreamTimeout,
)
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.registry.base import Fence, StoredSession
from liveavatar_gateway.sessions.bulkhead import bulkhead
from liveavatar_gateway.sessions.handles import Handles, session_id_of
from liveavatar_gateway.sessions.journal import JournalWriter
from liveavatar_gateway.sessions.observers import Observer
from liveavatar_gateway.sessions.reconnector import ReconnectConfig
from liveavatar_gateway.sessions.record import Record, read_record
from liveavatar_gateway.sessions.restore import restore, view
from liveavatar_gateway.sessions.session import SessionActor, SessionServices, new_id, utc_now
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.pool import Pool

_log = structlog.get_logger(__name__)

_END_WAIT_S = 30.0
_LOOK_AGAIN_S = 0.1
"""How often the registry is read for the end of a session that another process was asked to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryConfig:
    """How sessions are kept."""

    session: SessionConfig = field(default_factory=SessionConfig)
    """Deadlines of each session."""
    reconnect: ReconnectConfig = field(default_factory=ReconnectConfig)
    """How a lost command socket is opened again."""
    max_chunk_bytes: int = 256 * 1024
    """Largest chunk of audio that is taken."""
    retention_s: float = 600.0
    """How long an ended session stays readable."""
    max_ended: int = 1000
    """Ended sessions that stay readable at most."""
    exit_timeout_s: float = 5.0
    """How long leaving waits for LiveAvatar to confirm stops."""


class _Lock(asyncio.Lock):
    """Is forgotten with its last user."""

    users = 0


async def _nobody(_: StoredSession) -> SessionActor | None:
    """Take over nothing, before there is a sweeper."""
    return None


def _expect_caller(opening: asyncio.Task[SessionActor]) -> None:
    """Start the grace of a session whose caller left before it was there."""
    if not opening.cancelled() and opening.exception() is None:
        session = opening.result()
        session.attachments.start_grace(session.spec.detach_grace_s)


class Directory:
    """All sessions of this process. Owns their tasks; use as an async context manager.

    Leaving the context ends what still lives and waits until LiveAvatar has stopped it, within bounds. Each
    session is a bulkhead: its task belongs to no group, so a fault that ends it cancels no other session.
    """

    def __init__(self, config: DirectoryConfig, pool: Pool, books: JournalWriter, metrics: Metrics) -> None:
        self._config = config
        self._pool = pool
        self._books = books
        self._services = SessionServices(
            config=config.session,
            reconnect=config.reconnect,
            retention_s=config.retention_s,
            pool=pool,
            journals=books,
            metrics=metrics,
            listener=self,
        )
        self._sessions: OrderedDict[str, SessionActor] = OrderedDict()
        self._requests: dict[str, SessionActor] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._ended: OrderedDict[str, float] = OrderedDict()
        self.observers: set[Observer] = set()
        """Told of each session that comes, and of news of all."""
        self._locks: dict[str, _Lock] = {}
        self.take_over: Callable[[StoredSession], Awaitable[SessionActor | None]] = _nobody
        """Goes on with a session whose owner is dead, if it can be; set by the sweeper."""
        self.on_create_failed: Callable[[GatewayError], None] = lambda _: None
        """Called with the reason why a session could not be created."""
        self.draining = False
        """Whether new sessions are refused."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.draining = True
        self.end_all(EndReason.DRAINED)
        if self._running:
            await asyncio.wait(self._running, timeout=self._config.exit_timeout_s)
        # Those whose stop LiveAvatar does not confirm: the stop goes on in the pool, for as long as that lives.
        while left := set(self._running):
            for task in left:
                task.cancel()
            await asyncio.wait(left)
            # Their callbacks take them out of the set.
            await asyncio.sleep(0)
        for observer in list(self.observers):
            self._tell(observer, observer.on_close)

    async def open(self, spec: SessionSpec, request_id: str, *, wait_s: float | None) -> SessionActor:
        """Create a session, or give the one that was created for the same request.

        A request is in the registry before anything is done for it, so that its retry finds it from any process. A
        caller that gives up meanwhile leaves a session that waits for it as after a lost stream.

        Raises:
            Draining: no new ones any more.
            RequestIdReused: the request id was used with another spec.
            OwnerMoved: another process has the session of that request.
            RegistryUnavailable: nobody can tell whether another has.
        """
        if not request_id:
            return self._open(spec, wait_s)
        opening = self._pool.run(self._open_for(spec, request_id, wait_s), name=f"request-{request_id}/open")
        try:
            return await asyncio.shield(opening)
        except RegistryUnavailable as error:
            self._books.note_outage(error)
            raise
        except asyncio.CancelledError:
            opening.add_done_callback(_expect_caller)
            raise

    def _open(self, spec: SessionSpec, wait_s: float | None) -> SessionActor:
        if self.draining:
            raise Draining
        session = self._new(spec, "")
        self._add(session, wait_s)
        return session

    def _new(self, spec: SessionSpec, request_id: str) -> SessionActor:
        return SessionActor(spec, self._services, request_id=request_id)

    async def _open_for(self, spec: SessionSpec, request_id: str, wait_s: float | None) -> SessionActor:
        async with self._locked(f"request {request_id}"):
            while True:
                # Between the look and the reservation another process may have been faster.
                known = self._requests.get(request_id)
                failed = ""
                if known is None or known.end_reason is EndReason.CREATE_FAILED:
                    # One that failed may still be stopped: its caller has been told, and may try again.
                    known, failed = await self._requested(request_id, spec)
                if known is not None:
                    if known.spec != spec:
                        raise RequestIdReused(request_id)
                    return known
                if self.draining:
                    raise Draining
                session = self._new(spec, request_id)
                fence = await self._books.registry.reserve(
                    session.id, session.facts(), request_id=request_id, instead_of=failed
                )
                if fence is None:
                    # Another process was faster and has the session.
                    continue
                session.reserved(fence)
                if self.draining:
                    await session.call_off(Draining())
                    raise Draining
                self._add(session, wait_s)
                return session

    async def _requested(self, request_id: str, spec: SessionSpec) -> tuple[SessionActor | None, str]:
        """Find the session of a request in the registry; or the id of one that a new session may follow.

        Raises:
            RequestIdReused: it has another spec.
            OwnerMoved: another process has it.
            RegistryUnavailable: nobody can tell.
        """
        registry = self._books.registry
        row = await registry.find_request(request_id)
        if row is None:
            return None, ""
        try:
            record = read_record(row)
        except ValueError:
            return None, row.session_id
        here = self._here(row.session_id)
        end_reason = record.end_reason if here is None else here.end_reason
        if end_reason is EndReason.CREATE_FAILED:
            # Nothing was made, so a retry of the same request may try again.
            return None, row.session_id
        if record.spec != spec:
            raise RequestIdReused(request_id)
        if here is not None:
            return here, ""
        if not row.ended and record.started_at is None and not self.draining and await registry.is_abandoned(row):
            # Its process died before it could answer anybody: the reservation died with it.
            return await self._taken_or_ended(row)
        return await self._elsewhere(row.session_id, field="request_id"), ""

    async def _taken_or_ended(self, row: StoredSession) -> tuple[SessionActor | None, str]:
        if (taken := await self.take_over(row) or self._here(row.session_id)) is not None:
            return taken, ""
        registry = self._books.registry
        now = await registry.find(row.session_id)
        if (
            now is not None
            and not now.ended
            and now.owner != registry.owner
            and not await registry.is_abandoned(now)
        ):
            raise OwnerMoved(row.session_id, address=now.address)
        return None, row.session_id

    @contextlib.asynccontextmanager
    async def _locked(self, name: str) -> AsyncIterator[None]:
        """Let calls about the same session or request wait for each other: between look and act time passes."""
        lock = self._locks.setdefault(name, _Lock())
        lock.users += 1
        try:
            async with lock:
                yield
        finally:
            lock.users -= 1
            if not lock.users:
                del self._locks[name]

    def adopt(self, row: StoredSession, record: Record, fence: Fence, *, grace_s: float) -> SessionActor | None:
        """Go on with a claimed session of a dead process; None when it cannot be reached at LiveAvatar.

        Args:
            row: The session as it was left.
            record: What it says.
            fence: The right to it.
            grace_s: How long it waits for its callers.
        """
        try:
            left = restore(
                row,
                record,
                fence,
                self._config.session,
                grace_s=grace_s,
                max_chunk_bytes=self._config.max_chunk_bytes,
                new_id=new_id,
                utc_now=utc_now,
                now_mono_s=time.monotonic(),
            )
        except (ValueError, GatewayError) as error:
            _log.warning("session.unreadable", session=row.session_id, error=str(error))
            return None
        if left is None:
            return None
        session = SessionActor(record.spec, self._services, request_id=record.request_id, restored=left)
        self._add(session, None)
        return session

    def _add(self, session: SessionActor, wait_s: float | None) -> None:
        self._sessions[session.id] = session
        if session.request_id:
            self._requests[session.request_id] = session
        task = asyncio.create_task(self._live(session, wait_s), name=f"session-{session.id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        for observer in list(self.observers):
            self._tell(observer, observer.on_session, session)

    def on_news(self, session_id: str) -> None:
        """Tell observers that the log of a session has grown, or that the session has left."""
        for observer in list(self.observers):
            self._tell(observer, observer.on_news, session_id)

    def _tell(self, observer: Observer, tell: Callable[..., None], *args: object) -> None:
        """Call one observer; a fault in it ends its watch, and no session."""
        try:
            tell(*args)
        except Exception as fault:  # noqa: BLE001 - a watcher is no part of the session that it watches
            incident = new_id()
            _log.error("observer.failed", incident=incident, exc_info=fault)
            self.observers.discard(observer)
            observer.fail(InternalError("a fault of the gateway", incident=incident))

    async def _live(self, session: SessionActor, wait_s: float | None) -> None:
        try:
            await session.run(wait_s)
        except asyncio.CancelledError:
            # Another process took it over while it ended here: that is no reason to keep it.
            if session.lost_to is None:
                raise
        except BaseException as fault:  # noqa: BLE001 - the root of the task: nothing of it may reach other sessions
            session.crashed(fault)
        if session.lost_to is not None:
            self._let_go(session)
            return
        if session.end_reason is EndReason.CREATE_FAILED:
            self._note_failed_create(session)
            # Nothing was made, so a retry of the same request may try again.
            if self._requests.get(session.request_id) is session:
                del self._requests[session.request_id]
        self._ended[session.id] = time.monotonic() + self._config.retention_s
        self._forget()

    def _note_failed_create(self, session: SessionActor) -> None:
        error = session.error
        if isinstance(error, RegistryUnavailable):
            self._books.note_outage(error)
        if error is not None:
            self.on_create_failed(error)

    def _let_go(self, session: SessionActor) -> None:
        """Whoever asks for it is told where it is, see `_elsewhere`. It may be here again already."""
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]
        if self._requests.get(session.request_id) is session:
            del self._requests[session.request_id]
        self.on_news(session.id)

    def _forget(self) -> None:
        now_s = time.monotonic()
        while self._ended:
            session_id, until_s = next(iter(self._ended.items()))
            if until_s > now_s and len(self._ended) <= self._config.max_ended:
                return
            del self._ended[session_id]
            gone = self._sessions.pop(session_id, None)
            for request_id in [key for key, session in self._requests.items() if session is gone]:
                del self._requests[request_id]

    def here(self, session_id: str) -> SessionActor | None:
        """Find a session that this process has or had; None when it is nowhere or elsewhere."""
        self._forget()
        return self._here(session_id)

    async def get(self, session_id: str) -> SessionActor:
        """Find a session by id.

        Raises:
            SessionNotFound: there is none.
            OwnerMoved: another process has it.
            RegistryUnavailable: it is not here, and nobody can tell whether it is elsewhere.
        """
        return self.here(session_id) or await self._elsewhere(session_id, field="session_id")

    async def end(self, session_id: str, reason: EndReason, *, wait_s: float | None) -> SessionActor:
        """End a session, whoever has it, and wait until LiveAvatar has stopped it.

        One of another process is ended by that, within its renewal period; when it is dead, by whoever looks next.
        The wish outlives this call.

        Args:
            session_id: The session.
            reason: Why it ends, unless it already has another reason.
            wait_s: How long to wait for another process, and for LiveAvatar; None is 30 s.

        Raises:
            SessionNotFound: there is none.
            OwnerMoved: another process has it and has not ended it in that time; it will.
            RegistryUnavailable: it is not here, and nobody can tell whether it is elsewhere.
            UpstreamTimeout: it ends here, and LiveAvatar has not confirmed that in that time.
        """
        until_s = time.monotonic() + (_END_WAIT_S if wait_s is None else wait_s)
        asked = False
        while True:
            try:
                session = await self.get(session_id)
            except OwnerMoved:
                if not asked:
                    await self._books.registry.request_end(session_id, reason.value)
                    asked = True
                if time.monotonic() >= until_s:
                    raise
                await asyncio.sleep(_LOOK_AGAIN_S)
                continue
            session.end(reason)
            # wait, not timeout: an end that arrives together with the deadline counts.
            finishing = asyncio.create_task(session.finished.wait(), name=f"session-{session_id}/await-end")
            try:
                await asyncio.wait([finishing], timeout=max(0.0, until_s - time.monotonic()))
            finally:
                finishing.cancel()
            if not session.finished.is_set():
                raise UpstreamTimeout(
                    f"LiveAvatar has not confirmed the end of session {session_id} yet; the gateway goes on "
                    "trying, ask again",
                    retry_after_s=1.0,
                    session_id=session_id,
                )
            if session.lost_to is None:
                return session

    def _here(self, session_id: str) -> SessionActor | None:
        session = self._sessions.get(session_id)
        return session if session is not None and session.lost_to is None else None

    async def _elsewhere(self, session_id: str, *, field: str) -> SessionActor:
        """Find a session that this process did not have: one that ended under another, or whose owner is dead.

        Raises:
            SessionNotFound: there is none.
            OwnerMoved: another process has it.
            RegistryUnavailable: nobody can tell.
        """
        registry = self._books.registry
        async with self._locked(f"session {session_id}"):
            if (session := self._here(session_id)) is not None:
                return session
            row = await registry.find(session_id)
            if row is None:
                raise SessionNotFound(session_id, field=field)
            if row.ended:
                if (ended := self.look(row)) is None:
                    raise SessionNotFound(session_id, field=field)
                return ended
            taken = None
            if not self.draining and await registry.is_abandoned(row):
                # The sweeper may have been faster.
                taken = await self.take_over(row) or self._here(session_id)
            if taken is None:
                raise OwnerMoved(session_id, address=row.address)
            return taken

    def look(self, row: StoredSession) -> SessionActor | None:
        """Return a session of the registry to be looked at, whoever has it; None when it cannot be read."""
        if (session := self._here(row.session_id)) is not None:
            return session
        if not row.payload:
            # It could not be read when it was ended, and was put aside then.
            return None
        try:
            record, left = view(row, self._config.session, new_id=new_id, utc_now=utc_now)
        except (ValueError, GatewayError) as error:
            _log.warning("session.unreadable", session=row.session_id, error=str(error))
            return None
        return SessionActor(record.spec, self._services, restored=left)

    async def by_handle(self, handle: str, *, field: str) -> SessionActor:
        """Find a session by its handle.

        Raises:
            SessionNotFound: there is none, or a newer handle has replaced this one; the handle itself is not
                repeated, since it may be a real secret.
            OwnerMoved: another process has it.
            RegistryUnavailable: it is not here, and nobody can tell whether it is elsewhere.
        """
        session_id = session_id_of(handle)
        session = self._here(session_id)
        if session is None and await self._opens_elsewhere(session_id, handle):
            return await self._elsewhere(session_id, field=field)
        if session is None or not session.handles.accepts(handle, time.monotonic()):
            raise SessionNotFound(session_id, field=field)
        return session

    async def _opens_elsewhere(self, session_id: str, handle: str) -> bool:
        row = await self._books.registry.find(session_id)
        return row is not None and Handles(session_id, keep_s=0.0, hashes=row.handles).accepts(
            handle, time.monotonic()
        )

    def newest(self) -> list[SessionActor]:
        """All sessions, newest first."""
        self._forget()
        return list(reversed(self._sessions.values()))

    def living(self) -> list[SessionActor]:
        """Sessions that have not ended."""
        return [session for session in self._sessions.values() if not session.finished.is_set()]

    def page(self, sessions: list[SessionActor], token: str, size: int) -> tuple[list[SessionActor], str]:
        """Cut one page out of `sessions`: those after the one that `token` names.

        Raises:
            InvalidField: `token` was never given out.
        """
        start = 0
        if token:
            position = next((index for index, session in enumerate(sessions) if session.id == token), None)
            if position is None:
                raise InvalidField("page_token is unknown; list from the start", field="page_token")
            start = position + 1
        page = sessions[start : start + size]
        return page, page[-1].id if start + size < len(sessions) else ""

    def end_all(self, reason: EndReason) -> None:
        """Begin to end all that live."""
        for session in self.living():
            with bulkhead("session.end_failed", session.id):
                session.end(reason)
