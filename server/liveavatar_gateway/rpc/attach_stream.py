"""Stream of `SessionService.Attach`: commands in, results and events out."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

import grpc
from google.rpc import status_pb2

from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar.gateway.v1 import stream_pb2
from liveavatar_gateway.auth.principal import MESSAGE_RULES
from liveavatar_gateway.core.errors import GatewayError, HeaderRequired, InvalidField, UnexpectedMessage
from liveavatar_gateway.core.events import Ended
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.rpc import mapping, room_events
from liveavatar_gateway.rpc import rooms as own_rooms
from liveavatar_gateway.rpc.config import RpcConfig, audio_limits
from liveavatar_gateway.rpc.errors import status_of
from liveavatar_gateway.rpc.heard_text import hide, may_read
from liveavatar_gateway.rpc.interceptors.audit import audited, note_refusal
from liveavatar_gateway.rpc.interceptors.authentication import current_call, current_principal
from liveavatar_gateway.rpc.session_stream import SessionStream
from liveavatar_gateway.rpc.stream_reader import each, first, following, wait_for_half_close
from liveavatar_gateway.rpc.wishes import Wishes
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.upstream.permits import QueuePlace

_Context = grpc.aio.ServicerContext[Any, Any]
_AWAITED: Final = frozenset({"interrupt", "pause", "continue_speech", "send_data"})
"""Commands whose result takes a round trip to LiveAvatar or to the room."""
_MAX_UNREAD: Final = 64
"""Results of commands that the caller has not read; above that, no more commands are read."""


class AttachStream(SessionStream[p.AttachResponse]):
    """Reader of commands and writer of events. `open` binds it to a session, `run` serves it."""

    def __init__(
        self,
        session: SessionActor,
        config: RpcConfig,
        requests: AsyncIterator[p.AttachRequest],
        context: _Context,
        *,
        after_sequence: int,
        skip_compacted: bool,
    ) -> None:
        log = session.log
        is_lost = skip_compacted and 0 <= after_sequence < log.compacted_through
        self._lost_through = log.compacted_through if is_lost else 0
        self._requests = requests
        self._sequence = self._lost_through if is_lost else after_sequence
        # Raises here, before this stream supersedes another that works.
        log.after(self._sequence)
        self._results: list[p.CommandResult] = []
        # No more commands are read from a caller that reads no results.
        self._unread = asyncio.Semaphore(_MAX_UNREAD)
        self._awaited_count = 0
        """Number of commands whose result takes a round trip to LiveAvatar and is still to come."""
        self._half_closed = False
        self._announced_deadline: datetime | None = None
        attachment = session.attachments.add_attach_stream()
        self._call = current_call()
        self._call.on_deadline(attachment.wakeup.set)
        self._announced_expiry: datetime | None = None
        heartbeat = p.AttachResponse(heartbeat=stream_pb2.Heartbeat())
        super().__init__(session, attachment, config, context, heartbeat=heartbeat)
        self._handle = session.issue_handle()

    @classmethod
    async def open(
        cls,
        directory: Directory,
        config: RpcConfig,
        wishes: Wishes,
        requests: AsyncIterator[p.AttachRequest],
        context: _Context,
    ) -> "AttachStream":
        """Read the first message, and open or resume its session.

        Raises:
            GatewayError: there was no such message, or its request was refused.
        """
        message = await first(following(requests), config.first_message_timeout_s)
        kind = message.WhichOneof("message") if message is not None else None
        if message is None or kind not in ("open", "resume"):
            raise HeaderRequired(
                f"the first message must be open or resume, got {kind or 'nothing'}",
                field="message",
                got=kind or "",
            )
        principal = current_principal()
        principal.require(MESSAGE_RULES[kind], f"the message {kind} of Attach")
        if kind == "resume":
            session = await directory.by_handle(
                message.resume.handle, tenant=principal.tenant, field="resume.handle"
            )
            return cls(
                session,
                config,
                requests,
                context,
                after_sequence=message.resume.after_sequence,
                skip_compacted=message.resume.skip_compacted,
            )
        wished = message.open
        with audited("session.open", request_id=wished.request_id, avatar=wished.spec.avatar_id) as target:
            spec = wishes.spec_of(wished.spec, field="open.spec", tenant=principal.tenant)
            request_id = mapping.checked_id(wished.request_id, "open.request_id", required=False)
            wait_s = mapping.permit_wait_s(context.time_remaining())
            session = await directory.open(
                spec,
                request_id,
                tenant=principal.tenant,
                wait_s=wait_s,
                reservation_id=mapping.checked_id(wished.reservation_id, "open.reservation_id", required=False),
            )
            target["session"] = session.id
            try:
                await session.room(
                    lambda place: context.write(_queue_position(place)), repeat_s=config.heartbeat_s or None
                )
            except asyncio.CancelledError:
                session.forsake(retryable=bool(request_id))
                raise
        # The same request may have created the session long ago.
        return cls(session, config, requests, context, after_sequence=0, skip_compacted=True)

    async def run(self) -> None:
        """Serve until the caller detaches, another stream takes over, or the session has ended.

        A caller detaches by closing its side: from then on, the stream does not keep the session alive. Results of
        its commands still follow, the end of the session included.
        """
        try:
            await self._write_one(p.AttachResponse(opened=self._opened()))
            async with asyncio.TaskGroup() as tasks:
                name = f"session-{self._session.id}/attach"
                reader = tasks.create_task(self._read(tasks), name=f"{name}-read")
                await self._write()
                await wait_for_half_close(reader)
                reader.cancel()
        finally:
            self._attachment.release()

    def _opened(self) -> p.SessionOpened:
        session = self._session
        return p.SessionOpened(
            session=mapping.session_message(session.view()),
            room=own_rooms.room_message(session.room_access()),
            handle=self._handle,
            detach_grace=mapping.duration(session.spec.detach_grace_s),
            audio_limits=audio_limits(self._config),
            compacted_through=self._lost_through,
            heartbeat_interval=self._heartbeat_interval,
        )

    # --- responses

    async def _write(self) -> None:
        while True:
            # Determined before the responses: what happens while they are written is for the next round.
            is_last_round = self._is_served()
            for response in self._due():
                await self._write_one(response)
                if response.HasField("command_result"):
                    self._unread.release()
            if self._attachment.superseded is not None:
                raise self._attachment.superseded
            if is_last_round or self._has_sent_all():
                return
            await self._wait_for_news()

    def _is_served(self) -> bool:
        """Return whether the caller has detached and waits for nothing more: neither a result nor an end."""
        return self._half_closed and not self._awaited_count and not self._session.over

    def _due(self) -> list[p.AttachResponse]:
        responses = []
        results, self._results = self._results, []
        entries = self._session.log.after(self._sequence)
        if self._awaited_count and entries and isinstance(entries[-1].event, Ended):
            # Nothing follows the end of the session, so it waits for the results that are still to come.
            entries.pop()
        for entry in entries:
            self._sequence = entry.sequence
            event = mapping.event_message(entry, self._session.final_view)
            if not may_read(self._call.principal):
                hide(event)
            responses.append(p.AttachResponse(event=event))
        last = responses.pop() if entries and isinstance(entries[-1].event, Ended) else None
        responses += [p.AttachResponse(command_result=result) for result in results]
        deadline = self._session.draining_until
        if deadline != self._announced_deadline:
            self._announced_deadline = deadline
            responses.append(self._drain_message(deadline))
        expiry = self._call.deadline
        if expiry is not None and expiry != self._announced_expiry:
            self._announced_expiry = expiry
            responses.append(self._go_away(expiry, p.GO_AWAY_REASON_CREDENTIAL))
        return [*responses, last] if last is not None else responses

    def _drain_message(self, deadline: datetime | None) -> p.AttachResponse:
        if deadline is None:
            return p.AttachResponse(go_away_cancelled=p.GoAwayCancelled())
        return self._go_away(deadline, p.GO_AWAY_REASON_DRAIN)

    def _go_away(self, deadline: datetime, reason: "p.GoAwayReason.ValueType") -> p.AttachResponse:
        go_away = p.GoAway(deadline=mapping.timestamp(deadline), handle=self._handle, reason=reason)
        return p.AttachResponse(go_away=go_away)

    def _has_sent_all(self) -> bool:
        return self._session.finished.is_set() and self._sequence == self._session.log.last_sequence

    # --- requests

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        async for request in each(self._requests):
            kind = request.WhichOneof("message")
            if kind == "heartbeat":
                continue
            if kind != "command":
                got = kind or "nothing"
                raise UnexpectedMessage(f"after the first message only commands may come, got {got}", field=got)
            command = request.command
            mapping.checked_id(command.id, "command.id", required=True)
            await self._unread.acquire()
            try:
                self._call.principal.require(MESSAGE_RULES["command"], "a command")
            except GatewayError as error:
                note_refusal(error)
                self._answer(p.CommandResult(id=command.id, status=status_of(error)))
                continue
            ordered = command.WhichOneof("command")
            if ordered in _AWAITED:
                # The result takes a round trip to LiveAvatar; other commands must not wait behind it.
                self._awaited_count += 1
                tasks.create_task(self._await(command), name=f"session-{self._session.id}/{ordered}")
            else:
                self._execute(command)
        self._half_closed = True
        # A result that is still to come, or a caller that reads nothing, must not keep the session alive.
        self._attachment.detach()
        self._attachment.wakeup.set()

    async def _await(self, command: p.SessionCommand) -> None:
        result = p.CommandResult(id=command.id, status=status_pb2.Status())
        try:
            match command.WhichOneof("command"):
                case "interrupt":
                    result.interrupt.CopyFrom(await self._interrupt(command.interrupt))
                case "pause":
                    pause = mapping.pause_of(command.pause, "command.pause")
                    result.pause.CopyFrom(mapping.pause_message(await self._session.pause(*pause)))
                case "send_data":
                    data = room_events.data_of(command.send_data, "command.send_data")
                    await self._session.send_data(command.id, data)
                case _:
                    answer = await self._session.continue_speech()
                    result.continue_speech.CopyFrom(mapping.continue_message(answer))
        except GatewayError as error:
            note_refusal(error)
            result.status.CopyFrom(status_of(error))
        finally:
            self._awaited_count -= 1
        self._answer(result)

    async def _interrupt(self, interrupt: p.Interrupt) -> p.InterruptResult:
        utterance_id = mapping.checked_id(interrupt.utterance_id, "command.interrupt.utterance_id", required=False)
        return mapping.interrupt_message(await self._session.interrupt(utterance_id))

    def _execute(self, command: p.SessionCommand) -> None:
        result = p.CommandResult(id=command.id, status=status_pb2.Status())
        try:
            match command.WhichOneof("command"):
                case "start_listening":
                    self._session.listen()
                case "stop_listening":
                    self._session.stop_listening()
                case "end":
                    with audited("session.end", session=self._session.id):
                        self._session.end(EndReason.CALLER_ENDED)
                case _:
                    raise InvalidField("a command must say what to do", field="command.command")
        except GatewayError as error:
            note_refusal(error)
            result.status.CopyFrom(status_of(error))
        self._answer(result)

    def _answer(self, result: p.CommandResult) -> None:
        self._results.append(result)
        self._attachment.wakeup.set()


def _queue_position(place: QueuePlace) -> p.AttachResponse:
    expected_s = place.expected_wait_s
    expected = None if expected_s is None else mapping.duration(expected_s)
    return p.AttachResponse(queue_position=p.QueuePosition(position=place.position, expected_wait=expected))
