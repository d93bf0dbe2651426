"""The Attach stream of one session: commands up, events down, resumed when it breaks."""

import asyncio
import enum
import logging
import math
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol, TypeAlias

import grpc

from liveavatar.gateway.channel import Stream, heartbeat_interval_s, moved
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.errors import (
    ClientError,
    Draining,
    EventsCompacted,
    GatewayError,
)
from liveavatar.gateway.refusals import connection_lost, from_status, given_up
from liveavatar.gateway.targets import Retries
from liveavatar.gateway.timeouts import timeout
from liveavatar.gateway.v1 import session_service_pb2 as pb
from liveavatar.gateway.v1 import stream_pb2

_log = logging.getLogger(__name__)

AttachCall: TypeAlias = Stream[pb.AttachRequest, pb.AttachResponse]

OPEN_ATTEMPTS = 4
"""Tries to open a session before the caller hears that the gateway cannot be reached."""
RESUME_ANSWER_S = 10.0
"""How long a resumed stream may take to answer; lower tries again sooner, higher suits slow networks."""
LAST_ANSWER_S = 1.0
"""How long it may take when the time for resuming is over. Lower misses the word of how the session ended."""
_DRAINING = (
    "this gateway process is draining: it takes nothing new and ends its sessions; "
    "come back in 1 s to reach another process"
)
"""Message of an error made here, in the words of the gateway's own."""
_NO_ANSWER = (None, "heartbeat")
_STABLE_S = 5.0
# A stream that lived this long has recovered; one that breaks at once goes on with growing delays.


class AttachPhase(enum.Enum):
    """Where the stream is."""

    CONNECTING = enum.auto()
    """Not answered yet, for the first time or again."""
    ATTACHED = enum.auto()
    """Answered: commands are taken, events come."""
    OVER = enum.auto()
    """It will not come back."""


class AttachListener(Protocol):
    """Who is told what the stream brings; called in the event loop, in order, never twice for one event."""

    def on_opened(self, message: pb.SessionOpened) -> None:
        """The stream holds the session, for the first time or again."""

    def on_event(self, message: pb.SessionEvent) -> None:
        """Something happened in the session."""

    def on_go_away(self, message: pb.GoAway) -> None:
        """The gateway process drains."""

    def on_go_away_cancelled(self) -> None:
        """The gateway does not shut down after all."""

    def on_events_lost(self, error: EventsCompacted) -> None:
        """Events were missed while the stream was away, and the gateway has let go of them."""

    def on_resumed(self, gap_s: float, attempt_count: int, target: str, missed_events: int) -> None:
        """The stream was lost for `gap_s` and is there again; comes before `on_opened`."""


class Attachment:
    """Owns the Attach stream. One task runs it, one writes to it; commands wait for their results.

    Invariant: each event reaches the listener once and in order, over any number of breaks. A command that has
    no result when the stream breaks is sent again with the same id: all four may be repeated by the one who
    holds the session.
    """

    def __init__(
        self,
        connect: Callable[[str], AttachCall],
        first: pb.AttachRequest,
        listener: AttachListener,
        changes: Condition,
        retries: Retries,
        *,
        patience: timedelta | None = None,
    ) -> None:
        """Prepare the stream.

        Args:
            connect: Starts an Attach call to a target.
            first: `open` or `resume`.
            listener: Who is told what comes.
            changes: Notified whenever something here changed.
            retries: Which target to try next, and when.
            patience: How long a lost session is tried to be resumed. Default: its `detach_grace`.
        """
        self._connect = connect
        self._first = first
        self._listener = listener
        self._changes = changes
        self._retries = retries
        self._patience = patience
        self._target = retries.route.current
        self._lost_mono_s = 0.0
        self._left: set[str] = set()
        self._opened: pb.SessionOpened | None = None
        self._handle = ""
        self._sequence = first.resume.after_sequence
        self._ended = False
        self._detaching = False
        self._outbox: asyncio.Queue[pb.AttachRequest | None] | None = None
        self._pending: dict[str, tuple[pb.SessionCommand, asyncio.Future[pb.CommandResult]]] = {}
        self.phase = AttachPhase.CONNECTING
        self._asked = False

    @property
    def handle(self) -> str:
        """Resumes the session on another stream."""
        return self._handle

    @property
    def creates(self) -> bool:
        """Whether the first message may have made the gateway start a session."""
        return self._asked and self._first.HasField("open")

    @property
    def grace(self) -> timedelta:
        """How long the session outlives a lost stream; zero before it was opened."""
        return self._opened.detach_grace.ToTimedelta() if self._opened is not None else timedelta()

    @property
    def patience(self) -> timedelta:
        """How long a lost stream is tried to be resumed."""
        return self.grace if self._patience is None else self._patience

    async def run(self) -> GatewayError | None:
        """Hold the session until it ends, is taken over, or cannot be reached for `patience`.

        Returns:
            None when the session ended or `detach` was called; otherwise why it was lost to this process.
        """
        loop = asyncio.get_running_loop()
        try:
            while True:
                began_mono_s = loop.time()
                error = await self._connection()
                held, self.phase = self.phase is AttachPhase.ATTACHED, AttachPhase.CONNECTING
                self._changes.notify()
                if self._ended or self._detaching:
                    return None
                now_mono_s = loop.time()
                if held:
                    self._lost_mono_s = now_mono_s
                    if now_mono_s - began_mono_s >= _STABLE_S:
                        self._retries.stable()
                lost_s = math.inf if self._opened is None else now_mono_s - self._lost_mono_s
                delay_s = self._retries.next_delay_s(self._target, error, held=held, lost_s=lost_s)
                if delay_s is None:
                    return error
                left_s = self.patience.total_seconds() - lost_s
                if self._opened is None:
                    if self._retries.round_count >= OPEN_ATTEMPTS:
                        return error
                elif left_s <= 0 and not held:
                    # Also with no patience at all the gateway is asked once: it tells how the session ended.
                    return error if moved(error) else given_up(error, self.patience)
                else:
                    delay_s = min(delay_s, max(left_s, 0))
                _log.info("attach.retry delay_s=%.3f cause=%s", delay_s, error)
                await asyncio.sleep(delay_s)
        finally:
            self.phase = AttachPhase.OVER
            self._changes.notify()

    async def command(self, command: pb.SessionCommand) -> pb.CommandResult:
        """Send a command and wait for what became of it. Cancelling the wait does not take back what was sent.

        Raises:
            GatewayError: it was refused, or the session was lost before the answer.
        """
        command.id = uuid.uuid4().hex
        future: asyncio.Future[pb.CommandResult] = asyncio.get_running_loop().create_future()
        self._pending[command.id] = (command, future)
        if self._outbox is not None:
            self._outbox.put_nowait(pb.AttachRequest(command=command))
        try:
            result = await future
        finally:
            self._pending.pop(command.id, None)
        if result.status.code:
            raise from_status(result.status)
        return result

    def detach(self) -> None:
        """Half-close the stream: `run` returns when the gateway has seen it. The session lives on."""
        self._detaching = True
        if self._outbox is not None:
            self._outbox.put_nowait(None)

    def reject_commands(self, error: GatewayError) -> None:
        """Answer all commands that still wait: nothing more will come."""
        for _, future in self._pending.values():
            if not future.done():
                future.set_exception(error)

    async def _connection(self) -> GatewayError:
        """One stream, from its first message to its end, however it comes; says why it ended."""
        self._target = self._retries.route.current
        try:
            call = self._connect(self._target)
        except ClientError as refusal:
            return refusal
        # Bound: one entry per command that is being waited for.
        outbox: asyncio.Queue[pb.AttachRequest | None] = asyncio.Queue()
        outbox.put_nowait(self._opening())
        for command, _ in self._pending.values():
            outbox.put_nowait(pb.AttachRequest(command=command))
        self._outbox = outbox
        try:
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(self._write_all(call, outbox), name="attach/write")
                beating = tasks.create_task(self._keep_alive(call), name="attach/heartbeat")
                error = await self._read_all(call)
                writing.cancel()
                beating.cancel()
        finally:
            self._outbox = None
            call.cancel()
        return error

    def _opening(self) -> pb.AttachRequest:
        if self._opened is None:
            return self._first
        return pb.AttachRequest(
            resume=pb.ResumeSession(handle=self._handle, after_sequence=self._sequence, skip_compacted=True)
        )

    async def _write_all(self, call: AttachCall, outbox: asyncio.Queue[pb.AttachRequest | None]) -> None:
        """Write what is put in, one at a time; None half-closes."""
        while (request := await outbox.get()) is not None:
            if not await call.write(request):
                return
            self._asked = True
        await call.finish_writing()

    async def _keep_alive(self, call: AttachCall) -> None:
        """Send heartbeats as often as the gateway announced, if it did."""
        await self._changes.until(lambda: self.phase is AttachPhase.ATTACHED)
        opened = self._opened
        if opened is not None and (interval_s := heartbeat_interval_s(opened.heartbeat_interval)) is not None:
            await call.keep_alive(pb.AttachRequest(heartbeat=stream_pb2.Heartbeat()), interval_s)

    async def _read_all(self, call: AttachCall) -> GatewayError:
        try:
            async with timeout(self._answer_s()):
                # A heartbeat says that the gateway is there, not that it has the session.
                while (message := await call.read()) is not None and message.WhichOneof("message") in _NO_ANSWER:
                    pass
            while message is not None:
                self._take(message)
                if message.HasField("go_away") and self._moves():
                    return Draining(_DRAINING, code=grpc.StatusCode.UNAVAILABLE)
                message = await call.read()
        except GatewayError as error:
            return error
        except TimeoutError:
            return connection_lost("the gateway did not answer the resumed stream")
        return connection_lost("the gateway closed the stream of a session that has not ended")

    def _answer_s(self) -> float | None:
        """How long the stream may take to answer: one that is resumed no longer than is left of the patience.

        But for a moment, in which the gateway may say how the session has ended.
        """
        if self._opened is None:
            # The caller bounds the wait, which may be in line for a free place.
            return None
        left_s = self.patience.total_seconds() - (asyncio.get_running_loop().time() - self._lost_mono_s)
        return min(max(left_s, LAST_ANSWER_S), RESUME_ANSWER_S)

    def _take(self, message: pb.AttachResponse) -> None:
        match message.WhichOneof("message"):
            case "opened":
                self._take_opened(message.opened)
            case "event":
                self._take_event(message.event)
            case "command_result":
                _, future = self._pending.get(message.command_result.id, (None, None))
                if future is not None and not future.done():
                    future.set_result(message.command_result)
            case "go_away":
                self._handle = message.go_away.handle or self._handle
                self._listener.on_go_away(message.go_away)
            case "go_away_cancelled":
                self._left.discard(self._target)
                self._listener.on_go_away_cancelled()
            case "heartbeat":
                return
            case None:
                _log.debug("attach.unknown_message")
        self._changes.notify()

    def _take_opened(self, opened: pb.SessionOpened) -> None:
        if self._opened is not None:
            gap_s = asyncio.get_running_loop().time() - self._lost_mono_s
            missed = max(0, opened.compacted_through - self._sequence)
            self._listener.on_resumed(gap_s, self._retries.attempt_count, self._target, missed)
        self._retries.reached()
        self._opened = opened
        self._handle = opened.handle
        self.phase = AttachPhase.ATTACHED
        self._listener.on_opened(opened)
        if opened.compacted_through > self._sequence:
            self._listener.on_events_lost(_compacted(self._sequence, opened.compacted_through))
            self._sequence = opened.compacted_through

    def _take_event(self, event: pb.SessionEvent) -> None:
        if event.sequence <= self._sequence:
            return
        if event.sequence != self._sequence + 1:
            _log.warning("attach.hole after=%d got=%d", self._sequence, event.sequence)
        self._sequence = event.sequence
        if event.WhichOneof("event") == "ended":
            self._ended = True
            if self._outbox is not None:
                # The gateway closes its side when this one has, or half a second later.
                self._outbox.put_nowait(None)
        self._listener.on_event(event)

    def _moves(self) -> bool:
        """Whether to resume elsewhere at once.

        A target is left so once, until it says that it stays: it may be the only one that can serve.
        """
        if len(self._retries.route.targets) == 1 or self._target in self._left:
            return False
        self._left.add(self._target)
        return True


def _compacted(after_sequence: int, through: int) -> EventsCompacted:
    return EventsCompacted(
        f"events {after_sequence + 1} to {through} came while no stream was there, and are not kept",
        code=grpc.StatusCode.OUT_OF_RANGE,
        metadata={"after_sequence": str(after_sequence), "oldest_sequence": str(through + 1)},
    )
