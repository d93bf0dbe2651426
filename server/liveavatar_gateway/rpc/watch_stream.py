"""`SessionService.WatchSessions`: what to watch goes up, every change of many sessions comes down."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from itertools import chain
from typing import Any, Final

import grpc
import structlog
from google.rpc import status_pb2

from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    Draining,
    EventsCompacted,
    GatewayError,
    InternalError,
    InvalidField,
)
from liveavatar_gateway.core.events import LogEntry
from liveavatar_gateway.core.states import SessionState
from liveavatar_gateway.rpc import mapping as convert
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.errors import status_of
from liveavatar_gateway.rpc.stream_reader import each, part
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.session import SessionActor, new_id
from liveavatar_gateway.sessions.wakeup import Wakeup

_Context = grpc.aio.ServicerContext[Any, Any]

_log = structlog.get_logger(__name__)

_MAX_WATCHED: Final = 10_000
"""Sessions on one stream. Each costs an entry here and one in every progress notice."""
_MAX_FILTERS: Final = 16
_MAX_UNREAD: Final = 256
"""Answers that wait to be told; above that no more requests are read."""
_UNSEEN: Final = -1
"""Told sequence of a session whose snapshot is due."""


class WatchStream:
    """One `WatchSessions` stream. The reader changes what is watched, the writer tells what happened.

    Nothing is queued: events stay in the logs of their sessions, and here is only how far each was told. So a
    watcher that reads slowly costs no memory, and finds that its place in a log is gone.
    """

    def __init__(
        self,
        directory: Directory,
        config: RpcConfig,
        requests: AsyncIterator[p.WatchSessionsRequest],
        context: _Context,
    ) -> None:
        self._directory = directory
        self._progress_s = config.watch_progress_s
        self._first_within_s = config.first_message_timeout_s
        self._requests = requests
        self._context = context
        self._told: dict[str, int] = {}
        # Sessions to look at, in the order they called.
        self._news: dict[str, None] = {}
        self._filters: list[Mapping[str, str]] = []
        self._answers: list[p.WatchSessionsResponse] = []
        self._caught_up = asyncio.Event()
        self._progress_wanted = False
        self._over = False
        self._failure: GatewayError | None = None
        self._signal = Wakeup()

    async def run(self) -> None:
        """Serve until the caller closes its side and has its answers.

        Raises:
            GatewayError: no request came in time or one was wrong, too much is watched, or the process exits.
        """
        self._directory.observers.add(self)
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read(), name="watch/read")
                await self._write(reader)
                reader.cancel()
        finally:
            self._directory.observers.discard(self)

    # --- what sessions do

    def on_session(self, session: SessionActor) -> None:
        """Watch a new session that a filter fits."""
        if any(convert.has_labels(session, labels) for labels in self._filters):
            self._watch(session.id, _UNSEEN)

    def on_news(self, session_id: str) -> None:
        """Look at a watched session soon."""
        if session_id in self._told:
            self._news[session_id] = None
            self._signal.set()

    def on_close(self) -> None:
        """Tell what is left to be told, then that the process exits."""
        self._failure = self._failure or Draining()
        self._signal.set()

    def fail(self, error: GatewayError) -> None:
        """End the stream with an error."""
        self._failure = self._failure or error
        self._signal.set()

    def _watch(self, session_id: str, after_sequence: int) -> None:
        if len(self._told) >= _MAX_WATCHED and session_id not in self._told:
            self._failure = CapacityExhausted(
                f"this stream watches {_MAX_WATCHED} sessions; watch fewer on each, by their labels",
                scope="stream",
                retry_after_s=1.0,
                facts={"limit": _MAX_WATCHED},
            )
        else:
            self._told[session_id] = after_sequence
            self._news[session_id] = None
        self._signal.set()

    # --- up

    async def _read(self) -> None:
        async for request in each(self._requests, first_within_s=self._first_within_s):
            match request.WhichOneof("message"):
                case "add":
                    await self._add(request.add)
                case "remove":
                    self._remove(request.remove)
                case "filter":
                    self._filter(dict(request.filter.labels))
                case "progress":
                    self._progress_wanted = True
                    self._signal.set()
                case _:
                    raise InvalidField("a message must say what to do", field="message")
            if len(self._answers) >= _MAX_UNREAD:
                self._caught_up.clear()
                await self._caught_up.wait()
        self._over = True
        self._signal.set()

    async def _add(self, add: p.AddWatch) -> None:
        session_id = convert.checked_id(add.session_id, "add.session_id", required=True)
        try:
            last = (await self._directory.get(session_id)).core.log.last_sequence
            if not 0 <= add.after_sequence <= last:
                raise InvalidField(
                    f"after_sequence {add.after_sequence} is not between 0 and {last}",
                    field="add.after_sequence",
                    after_sequence=add.after_sequence,
                    last_sequence=last,
                )
        except GatewayError as error:
            self._answer(_removed(session_id, error))
            return
        self._watch(session_id, add.after_sequence or _UNSEEN)

    def _remove(self, remove: p.RemoveWatch) -> None:
        session_id = convert.checked_id(remove.session_id, "remove.session_id", required=True)
        self._let_go(session_id)
        self._answer(_removed(session_id))

    def _filter(self, labels: Mapping[str, str]) -> None:
        if len(self._filters) >= _MAX_FILTERS:
            raise InvalidField(
                f"a stream takes at most {_MAX_FILTERS} filters; open another one for more",
                field="filter",
                limit=_MAX_FILTERS,
            )
        self._filters.append(labels)
        for session in self._directory.living():
            if session.id not in self._told and convert.has_labels(session, labels):
                self._watch(session.id, _UNSEEN)

    def _answer(self, response: p.WatchSessionsResponse) -> None:
        self._answers.append(response)
        self._signal.set()

    def _let_go(self, session_id: str) -> None:
        self._told.pop(session_id, None)
        self._news.pop(session_id, None)

    # --- down

    async def _write(self, reader: asyncio.Task[None]) -> None:
        progress_at_s = time.monotonic() + self._progress_s
        while True:
            # Looked at first: what the caller asked for before it closed its side is in this round.
            is_last_round = self._over
            await self._write_round()
            if self._progress_wanted or time.monotonic() >= progress_at_s:
                progress_at_s = time.monotonic() + self._progress_s
                self._progress_wanted = False
                for response in self._progress():
                    await self._context.write(response)
            if (self._answers or self._news) and not is_last_round:
                continue
            if self._failure is not None:
                await part(reader)
                raise self._failure
            if is_last_round:
                return
            await self._signal.wait(progress_at_s - time.monotonic())

    async def _write_round(self) -> None:
        """Tell what is to be told now; what comes up meanwhile is for the next round."""
        answers, self._answers = self._answers, []
        for response in answers:
            await self._context.write(response)
        self._caught_up.set()
        for session_id in list(self._news):
            # It may have been removed while others were told of.
            if self._news.pop(session_id, 0) is None:
                for response in await self._news_of(session_id):
                    await self._context.write(response)

    async def _news_of(self, session_id: str) -> Iterable[p.WatchSessionsResponse]:
        session = self._directory.here(session_id)
        if session is None:
            try:
                session = await self._directory.get(session_id)
            except GatewayError as error:
                self._let_go(session_id)
                return [_removed(session_id, error)]
            if session_id not in self._told:
                # It was removed while the registry was asked.
                return []
        return self._look(session)

    def _progress(self) -> Iterable[p.WatchSessionsResponse]:
        """All that is not told yet, then how far that is: both from this very moment, so that they agree."""
        news: list[Iterable[p.WatchSessionsResponse]] = []
        for session_id in list(self._told):
            if (session := self._directory.here(session_id)) is not None:
                news.append(self._look(session))
            else:
                # The registry has to be asked, which takes time: in the next round.
                self._news[session_id] = None
        told = {session_id: sequence for session_id, sequence in self._told.items() if sequence != _UNSEEN}
        progress = p.WatchProgress(sequences=told)
        return chain(*news, [p.WatchSessionsResponse(progress=progress)])

    def _look(self, session: SessionActor) -> Iterable[p.WatchSessionsResponse]:
        """What happened in a session since it was told last; a fault of ours in one ends its watch alone."""
        try:
            return self._guarded(session.id, self._since_told(session))
        except Exception:  # noqa: BLE001 - others are watched on the same stream
            return [self._failed(session.id)]

    def _guarded(
        self, session_id: str, responses: Iterable[p.WatchSessionsResponse]
    ) -> Iterable[p.WatchSessionsResponse]:
        try:
            yield from responses
        except Exception:  # noqa: BLE001 - others are watched on the same stream
            yield self._failed(session_id)

    def _failed(self, session_id: str) -> p.WatchSessionsResponse:
        incident = new_id()
        _log.exception("watch.failed_for_one", session=session_id, incident=incident)
        self._let_go(session_id)
        return _removed(session_id, InternalError("a fault of the gateway", incident=incident))

    def _since_told(self, session: SessionActor) -> Iterable[p.WatchSessionsResponse]:
        session_id = session.id
        told = self._told[session_id]
        log = session.core.log
        head: list[p.WatchSessionsResponse] = []
        entries: list[LogEntry] = []
        try:
            entries = log.after(told) if told != _UNSEEN else []
        except EventsCompacted:
            oldest = log.compacted_through + 1
            lagged = p.WatchLagged(session_id=session_id, told_sequence=told, oldest_sequence=oldest)
            head = [p.WatchSessionsResponse(lagged=lagged), _snapshot(session)]
        if told == _UNSEEN:
            head = [_snapshot(session)]
        self._told[session_id] = log.last_sequence
        self._news.pop(session_id, None)
        tail: list[p.WatchSessionsResponse] = []
        if session.core.state is SessionState.ENDED:
            self._let_go(session_id)
            tail = [_removed(session_id)]
        return chain(head, (_event(entry, session) for entry in entries), tail)


def _snapshot(session: SessionActor) -> p.WatchSessionsResponse:
    snapshot = p.WatchSnapshot(session=convert.session_message(session), sequence=session.core.log.last_sequence)
    return p.WatchSessionsResponse(snapshot=snapshot)


def _event(entry: LogEntry, session: SessionActor) -> p.WatchSessionsResponse:
    message = convert.event_message(entry, session)
    if message.HasField("rotated"):
        # A seat in the room is for who holds the session: watching is for everybody.
        message.rotated.ClearField("room")
    return p.WatchSessionsResponse(event=p.WatchEvent(session_id=session.id, event=message))


def _removed(session_id: str, error: GatewayError | None = None) -> p.WatchSessionsResponse:
    status = status_of(error) if error else status_pb2.Status()
    return p.WatchSessionsResponse(removed=p.WatchRemoved(session_id=session_id, status=status))
