"""Stream of `SessionService.WatchSessions`: watches in, every change of many sessions out."""

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
    id_or_nothing,
)
from liveavatar_gateway.core.events import LogEntry
from liveavatar_gateway.core.states import SessionState
from liveavatar_gateway.rpc import mapping
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.errors import status_of
from liveavatar_gateway.rpc.heard_text import hide
from liveavatar_gateway.rpc.stream_reader import each, wait_for_half_close
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.services import new_id
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.telemetry.limited_log import LimitedLog

_Context = grpc.aio.ServicerContext[Any, Any]

_log = LimitedLog(structlog.get_logger(__name__))

_MAX_WATCHED: Final = 10_000
"""Sessions on one stream. Each costs an entry here and one in every progress notice."""
_MAX_FILTERS: Final = 16
_MAX_UNREAD: Final = 256
"""Answers that the caller has not read; above that, no more requests are read."""
_UNSEEN: Final = -1
"""Sent sequence of a session whose snapshot is due."""


class WatchStream:
    """Reader that changes the set of watched sessions, and writer that sends their events.

    Nothing is queued: events stay in the logs of their sessions, and the stream holds only the number of the last
    event sent for each. A caller that reads slowly costs no memory, and finds events compacted.
    """

    def __init__(
        self,
        directory: Directory,
        config: RpcConfig,
        requests: AsyncIterator[p.WatchSessionsRequest],
        context: _Context,
        *,
        tenant: str,
        shows_text: bool = False,
    ) -> None:
        self._directory = directory
        self._tenant = tenant
        self._shows_text = shows_text
        self._progress_s = config.watch_progress_s
        self._first_within_s = config.first_message_timeout_s
        self._requests = requests
        self._context = context
        self._sent: dict[str, int] = {}
        # Sessions with events to send, in the order of their news.
        self._news: dict[str, None] = {}
        self._filters: list[Mapping[str, str]] = []
        self._answers: list[p.WatchSessionsResponse] = []
        self._caught_up = asyncio.Event()
        self._progress_wanted = False
        self._half_closed = False
        self._failure: GatewayError | None = None
        self._wakeup = Wakeup()

    async def run(self) -> None:
        """Serve until the caller closes its side and has its answers.

        Raises:
            GatewayError: no request came in time or one was invalid, too many sessions are watched, or the process
                exits.
        """
        self._directory.observers.add(self)
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read(), name="watch/read")
                await self._write(reader)
                reader.cancel()
        finally:
            self._directory.observers.discard(self)

    # --- observer of the directory

    def on_session(self, session: SessionActor) -> None:
        """Watch a new session that matches a filter."""
        if session.tenant != self._tenant:
            return
        if any(mapping.has_labels(session.spec, labels) for labels in self._filters):
            self._watch(session.id, _UNSEEN)

    def on_news(self, session_id: str) -> None:
        """Send the events of a watched session soon."""
        if session_id in self._sent:
            self._news[session_id] = None
            self._wakeup.set()

    def on_close(self) -> None:
        """Send what is left, then end with the error of a process that exits."""
        self._failure = self._failure or Draining()
        self._wakeup.set()

    def fail(self, error: GatewayError) -> None:
        """End the stream with an error."""
        self._failure = self._failure or error
        self._wakeup.set()

    def _watch(self, session_id: str, after_sequence: int) -> None:
        if len(self._sent) >= _MAX_WATCHED and session_id not in self._sent:
            self._failure = CapacityExhausted(
                f"this stream watches {_MAX_WATCHED} sessions; watch fewer on each, by their labels",
                scope="stream",
                retry_after_s=1.0,
                values={"limit": _MAX_WATCHED},
            )
        else:
            self._sent[session_id] = after_sequence
            self._news[session_id] = None
        self._wakeup.set()

    # --- requests

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
                    self._wakeup.set()
                case _:
                    raise InvalidField("a message must say what to do", field="message")
            if len(self._answers) >= _MAX_UNREAD:
                self._caught_up.clear()
                await self._caught_up.wait()
        self._half_closed = True
        self._wakeup.set()

    async def _add(self, add: p.AddWatch) -> None:
        session_id = mapping.checked_id(add.session_id, "add.session_id", required=True)
        try:
            last = (await self._directory.get(session_id, tenant=self._tenant)).log.last_sequence
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
        session_id = mapping.checked_id(remove.session_id, "remove.session_id", required=True)
        self._forget(session_id)
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
            is_own = session.tenant == self._tenant
            if is_own and session.id not in self._sent and mapping.has_labels(session.spec, labels):
                self._watch(session.id, _UNSEEN)

    def _answer(self, response: p.WatchSessionsResponse) -> None:
        self._answers.append(response)
        self._wakeup.set()

    def _forget(self, session_id: str) -> None:
        self._sent.pop(session_id, None)
        self._news.pop(session_id, None)

    # --- responses

    async def _write(self, reader: asyncio.Task[None]) -> None:
        progress_at_s = time.monotonic() + self._progress_s
        while True:
            # Determined first, so that this round answers all that the caller requested before it closed its side.
            is_last_round = self._half_closed
            await self._write_round()
            if self._progress_wanted or time.monotonic() >= progress_at_s:
                progress_at_s = time.monotonic() + self._progress_s
                self._progress_wanted = False
                for response in self._progress():
                    await self._context.write(response)
            if (self._answers or self._news) and not is_last_round:
                continue
            if self._failure is not None:
                await wait_for_half_close(reader)
                raise self._failure
            if is_last_round:
                return
            await self._wakeup.wait(progress_at_s - time.monotonic())

    async def _write_round(self) -> None:
        """Write what is due now; what becomes due meanwhile is for the next round."""
        answers, self._answers = self._answers, []
        for response in answers:
            await self._context.write(response)
        self._caught_up.set()
        for session_id in list(self._news):
            # The session may have been removed while others were written.
            if self._news.pop(session_id, 0) is None:
                for response in await self._news_of(session_id):
                    await self._context.write(response)

    async def _news_of(self, session_id: str) -> Iterable[p.WatchSessionsResponse]:
        session = self._directory.local(session_id, tenant=self._tenant)
        if session is None:
            try:
                session = await self._directory.get(session_id, tenant=self._tenant)
            except GatewayError as error:
                self._forget(session_id)
                return [_removed(session_id, error)]
            if session_id not in self._sent:
                # The session was removed while the registry was asked.
                return []
        return self._responses(session)

    def _progress(self) -> Iterable[p.WatchSessionsResponse]:
        """Return every event not sent yet, then the progress: both of this moment, so that they agree."""
        news: list[Iterable[p.WatchSessionsResponse]] = []
        for session_id in list(self._sent):
            if (session := self._directory.local(session_id, tenant=self._tenant)) is not None:
                news.append(self._responses(session))
            else:
                # The registry has to be asked, which takes time: done in the next round.
                self._news[session_id] = None
        sent = {session_id: sequence for session_id, sequence in self._sent.items() if sequence != _UNSEEN}
        progress = p.WatchProgress(sequences=sent)
        return chain(*news, [p.WatchSessionsResponse(progress=progress)])

    def _responses(self, session: SessionActor) -> Iterable[p.WatchSessionsResponse]:
        """Return the news of a session; a fault of the gateway in it ends the watch of this session alone."""
        try:
            return self._guarded(session.id, self._unsent(session))
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
        _log.exception("watch.failed_for_one", session=id_or_nothing(session_id), incident=incident)
        self._forget(session_id)
        return _removed(session_id, InternalError("a fault of the gateway", incident=incident))

    def _unsent(self, session: SessionActor) -> Iterable[p.WatchSessionsResponse]:
        session_id = session.id
        sent = self._sent[session_id]
        log = session.log
        head: list[p.WatchSessionsResponse] = []
        entries: list[LogEntry] = []
        try:
            entries = log.after(sent) if sent != _UNSEEN else []
        except EventsCompacted:
            oldest = log.compacted_through + 1
            lagged = p.WatchLagged(session_id=session_id, sent_sequence=sent, oldest_sequence=oldest)
            head = [p.WatchSessionsResponse(lagged=lagged), _snapshot(session)]
        if sent == _UNSEEN:
            head = [_snapshot(session)]
        self._sent[session_id] = log.last_sequence
        self._news.pop(session_id, None)
        tail: list[p.WatchSessionsResponse] = []
        if session.state is SessionState.ENDED:
            self._forget(session_id)
            tail = [_removed(session_id)]
        return chain(head, (_event(entry, session, shows_text=self._shows_text) for entry in entries), tail)


def _snapshot(session: SessionActor) -> p.WatchSessionsResponse:
    view = session.view()
    snapshot = p.WatchSnapshot(session=mapping.session_message(view), sequence=view.last_sequence)
    return p.WatchSessionsResponse(snapshot=snapshot)


def _event(entry: LogEntry, session: SessionActor, *, shows_text: bool) -> p.WatchSessionsResponse:
    message = mapping.event_message(entry, session.final_view)
    if message.HasField("rotated"):
        # Access to the room is for the holder of a handle; anybody may watch.
        message.rotated.ClearField("room")
    elif message.HasField("data_received"):
        # And what users send is for those who attach.
        message.data_received.ClearField("payload")
    if not shows_text:
        hide(message)
    return p.WatchSessionsResponse(event=p.WatchEvent(session_id=session.id, event=message))


def _removed(session_id: str, error: GatewayError | None = None) -> p.WatchSessionsResponse:
    status = status_of(error) if error else status_pb2.Status()
    return p.WatchSessionsResponse(removed=p.WatchRemoved(session_id=session_id, status=status))
