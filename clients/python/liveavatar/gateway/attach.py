"""Attach stream of one session: sends commands, receives events, and is resumed when it breaks."""

import asyncio
import contextlib
import enum
import logging
import math
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Protocol, TypeAlias

import grpc

from liveavatar.gateway.backoff import Backoff
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
"""Rounds of all targets in which a session must open before the error is raised."""
RESUME_ANSWER_S = 10.0
"""Longest wait for the answer to a resumed stream. Lower retries sooner, higher suits slow networks."""
LAST_ANSWER_S = 1.0
"""The same when the time for resuming is over. Lower may miss the gateway's report of the session's end."""
_DRAINING = (
    "this gateway process is draining: it takes nothing new and ends its sessions; "
    "come back in 1 s to reach another process"
)
"""Message of an error that this library raises in place of the gateway."""
_NO_ANSWER = (None, "heartbeat")
_STABLE_S = 5.0
# A stream of this age counts as recovered; delays keep growing for a stream that breaks sooner.


class AttachPhase(enum.Enum):
    """State of the stream of a session, over any number of calls."""

    NEW = enum.auto()
    """Nothing was sent, so the gateway cannot have started a session."""
    CONNECTING = enum.auto()
    """The first message of a call was sent and is not answered yet."""
    ATTACHED = enum.auto()
    """The call was answered: it takes commands and brings events."""
    RENEWING = enum.auto()
    """The last call was left for one with a fresh credential, which is not answered yet."""
    CLOSING = enum.auto()
    """The session ended or is being detached: the stream is not resumed."""
    OVER = enum.auto()
    """The last call is over."""


PHASE_TRANSITIONS: Mapping[AttachPhase, frozenset[AttachPhase]] = {
    # The answer may be read before the task that wrote the first message runs again.
    AttachPhase.NEW: frozenset(
        {AttachPhase.CONNECTING, AttachPhase.ATTACHED, AttachPhase.CLOSING, AttachPhase.OVER}
    ),
    AttachPhase.CONNECTING: frozenset({AttachPhase.ATTACHED, AttachPhase.CLOSING, AttachPhase.OVER}),
    AttachPhase.ATTACHED: frozenset(
        {AttachPhase.CONNECTING, AttachPhase.RENEWING, AttachPhase.CLOSING, AttachPhase.OVER}
    ),
    AttachPhase.RENEWING: frozenset(
        {AttachPhase.CONNECTING, AttachPhase.ATTACHED, AttachPhase.CLOSING, AttachPhase.OVER}
    ),
    AttachPhase.CLOSING: frozenset({AttachPhase.OVER}),
    AttachPhase.OVER: frozenset(),
}
"""Phases that may follow each phase. `Attachment` skips a change that is not in the table."""


class AttachListener(Protocol):
    """Receiver of the stream's messages; called in the event loop, in order, once per event."""

    def on_opened(self, message: pb.SessionOpened) -> None:
        """Handle the answer to `open` or `resume`."""

    def on_event(self, message: pb.SessionEvent) -> None:
        """Handle an event of the session."""

    def on_go_away(self, message: pb.GoAway) -> None:
        """Handle the start of a drain, or the end of a credential that cannot be replaced."""

    def on_go_away_cancelled(self) -> None:
        """Handle the cancellation of a drain."""

    def on_events_lost(self, error: EventsCompacted) -> None:
        """Handle the loss of events that the gateway no longer keeps."""

    def on_resumed(self, gap_s: float, attempt_count: int, target: str, missed_events: int) -> None:
        """Handle a resumed stream, `gap_s` after its loss; called before `on_opened`."""


class Attachment:
    """Owner of the Attach stream. One task runs the stream, another writes; commands wait for their results.

    Invariant: each event reaches the listener once and in order, over any number of calls. A command without a
    result when a call breaks is sent again with the same id: repeating any command is harmless, since the gateway
    recognizes the id of one that sends data.
    """

    def __init__(
        self,
        connect: Callable[[str], Awaitable[AttachCall]],
        first: pb.AttachRequest,
        listener: AttachListener,
        condition: Condition,
        retries: Retries,
        *,
        resume_timeout: timedelta | None = None,
    ) -> None:
        """Prepare the stream.

        Args:
            connect: Starts an Attach call to a target.
            first: `open` or `resume`.
            listener: Receives what the stream brings.
            condition: Notified of each change.
            retries: Chooses the target and the delay of the next attempt.
            resume_timeout: How long to try to resume a lost session. Default: its `detach_grace`.
        """
        self._connect = connect
        self._first = first
        self._listener = listener
        self._condition = condition
        self._retries = retries
        self._resume_timeout = resume_timeout
        self._target = retries.route.current
        self._lost_mono_s = 0.0
        self._left_targets: set[str] = set()
        self._is_expiring = False
        self._opened: pb.SessionOpened | None = None
        self._handle = ""
        self._sequence = first.resume.after_sequence
        self._phase = AttachPhase.NEW
        self._call: AttachCall | None = None
        self._outbox: asyncio.Queue[pb.AttachRequest | None] | None = None
        self._pending: dict[str, tuple[pb.SessionCommand, asyncio.Future[pb.CommandResult]]] = {}

    @property
    def phase(self) -> AttachPhase:
        """State of the stream."""
        return self._phase

    @property
    def handle(self) -> str:
        """Secret that resumes the session on another stream."""
        return self._handle

    @property
    def creates(self) -> bool:
        """True when the gateway may have started a session for the first message."""
        return self._first.HasField("open") and self.phase not in (AttachPhase.NEW, AttachPhase.OVER)

    @property
    def grace(self) -> timedelta:
        """Time for which the session outlives a lost stream; zero before it is open."""
        return self._opened.detach_grace.ToTimedelta() if self._opened is not None else timedelta()

    @property
    def resume_timeout(self) -> timedelta:
        """Time for which to try to resume a lost stream."""
        return self.grace if self._resume_timeout is None else self._resume_timeout

    async def run(self) -> GatewayError | None:
        """Stay attached until the session ends, is taken over, or is unreachable for `resume_timeout`.

        Returns:
            None when the session ended or `detach` was called; otherwise the error that lost it to this process.
        """
        loop = asyncio.get_running_loop()
        try:
            while not self._closing():
                started_mono_s = loop.time()
                error = await self._run_calls()
                was_attached = self.phase is AttachPhase.ATTACHED
                if was_attached or self._renewing():
                    self._enter(AttachPhase.CONNECTING)
                if self._closing():
                    break
                now_mono_s = loop.time()
                if was_attached:
                    self._lost_mono_s = now_mono_s
                    if now_mono_s - started_mono_s >= _STABLE_S:
                        self._retries.stable()
                lost_s = math.inf if self._opened is None else now_mono_s - self._lost_mono_s
                delay_s = self._retries.next_delay_s(self._target, error, held=was_attached, lost_s=lost_s)
                if delay_s is None:
                    return error
                left_s = self.resume_timeout.total_seconds() - lost_s
                if self._opened is None:
                    if self._retries.round_count >= OPEN_ATTEMPTS:
                        return error
                elif left_s <= 0 and not was_attached:
                    # The gateway is asked once even without time to resume: it reports how the session ended.
                    return error if moved(error) else given_up(error, self.resume_timeout)
                else:
                    delay_s = min(delay_s, max(left_s, 0))
                _log.info("attach.retry delay_s=%.3f cause=%s", delay_s, error)
                with contextlib.suppress(TimeoutError):
                    async with timeout(delay_s):
                        await self._condition.until(self._closing)
        finally:
            self._enter(AttachPhase.OVER)
        return None

    def _closing(self) -> bool:
        return self._phase is AttachPhase.CLOSING

    def _renewing(self) -> bool:
        return self._phase is AttachPhase.RENEWING

    def _enter(self, phase: AttachPhase) -> None:
        if phase in PHASE_TRANSITIONS[self._phase]:
            self._phase = phase
            self._condition.notify()

    async def command(self, command: pb.SessionCommand) -> pb.CommandResult:
        """Send a command and wait for its result. Cancelling the wait does not take back the command.

        Raises:
            GatewayError: the gateway refused the command, or the session was lost before the result.
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
        """Half-close the stream: `run` returns when the gateway has answered. The session goes on.

        A stream that is being resumed is given up at once.
        """
        if self.phase is AttachPhase.ATTACHED and self._outbox is not None:
            self._outbox.put_nowait(None)
        elif self._call is not None:
            self._call.cancel()
        self._enter(AttachPhase.CLOSING)

    def reject_commands(self, error: GatewayError) -> None:
        """Fail all commands without a result: no more results will come."""
        for _, future in self._pending.values():
            if not future.done():
                future.set_exception(error)

    async def _run_calls(self) -> GatewayError:
        """Run a call, and those that follow it at once with a fresh credential; return the last error."""
        while True:
            was_renewing = self._renewing()
            error = await self._run_call()
            if was_renewing or not self._renewing():
                return error
            self._lost_mono_s = asyncio.get_running_loop().time()

    async def _run_call(self) -> GatewayError:
        """Run one call to its end; return the error that ended it."""
        self._target = self._retries.route.current
        try:
            call = await self._connect(self._target)
        except ClientError as refusal:
            return refusal
        if self._closing():
            call.cancel()
            return connection_lost("the session was detached before its stream was resumed")
        # Bound: one entry per command without a result.
        outbox: asyncio.Queue[pb.AttachRequest | None] = asyncio.Queue()
        outbox.put_nowait(self._opening())
        for command, _ in self._pending.values():
            outbox.put_nowait(pb.AttachRequest(command=command))
        self._outbox, self._call, self._is_expiring = outbox, call, False
        try:
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(self._write_all(call, outbox), name="attach/write")
                beating = tasks.create_task(self._keep_alive(call), name="attach/heartbeat")
                renewing = tasks.create_task(self._renew(call), name="attach/renew")
                error = await self._read_all(call)
                for task in (writing, beating, renewing):
                    task.cancel()
        finally:
            self._outbox = self._call = None
            call.cancel()
        return error

    def _opening(self) -> pb.AttachRequest:
        if self._opened is None:
            return self._first
        return pb.AttachRequest(
            resume=pb.ResumeSession(handle=self._handle, after_sequence=self._sequence, skip_compacted=True)
        )

    async def _write_all(self, call: AttachCall, outbox: asyncio.Queue[pb.AttachRequest | None]) -> None:
        """Write the requests of the outbox, one at a time; None half-closes the call."""
        while (request := await outbox.get()) is not None:
            if not await call.write(request):
                return
            if self.phase is AttachPhase.NEW:
                self._enter(AttachPhase.CONNECTING)
        await call.finish_writing()

    async def _keep_alive(self, call: AttachCall) -> None:
        """Send heartbeats at the interval that the gateway announced, if any."""
        await self._condition.until(lambda: self.phase is AttachPhase.ATTACHED)
        opened = self._opened
        if opened is not None and (interval_s := heartbeat_interval_s(opened.heartbeat_interval)) is not None:
            await call.keep_alive(pb.AttachRequest(heartbeat=stream_pb2.Heartbeat()), interval_s)

    async def _renew(self, call: AttachCall) -> None:
        """Leave a call whose credential ends, as soon as another credential is there."""
        await self._condition.until(lambda: self._is_expiring)
        if call.renew is None:
            return
        backoff = Backoff(first_s=1.0, longest_s=5.0)
        while True:
            if await call.renew():
                self._enter(AttachPhase.RENEWING)
                call.cancel()
                return
            await asyncio.sleep(backoff.next_delay_s())

    async def _read_all(self, call: AttachCall) -> GatewayError:
        try:
            async with timeout(self._answer_s()):
                # A heartbeat proves that the gateway lives, not that it has the session.
                while (message := await call.read()) is not None and message.WhichOneof("message") in _NO_ANSWER:
                    pass
            while message is not None:
                self._take(message)
                if _drains(message) and self._must_move():
                    return Draining(_DRAINING, code=grpc.StatusCode.UNAVAILABLE)
                message = await call.read()
        except GatewayError as error:
            return error
        except TimeoutError:
            return connection_lost("the gateway did not answer the resumed stream")
        return connection_lost("the gateway closed the stream of a session that has not ended")

    def _answer_s(self) -> float | None:
        """Return the longest wait for the answer: for a resumed stream, the time left for resuming.

        At least `LAST_ANSWER_S`, so that the gateway can report how the session ended.
        """
        if self._opened is None:
            # The caller bounds the wait, which may include the wait for a free permit.
            return None
        left_s = self.resume_timeout.total_seconds() - (asyncio.get_running_loop().time() - self._lost_mono_s)
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
                self._take_go_away(message.go_away)
            case "go_away_cancelled":
                self._left_targets.discard(self._target)
                self._listener.on_go_away_cancelled()
            case "heartbeat":
                return
            case "queue_position":
                _log.info("attach.waiting position=%d", message.queue_position.position)
                return
            case None:
                _log.debug("attach.unknown_message")
        self._condition.notify()

    def _take_go_away(self, go_away: pb.GoAway) -> None:
        self._handle = go_away.handle or self._handle
        if go_away.reason == pb.GO_AWAY_REASON_CREDENTIAL:
            self._is_expiring = True
            if self._call is not None and self._call.renew is not None:
                return
        self._listener.on_go_away(go_away)

    def _take_opened(self, opened: pb.SessionOpened) -> None:
        if self._opened is not None:
            gap_s = asyncio.get_running_loop().time() - self._lost_mono_s
            missed = max(0, opened.compacted_through - self._sequence)
            if missed or not self._renewing():
                self._listener.on_resumed(gap_s, self._retries.attempt_count, self._target, missed)
        self._retries.reached()
        self._opened = opened
        self._handle = opened.handle
        self._enter(AttachPhase.ATTACHED)
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
            self._enter(AttachPhase.CLOSING)
            if self._outbox is not None:
                # The gateway closes its side once this side is closed, or half a second later.
                self._outbox.put_nowait(None)
        self._listener.on_event(event)

    def _must_move(self) -> bool:
        """Return True to resume at another target at once.

        A draining target is left only once, until it cancels its drain: no other target may be able to serve.
        """
        if len(self._retries.route.targets) == 1 or self._target in self._left_targets:
            return False
        self._left_targets.add(self._target)
        return True


def _drains(message: pb.AttachResponse) -> bool:
    return message.HasField("go_away") and message.go_away.reason != pb.GO_AWAY_REASON_CREDENTIAL


def _compacted(after_sequence: int, through: int) -> EventsCompacted:
    return EventsCompacted(
        f"events {after_sequence + 1} to {through} happened while no stream was attached, and are not kept",
        code=grpc.StatusCode.OUT_OF_RANGE,
        metadata={"after_sequence": str(after_sequence), "oldest_sequence": str(through + 1)},
    )
