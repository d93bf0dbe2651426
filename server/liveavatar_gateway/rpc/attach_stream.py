"""`SessionService.Attach`: commands up, events down, one stream at a time per session."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

import grpc
from google.rpc import status_pb2

from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar.gateway.v1 import stream_pb2
from liveavatar_gateway.core.errors import GatewayError, HeaderRequired, InvalidField, UnexpectedMessage
from liveavatar_gateway.core.events import Ended
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.rpc import mapping as convert
from liveavatar_gateway.rpc.config import RpcConfig, audio_limits
from liveavatar_gateway.rpc.errors import status_of
from liveavatar_gateway.rpc.heartbeat import Silence
from liveavatar_gateway.rpc.stream_reader import each, first, following, part
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.session import SessionActor

_Context = grpc.aio.ServicerContext[Any, Any]
_MAX_UNANSWERED: Final = 64
"""Commands whose results wait to be read; above that no more are read."""


class AttachStream:
    """One `Attach` stream. `open` binds it to a session, `run` serves it until either side is done."""

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
        log = session.core.log
        lost = skip_compacted and 0 <= after_sequence < log.compacted_through
        self._lost_through = log.compacted_through if lost else 0
        self._session = session
        self._config = config
        self._requests = requests
        self._context = context
        self._told = self._lost_through if lost else after_sequence
        # Refuses here, before the stream takes the session over from one that is fine.
        log.after(self._told)
        self._results: list[p.CommandResult] = []
        # A caller that sends commands and reads no results is not read any more itself.
        self._unanswered = asyncio.Semaphore(_MAX_UNANSWERED)
        self._interrupt_count = 0
        self._detached = False
        self._silence = Silence(config.heartbeat_s)
        self._told_to_go_by: datetime | None = None
        self._hold = session.holds.attach()
        self._handle = session.issue_handle()

    @classmethod
    async def open(
        cls, directory: Directory, config: RpcConfig, requests: AsyncIterator[p.AttachRequest], context: _Context
    ) -> "AttachStream":
        """Read the first message and do what it says.

        Raises:
            GatewayError: it was none, or what it asked for was refused.
        """
        message = await first(following(requests), config.first_message_timeout_s)
        kind = message.WhichOneof("message") if message is not None else None
        if message is None or kind not in ("open", "resume"):
            raise HeaderRequired(
                f"the first message must be open or resume, got {kind or 'nothing'}",
                field="message",
                got=kind or "",
            )
        if kind == "resume":
            session = await directory.by_handle(message.resume.handle, field="resume.handle")
            return cls(
                session,
                config,
                requests,
                context,
                after_sequence=message.resume.after_sequence,
                skip_compacted=message.resume.skip_compacted,
            )
        spec = convert.spec_of(
            message.open.spec,
            field="open.spec",
            default_detach_grace_s=config.detach_grace_s,
            own_rooms=config.own_rooms,
        )
        request_id = convert.checked_id(message.open.request_id, "open.request_id", required=False)
        session = await directory.open(spec, request_id, wait_s=convert.patience_s(context.time_remaining()))
        try:
            await session.room()
        except asyncio.CancelledError:
            if not request_id:
                session.end(EndReason.CALLER_LOST)
            raise
        # The same request may have made the session long ago.
        return cls(session, config, requests, context, after_sequence=0, skip_compacted=True)

    async def run(self) -> None:
        """Serve until the caller detaches, another stream takes over, or the session has ended.

        A caller detaches by closing its side: from then on the stream does not hold the session. What that caller
        has asked for is still answered, the end of the session included.
        """
        try:
            await self._write_one(p.AttachResponse(opened=self._opened()))
            async with asyncio.TaskGroup() as tasks:
                name = f"session-{self._session.id}/attach"
                reader = tasks.create_task(self._read(tasks), name=f"{name}-read")
                await self._write()
                await part(reader)
                reader.cancel()
        finally:
            self._hold.release()

    def _opened(self) -> p.SessionOpened:
        session = self._session
        return p.SessionOpened(
            session=convert.session_message(session),
            room=convert.room_message(session),
            handle=self._handle,
            detach_grace=convert.duration(session.spec.detach_grace_s),
            audio_limits=audio_limits(self._config),
            compacted_through=self._lost_through,
            heartbeat_interval=self._silence.announced,
        )

    # --- down

    async def _write(self) -> None:
        while True:
            # Looked at before the responses are: what happens while they are written is for the next round.
            is_last_round = self._owes_nothing()
            for response in self._due():
                await self._write_one(response)
                if response.HasField("command_result"):
                    self._unanswered.release()
            if self._hold.superseded is not None:
                raise self._hold.superseded
            if is_last_round or self._all_told():
                return
            await self._hold.signal.wait(self._silence.left_s)
            if self._silence.is_too_long:
                await self._write_one(p.AttachResponse(heartbeat=stream_pb2.Heartbeat()))

    async def _write_one(self, response: p.AttachResponse) -> None:
        await self._context.write(response)
        self._silence.broken()

    def _owes_nothing(self) -> bool:
        """Return whether nobody waits for anything more: the caller detached, and its commands are done."""
        if not self._detached or self._interrupt_count:
            return False
        return not self._session.core.over

    def _due(self) -> list[p.AttachResponse]:
        responses = []
        results, self._results = self._results, []
        entries = self._session.core.log.after(self._told)
        if self._interrupt_count and entries and isinstance(entries[-1].happening, Ended):
            # Nothing follows the end of the session, so it waits for the answers that are still to come.
            entries.pop()
        for entry in entries:
            self._told = entry.sequence
            responses.append(p.AttachResponse(event=convert.event_message(entry, self._session)))
        last = responses.pop() if entries and isinstance(entries[-1].happening, Ended) else None
        responses += [p.AttachResponse(command_result=result) for result in results]
        deadline = self._session.draining_until
        if deadline != self._told_to_go_by:
            self._told_to_go_by = deadline
            responses.append(self._go_or_stay(deadline))
        return [*responses, last] if last is not None else responses

    def _go_or_stay(self, deadline: datetime | None) -> p.AttachResponse:
        if deadline is None:
            return p.AttachResponse(go_away_cancelled=p.GoAwayCancelled())
        go_away = p.GoAway(deadline=convert.timestamp(deadline), handle=self._handle)
        return p.AttachResponse(go_away=go_away)

    def _all_told(self) -> bool:
        return self._session.finished.is_set() and self._told == self._session.core.log.last_sequence

    # --- up

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        async for request in each(self._requests):
            kind = request.WhichOneof("message")
            if kind == "heartbeat":
                continue
            if kind != "command":
                got = kind or "nothing"
                raise UnexpectedMessage(f"after the first message only commands may come, got {got}", field=got)
            command = request.command
            convert.checked_id(command.id, "command.id", required=True)
            await self._unanswered.acquire()
            if command.WhichOneof("command") == "interrupt":
                # Its answer takes a round trip to LiveAvatar; other commands must not wait behind it.
                self._interrupt_count += 1
                tasks.create_task(self._answer_interrupt(command), name=f"session-{self._session.id}/interrupt")
            else:
                await self._answer(command)
        self._detached = True
        # An answer that is still to come, or a caller that reads nothing, must not keep the session alive.
        self._hold.detach()
        self._hold.signal.set()

    async def _answer_interrupt(self, command: p.SessionCommand) -> None:
        try:
            await self._answer(command)
        finally:
            self._interrupt_count -= 1
            self._hold.signal.set()

    async def _answer(self, command: p.SessionCommand) -> None:
        result = p.CommandResult(id=command.id, status=status_pb2.Status())
        try:
            await self._carry_out(command, result)
        except GatewayError as error:
            result.status.CopyFrom(status_of(error))
        self._results.append(result)
        self._hold.signal.set()

    async def _carry_out(self, command: p.SessionCommand, result: p.CommandResult) -> None:
        session = self._session
        match command.WhichOneof("command"):
            case "interrupt":
                utterance_id = convert.checked_id(
                    command.interrupt.utterance_id, "command.interrupt.utterance_id", required=False
                )
                result.interrupt.CopyFrom(convert.interrupt_message(await session.interrupt(utterance_id)))
            case "start_listening":
                session.listen()
            case "stop_listening":
                session.stop_listening()
            case "end":
                session.end(EndReason.CALLER_ENDED)
            case _:
                raise InvalidField("a command must say what to do", field="command.command")
