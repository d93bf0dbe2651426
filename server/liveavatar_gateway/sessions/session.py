"""One living session: drives the state machine of `core` with a socket, a clock and tasks."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.errors import (
    Draining,
    GatewayError,
    InternalError,
    OwnerMoved,
    SessionEnded,
)
from liveavatar_gateway.core.events import SessionEvent, UtteranceEnded
from liveavatar_gateway.core.outputs import Answer, Emit, Output
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.speech.utterance import AudioInput, Utterance
from liveavatar_gateway.core.states import EndReason, Outcome, SessionState
from liveavatar_gateway.registry.base import Fence, HandleHash, Payload
from liveavatar_gateway.rooms.access import LiveKitAccess
from liveavatar_gateway.sessions.attachments import Attachments
from liveavatar_gateway.sessions.avatars import Avatars
from liveavatar_gateway.sessions.bulkhead import bulkhead
from liveavatar_gateway.sessions.driver import ReconnectConfig, SessionDriver
from liveavatar_gateway.sessions.handles import Handles
from liveavatar_gateway.sessions.interrupt_waiters import InterruptWaiters
from liveavatar_gateway.sessions.journal import JournalWriter
from liveavatar_gateway.sessions.orphaned_utterances import OrphanedUtterances
from liveavatar_gateway.sessions.record import Record, Usage, kept_error
from liveavatar_gateway.sessions.restore import RestoredSession
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.sessions.standby import StandbyManager
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.model import Started
from liveavatar_gateway.upstream.pool import Pool
from liveavatar_gateway.upstream.session import UpstreamSession

_log = structlog.get_logger(__name__)
_ENDED_BY_CALLER: Final = frozenset({EndReason.CALLER_ENDED, EndReason.CALLER_LOST})
"""Ends after which a caller expects to have been heard whole."""


def new_id() -> str:
    """Return an id that nothing else has."""
    return str(uuid.uuid4())


def utc_now() -> datetime:
    """Return the time of the wall clock."""
    return datetime.now(UTC)


def _unheard(session_id: str) -> None:
    """What happens to news of a session that no directory has."""


def _was_spoken_out(happening: SessionEvent) -> bool:
    """Say whether speech has just come to its own end, which a cut and the session's end are not."""
    if not isinstance(happening, UtteranceEnded) or not happening.played_s:
        return False
    return happening.outcome is not Outcome.INTERRUPTED and not isinstance(happening.error, SessionEnded)


class SessionActor:
    """A session from its creation to its last event.

    `run` is its one task and its only writer upstream; all other methods are called from the same loop and only
    change the state machine and wake that task. Whatever ends `run`, the session is stopped upstream.
    """

    def __init__(
        self,
        spec: SessionSpec,
        config: SessionConfig,
        pool: Pool,
        books: JournalWriter,
        metrics: Metrics,
        *,
        reconnect: ReconnectConfig | None = None,
        request_id: str = "",
        keep_s: float = 0.0,
        left: RestoredSession | None = None,
    ) -> None:
        """Prepare; `run` lives it.

        Args:
            spec: What the caller asked for.
            config: Deadlines.
            pool: Where sessions at LiveAvatar come from.
            books: What outlives this process.
            metrics: What is counted.
            reconnect: How a lost command socket is opened again.
            request_id: The caller's name for its wish, if it has one.
            keep_s: How long the final record is kept.
            left: What another process left of it; None for a new one.
        """
        self.spec = spec
        self.request_id = request_id
        if left is None:
            self.core = Session(new_id(), config, new_id=new_id, utc_now=utc_now, auto_rotate=spec.auto_rotate)
        else:
            self.core = left.core
        hashes = () if left is None else left.handles
        self.handles = Handles(self.core.id, keep_s=spec.detach_grace_s, hashes=hashes)
        self.draining_until: datetime | None = None
        """Until when it can stay, once its callers are to go; None otherwise."""
        self.takes_speech = True
        """Whether utterances may begin."""
        self.finished = asyncio.Event()
        if self.core.state is SessionState.ENDED:
            self.finished.set()
        self.on_news: Callable[[str], None] = _unheard
        """Called with its id when its log has grown. It must neither raise nor wait."""
        self._pool = pool
        self._metrics = metrics
        self._meter = metrics.session_meter()
        self._driver = Wakeup()
        self._ledger = books.ledger(self, left.fence if left is not None else None)
        self.avatars = Avatars(spec, self.core, pool, self._ledger, left)
        """The one that speaks, and those before it."""
        self.holds = Attachments(
            self.core.id, grace_s=spec.detach_grace_s, abandon=self._abandon, changed=self._ledger.change
        )
        """Who holds it."""
        self._left_open = OrphanedUtterances(grace_s=spec.detach_grace_s, give_up=self.cancel)
        self._rotations = StandbyManager(
            self.core,
            pool,
            start=self.avatars.start_next,
            changed=self._driver.set,
            new_id=new_id,
            cost=self.avatars.retire,
        )
        self.drive = SessionDriver(
            self.core,
            reconnect or ReconnectConfig(),
            metrics,
            wake=self._driver,
            publish=self._publish,
            rotations=self._rotations,
        )
        self.drive.succeeded = self.avatars.succeed
        self.drive.renew = self._renew if spec.livekit_room is not None else None
        self._tickets = InterruptWaiters()
        self.end_message: Any = None
        """Message of the last event, once it was made: it is the same each time it is sent."""
        self._spoken_until_s: float | None = None
        self._stop_from_s: float | None = None
        self._creation: asyncio.Task[UpstreamSession] | None = None
        self._keep_s = keep_s
        self._left = left
        self.drive.progress = self._ledger.note_utterance
        self.drive.confirm = self._ledger.confirm_lease
        self._task: asyncio.Task[object] | None = None
        self.lost_to: OwnerMoved | None = None
        """Set when another process has taken it over."""

    # --- who holds it

    @property
    def id(self) -> str:
        """The gateway's id of the session."""
        return self.core.id

    @property
    def last_command_at_s(self) -> float:
        """Monotonic time of the last command upstream."""
        return self.core.last_command_at_s

    def issue_handle(self, *, beside: bool = False) -> str:
        """Give out a handle that resumes the session; see `Handles.issue`."""
        handle = self.handles.issue(time.monotonic(), beside=beside)
        self._ledger.note_handles()
        return handle

    def _abandon(self) -> None:
        if self.core.over:
            return
        _log.info("session.abandoned", session=self.id, grace_s=self.spec.detach_grace_s)
        self.end(EndReason.CALLER_LOST)

    # --- what callers do

    def begin(self, utterance_id: str, intake: AudioInput, *, idle_timeout_s: float | None = None) -> Utterance:
        """Open an utterance. One that was left open is cancelled: its caller goes on with something else.

        Args:
            utterance_id: The caller's name for it; empty to have one made.
            intake: How its audio is read.
            idle_timeout_s: Longest time without audio before it is sealed; None for no limit.

        Raises:
            Draining, SessionEnded, UtteranceIdReused, CapacityExhausted: it was not opened.
        """
        utterance = self._begin(utterance_id, intake, idle_timeout_s)
        self._left_open.give_up_all()
        return utterance

    def _begin(self, utterance_id: str, intake: AudioInput, idle_timeout_s: float | None) -> Utterance:
        if not self.takes_speech and not self.core.over:
            raise Draining
        utterance = self.core.begin(utterance_id, intake)
        self._meter.utterance_begun(utterance.id)
        self._watch_idle(utterance, idle_timeout_s)
        return utterance

    def _watch_idle(self, utterance: Utterance, idle_timeout_s: float | None) -> None:
        """Let the idle limit of an utterance run from now on; without a new one, that which it has."""
        if idle_timeout_s is not None:
            utterance.idle_timeout_s = idle_timeout_s
        utterance.idle_since_s = time.monotonic()
        if utterance.idle_timeout_s is not None:
            self._driver.set()

    def resume(
        self, utterance_id: str, intake: AudioInput, *, idle_timeout_s: float | None = None
    ) -> Utterance | UtteranceEnded:
        """Go on with an utterance of an earlier stream; one that is not known is opened. For the rest see `begin`.

        Raises:
            InvalidField: it was begun in another format.
            Draining, SessionEnded, CapacityExhausted: it is not known, and was not opened.
        """
        known = self.core.speech.take_up(utterance_id, intake)
        if known is None:
            return self._begin(utterance_id, intake, idle_timeout_s)
        if isinstance(known, Utterance):
            self._left_open.take(known)
            self._watch_idle(known, idle_timeout_s)
        return known

    def leave_open(self, utterance: Utterance) -> None:
        """Wait for another stream to go on with an utterance, for the detach grace; then it is cancelled."""
        if utterance.sealed or utterance.outcome is not None:
            return
        _log.info("utterance.left_open", session=self.id, received_bytes=utterance.received)
        # Nobody can bring audio now: the grace counts instead.
        utterance.idle_since_s = None
        self._left_open.add(utterance)

    def receive(self, utterance: Utterance, offset: int | None, audio: bytes) -> None:
        """Take a chunk. This is the hot path: an append, and a wake-up when a packet is due.

        Raises:
            CallerError, CreditExceeded: nothing was taken.
        """
        if utterance.sealed:
            self.drop_stale(len(audio))
        elif self.core.speech.receive(utterance, offset, audio, time.monotonic()):
            self._driver.set()

    def drop_stale(self, size_bytes: int) -> None:
        """Count audio that names an utterance which takes none any more."""
        self.core.speech.drop_stale(size_bytes)
        self._metrics.stale_audio(size_bytes)

    def seal(self, utterance: Utterance, failure: GatewayError | None = None) -> None:
        """Take no more audio for an utterance; it is spoken to its end."""
        self.core.seal(utterance, failure)
        self._driver.set()

    def cancel(self, utterance: Utterance) -> None:
        """Drop an utterance, or cut it if it is being spoken."""
        self.core.cancel(utterance)
        self._ledger.note_cut(self.core.speech.active)
        self._driver.set()

    async def interrupt(self, utterance_id: str) -> Sequence[UtteranceEnded]:
        """Interrupt, and return the ended utterances once LiveAvatar has done it or not answered in time.

        Raises:
            SessionEnded, UtteranceNotFound: nothing was cut.
        """
        interrupt_id = self.core.interrupt(utterance_id)
        self._ledger.note_cut(self.core.speech.active)
        answer = self._tickets.open(interrupt_id)
        self._driver.set()
        self._report()
        asked_s = time.monotonic()
        ended = await answer
        self._metrics.interrupted(time.monotonic() - asked_s)
        return ended

    def listen(self) -> None:
        """Take the attentive pose.

        Raises:
            SessionEnded: it cannot.
        """
        self.core.listen()
        self._driver.set()

    def stop_listening(self) -> None:
        """Go back to the idle pose.

        Raises:
            SessionEnded: it cannot.
        """
        self.core.stop_listening()
        self._driver.set()

    def keep_alive(self) -> None:
        """Send a keep-alive."""
        self.core.keep_alive()
        self._driver.set()

    def go_away(self, deadline: datetime, *, takes_speech: bool) -> None:
        """Announce that this process drains: the session ends by `deadline`.

        Args:
            deadline: When it is ended at the latest.
            takes_speech: Whether utterances may begin until then.
        """
        self.draining_until = deadline
        self.takes_speech = takes_speech
        self.holds.wake()

    def cancel_go_away(self) -> None:
        """Take the announcement back."""
        self.draining_until = None
        self.takes_speech = True
        self.holds.wake()

    def end(self, reason: EndReason, *, error: GatewayError | None = None) -> None:
        """Begin to end; `finished` is set when LiveAvatar has stopped it.

        When a caller ends it right after speech, LiveAvatar is told a moment later: what it reports as spoken is
        still on its way into the room. An end in the middle of speech cuts at once.
        """
        self._report()
        is_silent = not self.core.speech.active
        if not self.core.over and reason in _ENDED_BY_CALLER and is_silent and self._spoken_until_s is not None:
            self._stop_from_s = self._spoken_until_s + self.core.config.end_tail_s
        self.core.end(reason, time.monotonic(), error=error)
        if self._creation is not None:
            self._creation.cancel()
        self._driver.set()
        self._report()

    def end_for(self, reason: EndReason) -> None:
        """Begin to end for somebody who asked another process; for the books."""
        self.end(reason)

    async def room(self) -> Started:
        """Wait until the room can be joined.

        Raises:
            GatewayError: the session ended before, and why.
        """
        await self._until(lambda: self.avatars.started is not None)
        assert self.avatars.started is not None  # noqa: S101 - `_until` returns only then
        return self.avatars.started

    def viewer_access(self) -> LiveKitAccess | None:
        """Return what a browser needs to join, see `Avatars.viewer_access`."""
        return self.avatars.viewer_access()

    async def ready(self) -> None:
        """Wait until the avatar is ready.

        Raises:
            GatewayError: the session ended before, and why.
        """
        await self._until(lambda: self.core.state is SessionState.READY)

    async def _until(self, reached: Callable[[], bool]) -> None:
        hold = self.holds.hold()
        try:
            while not reached():
                if hold.superseded is not None:
                    raise hold.superseded
                if self.core.over:
                    raise self.core.error or SessionEnded(
                        self.id, self.core.end_reason.value if self.core.end_reason else ""
                    )
                await hold.signal.wait()
        finally:
            hold.release()

    # --- its one task

    async def run(self, wait_s: float | None) -> None:
        """Live: wait for a place, start, speak until something ends it, stop.

        Args:
            wait_s: Longest wait for a place on the account, seconds; None is the pool's own limit.
        """
        self._task = asyncio.current_task()
        try:
            await self._live(await self._create(wait_s) if self._left is None else self._take_up(self._left))
        except GatewayError as error:
            self.end(EndReason.CREATE_FAILED, error=error)
        except asyncio.CancelledError:
            if self.lost_to is None:
                self.end(EndReason.DRAINED)
                raise
        except Exception:  # noqa: BLE001 - the root of the session's task: whatever it is ends here, logged
            incident = new_id()
            _log.exception("session.crashed", session=self.id, incident=incident)
            self.end(EndReason.UPSTREAM_FAILED, error=InternalError("a fault of the gateway", incident=incident))
        finally:
            # Each for itself: whatever fails here, the session is stopped.
            with bulkhead("session.crashed", self.id):
                self.holds.close()
            with bulkhead("session.crashed", self.id):
                self._left_open.close()
            with bulkhead("session.crashed", self.id):
                self._pool.remove_keep_alive(self)
            await self._finish()

    def crashed(self, fault: BaseException) -> None:
        """Conclude a session whose task failed where nothing should; it is stopped upstream all the same."""
        if self.drive.upstream is not None and self.lost_to is None:
            # Closed again, it only returns what the first close did.
            self._pool.run(self.drive.upstream.close(), name=f"session-{self.id}/crashed")
        if not self.finished.is_set():
            self.finished.set()
            self.holds.wake()
        _log.error("session.crashed", session=self.id, exc_info=fault)

    async def _create(self, wait_s: float | None) -> UpstreamSession:
        """As a task of its own, so that `end` can call it off while it waits for a place."""
        began_s = time.monotonic()
        self._creation = asyncio.create_task(self.avatars.start(wait_s), name=f"session-{self.id}/create")
        try:
            upstream = await self._creation
        except asyncio.CancelledError:
            if not self.core.over:
                self._creation.cancel()
                raise
            raise SessionEnded(self.id, self.core.end_reason.value if self.core.end_reason else "") from None
        finally:
            self._creation = None
        self.drive.upstream = upstream
        self.avatars.speaks(upstream)
        if not self.core.over:
            self.core.started(max_duration_s=upstream.started.max_duration_s, now_s=time.monotonic())
        _log.info(
            "session.started",
            session=self.id,
            upstream_session=upstream.started.session_id,
            ms=round((time.monotonic() - began_s) * 1000),
        )
        self._report()
        return upstream

    async def _renew(self) -> UpstreamSession:
        """The avatar cannot be reached any more: another comes into the caller's room, in its place."""
        self._rotations.close()
        return await self.avatars.replace(self.drive.upstream)

    def _take_up(self, left: RestoredSession) -> UpstreamSession:
        """Go on with what another process left; whoever held it there has `grace_s` to come back."""
        assert left.fence is not None  # noqa: S101 - it is not lived again once it has ended
        assert left.started is not None  # noqa: S101 - nor without access
        _log.info("session.adopted", session=self.id, epoch=left.fence.epoch, grace_s=round(left.grace_s, 1))
        self.holds.expect_somebody(left.grace_s)
        for utterance in self.core.speech.active:
            # The stream that it came by went with its process.
            if not utterance.sealed and not utterance.interrupted:
                self._left_open.add(utterance)
        self._report()
        self.drive.upstream = self._pool.adopt(left.started, self._ledger)
        return self.drive.upstream

    async def _live(self, upstream: UpstreamSession) -> None:
        if not self.core.over:
            self._pool.add_keep_alive(self)
            await self.drive.run(upstream)
            await self._let_last_words_out()

    async def _let_last_words_out(self) -> None:
        """Wait for the rest of the tail behind the last end of speech; see `end`."""
        if self._stop_from_s is not None:
            await asyncio.sleep(self._stop_from_s - time.monotonic())

    async def _is_lost(self) -> bool:
        """Return whether another process has the session; asked again where this one stood still."""
        # Being cancelled keeps nobody from stopping a session that is paid for.
        with contextlib.suppress(asyncio.CancelledError):
            await self._ledger.confirm_lease()
        return self.lost_to is not None

    async def _finish(self) -> None:
        if await self._is_lost():
            assert self.lost_to is not None  # noqa: S101 - that is what it means
            self._tickets.fail_all(self.lost_to)
            if self.drive.upstream is not None:
                await self.drive.upstream.leave()
            self.finished.set()
            return
        with bulkhead("session.crashed", self.id):
            self._report()
        try:
            if self.drive.upstream is not None:
                self.core.learn_end(await self.drive.upstream.close())
        finally:
            with bulkhead("session.crashed", self.id):
                self.core.ended()
                self._report()
            self.finished.set()
            self._log_end()
        await self._ledger.finish(self._keep_s)

    def _log_end(self) -> None:
        if self.spec.auto_rotate and self.core.end_reason is EndReason.MAX_DURATION:
            self._metrics.rotated("failed")
        _log.info(
            "session.ended",
            session=self.id,
            reason=self.core.end_reason.value if self.core.end_reason else "",
            upstream_reason=self.core.upstream_reason,
            error=self.core.error.reason if self.core.error else "",
            played_s=round(self.core.speech.totals.played_s, 1),
            unknown_events=self.core.unknown_events,
        )

    # --- telling the streams

    def _report(self) -> None:
        """Publish what the state machine has to report by now."""
        self._publish(self.core.reports())

    def _publish(self, outputs: Sequence[Output]) -> None:
        """Answer interrupts, and hand events to the metrics, the journal and the streams."""
        entries = []
        for output in outputs:
            if isinstance(output, Emit):
                entries.append(output.entry)
            elif isinstance(output, Answer):
                self._tickets.answer(output.interrupt_id, output.ended)
        if not entries:
            return
        for entry in entries:
            if _was_spoken_out(entry.happening):
                self._spoken_until_s = time.monotonic()
            self._meter.on_event(entry.happening, self.core.end_reason)
        self._ledger.note_speech((entry.happening for entry in entries), self.core.speech.active)
        self._ledger.note_sequence(entries[-1].sequence)
        self.holds.wake()
        self.on_news(self.id)

    # --- what outlives this process

    def reserved(self, fence: Fence) -> None:
        """The session is in the registry before it is begun."""
        self._ledger.reserved(fence)

    async def call_off(self, error: GatewayError) -> None:
        """End a session that was reserved and is not to be begun."""
        self.core.end(EndReason.CREATE_FAILED, time.monotonic(), error=error)
        self.core.ended()
        self.finished.set()
        await self._ledger.finish(self._keep_s)

    def facts(self) -> Payload:
        """What another process needs to go on with it, or to tell how it ended."""
        core = self.core
        record = Record(
            spec=self.spec,
            request_id=self.request_id,
            created_at=core.created_at,
            started_at=self.avatars.started_at,
            ready_at=core.ready_at,
            ended_at=core.ended_at,
            expires_mono_s=core.expires_at_s,
            detached_until_mono_s=self.holds.detached_until_s,
            end_reason=core.end_reason,
            error=kept_error(core.error),
            upstream_reason=core.upstream_reason,
            upstream_session_id=self.avatars.started.session_id if self.avatars.started else "",
            usage=Usage.of(core, turn_count=self.avatars.turn_count, retired_s=self.avatars.retired_s),
        )
        return record.facts()

    def handle_hashes(self) -> Sequence[HandleHash]:
        """What resumes it."""
        return self.handles.hashes

    def moved(self, error: OwnerMoved) -> None:
        """Another process has it: send nothing any more, and leave it running upstream."""
        _log.warning("session.moved", session=self.id)
        self.lost_to = error
        self.holds.supersede(error)
        if self._task is not None:
            self._task.cancel()

    # --- what it has used

    @property
    def played_s(self) -> float:
        """Seconds of speech that were heard, that of the utterance being heard now among them."""
        speech, now_s = self.core.speech, time.monotonic()
        return speech.totals.played_s + sum(one.position_s(speech.clock, now_s) for one in speech.active)
