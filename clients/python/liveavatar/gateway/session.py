"""One session as one object: both of its streams, behind speech, control and events."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from types import TracebackType
from typing import Self

import grpc

from liveavatar.gateway import interrupt as bargein
from liveavatar.gateway.attach import Attachment, AttachPhase
from liveavatar.gateway.audio import AudioFormat
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.errors import (
    AttachSuperseded,
    DeadlineExceeded,
    GatewayError,
    InternalError,
    SessionClosed,
    SessionEnded,
    SessionNotFound,
)
from liveavatar.gateway.events import Event
from liveavatar.gateway.model import AudioLimits, Interruption, Pose, RoomAccess, SessionRecord, SessionState
from liveavatar.gateway.runtime import ClientRuntime
from liveavatar.gateway.source import Audio, source_of
from liveavatar.gateway.speech import Speech
from liveavatar.gateway.state import ObservedSession
from liveavatar.gateway.targets import ADOPTION_S, Retries, Route
from liveavatar.gateway.timeouts import timeout
from liveavatar.gateway.utterance import AsyncUtterance, UtteranceState
from liveavatar.gateway.v1 import session_service_pb2 as pb

_log = logging.getLogger(__name__)

_SETTLE_S = 5.0
# How long the gateway may take to see a detach, or to send the last events of a session that was ended.


class AsyncSession:
    """A session of one avatar: speak with `say`, steer it, follow its events.

    Use it as `async with client.open_session(...) as session:`; leaving the block ends the session, also on an
    exception or cancellation, so that it is not paid for longer than it is used. `detach` instead leaves it
    for another process.

    A broken connection is resumed for as long as the gateway keeps the session (`detach_grace`), at any of the
    client's targets, and speech goes on where it was; only when that fails do waiting calls raise. Belongs to the
    event loop it was opened in.
    """

    def __init__(
        self,
        scope: ClientRuntime,
        first: pb.AttachRequest,
        *,
        audio_format: AudioFormat,
        open_timeout_s: float | None,
        call_timeout_s: float | None,
        chunk_s: float,
        patience: timedelta | None,
    ) -> None:
        """Prepare a session; clients do this in `open_session` and `resume_session`."""
        self._scope = scope
        self._audio_format = audio_format
        self._open_timeout_s = open_timeout_s
        self._call_timeout_s = call_timeout_s
        self._changes = Condition()
        self._route = Route(scope.targets, scope.route.current)
        self._speech = Speech(
            scope.stream_audio,
            lambda: self._attach.handle,
            lambda: self._attach.patience,
            self._changes,
            Retries(self._route),
            on_resumed=lambda *resumed: self._view.on_speech_resumed(*resumed),  # noqa: PLW0108  made below
            chunk_s=chunk_s,
        )
        self._view = ObservedSession(self._speech, self._changes, after_sequence=first.resume.after_sequence)
        self._attach = Attachment(
            scope.attach, first, self._view, self._changes, Retries(self._route), patience=patience
        )
        self._root: asyncio.Task[None] | None = None
        self._final: GatewayError | None = None
        self._detached = False
        self._ending_mono_s: float | None = None

    def __repr__(self) -> str:
        name = self._view.record.id if self._view.record is not None else "not open"
        return f"<{type(self).__name__} {name} {self.state.value}>"

    @property
    def id(self) -> str:
        """The gateway's id of the session."""
        return self.record.id

    @property
    def room(self) -> RoomAccess:
        """How the end user's browser joins; its token is a secret."""
        self._require_opened()
        return self._view.room

    @property
    def handle(self) -> str:
        """Resumes the session from another process (`resume_session`). A secret."""
        self._require_opened()
        return self._attach.handle

    @property
    def record(self) -> SessionRecord:
        """The session as it was when the stream was opened or resumed, or when it ended."""
        return self._require_opened()

    @property
    def limits(self) -> AudioLimits | None:
        """Limits for audio, which `say` keeps to; None until the session is open."""
        return self._view.limits

    @property
    def state(self) -> SessionState:
        """Where the session is in its life, by the newest event."""
        return self._view.state

    @property
    def pose(self) -> Pose:
        """What the avatar does, by the newest event."""
        return self._view.pose

    @property
    def detach_grace(self) -> timedelta:
        """How long the session outlives a lost stream."""
        return self._attach.grace

    @property
    def connected(self) -> bool:
        """Whether the stream is up now; while it is not, it is being resumed."""
        return self._attach.phase is AttachPhase.ATTACHED

    @property
    def unended(self) -> bool:
        """Return whether it is up to this object to end the session, which is open and nobody else's."""
        lost = isinstance(self._final, AttachSuperseded)
        return self._view.record is not None and not (
            self._detached or lost or self._view.state is SessionState.ENDED
        )

    async def open(self) -> Self:
        """Open or resume the session and wait for its room. `async with` does this.

        The avatar itself is ready later (`ready`); audio is taken and held meanwhile. When this is cancelled or
        times out, a session that the gateway may have started for it is ended.

        Raises:
            DeadlineExceeded: no answer within the `timeout` the session was made with.
            GatewayError: it was refused.
        """
        if self._root is not None:
            raise SessionClosed("a session object is opened once", code=grpc.StatusCode.FAILED_PRECONDITION)
        self._scope.adopt(self, self._patience_s)
        # The one task that is not in a group: it is the root of the session's, and `_close` waits for it.
        self._root = asyncio.create_task(self._run(), name="session/run")
        try:
            async with timeout(self._open_timeout_s):
                await self._changes.until(lambda: self._view.record is not None or self._final is not None)
        except TimeoutError as error:
            self._scope.spawn(self._abandon(), "session/abandon")
            raise DeadlineExceeded(
                f"the gateway opened no session within {self._open_timeout_s} s",
                code=grpc.StatusCode.DEADLINE_EXCEEDED,
            ) from error
        except asyncio.CancelledError:
            self._scope.spawn(self._abandon(), "session/abandon")
            raise
        if self._view.record is None and self._final is not None:
            await self._close()
            raise self._final
        return self

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            # A second cancellation does not take back the end: the client waits for it when it closes.
            await asyncio.shield(self._scope.spawn(self.leave(), "session/end"))
        except GatewayError as failure:
            if error is None:
                raise
            _log.warning("session.end_failed session=%s cause=%s", self.id, failure)

    async def ready(self) -> None:
        """Wait until the avatar listens to commands and speaks what it gets.

        Raises:
            ReadyTimeout: it did not become ready in time; the session was ended.
            GatewayError: the session ended or was lost before.
        """
        self._require_opened()
        await self._changes.until(lambda: self._final is not None or self.state is SessionState.READY)
        if self.state is not SessionState.READY and self._final is not None:
            raise self._view.end_cause or self._final

    def say(
        self,
        audio: Audio,
        *,
        format: AudioFormat | None = None,  # noqa: A002  the word callers expect
        utterance_id: str | None = None,
    ) -> AsyncUtterance:
        """Speak, after all that was given to `say` before. Returns at once.

        Bytes and arrays are copied where they could change. A file or an iterator is read when its turn has
        come, a blocking one in a thread; pieces may be cut anywhere and are sent as they come, so a real-time
        source costs no delay. An utterance in another format than the one before starts when that has ended.

        Args:
            audio: Raw samples, the path of a WAV file, or an iterator or async iterator of raw samples.
            format: What the samples are. Default: the `audio_format` the session was opened with.
            utterance_id: 1 to 128 characters, not used before in this session. Default: a fresh UUID.

        Returns:
            The utterance: await it for its outcome, interrupt it, or let it go.

        Raises:
            AudioMisaligned: bytes end inside a sample.
            GatewayError: the session is over (SessionEnded and others), or keeps no more utterances.
            ValueError: a format for a file, or an array whose items are of another format.
        """
        self._require_alive()
        source = source_of(audio, format, self._audio_format)
        turn = UtteranceState(utterance_id or str(uuid.uuid4()), source, self._changes)
        self._speech.submit(turn)
        return AsyncUtterance(turn, self._changes, self.interrupt)

    async def wait_for_playout(self) -> None:
        """Wait until every utterance of this object has ended, in whatever way."""
        await self._changes.until(lambda: self._speech.idle)

    async def interrupt(self, utterance_id: str = "") -> Interruption:
        """Barge-in: the avatar falls silent. What waits to be sent is dropped here as well.

        What is given to `say` from now on is spoken, however late the interrupt arrives.

        Args:
            utterance_id: The utterance to cut. Default: the one being spoken and all that wait behind it.

        Returns:
            The utterances that were cut, and how much of each was heard.

        Raises:
            UtteranceNotFound: the session never had it.
            GatewayError: the session is over.
        """
        self._require_alive()
        return await bargein.interrupt(self._speech, self._ask_interrupt, self._changes, utterance_id)

    async def start_listening(self) -> None:
        """Take the attentive pose; while the avatar talks, at the end of its speech.

        Raises:
            GatewayError: it was refused, or the session is over.
        """
        await self._command(pb.SessionCommand(start_listening=pb.StartListening()))

    async def stop_listening(self) -> None:
        """Go back to the idle pose.

        Raises:
            GatewayError: it was refused, or the session is over.
        """
        await self._command(pb.SessionCommand(stop_listening=pb.StopListening()))

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hold the attentive pose for a block; nothing is raised at its end when the session is over by then."""
        await self.start_listening()
        try:
            yield
        finally:
            if self._final is None:
                await self.stop_listening()

    def events(self, *, after_sequence: int = 0) -> AsyncIterator[Event]:
        """What happened and happens in the session, to its end; each call follows on its own.

        Starts with what is kept of the past (the newest 1000 events), so nothing is missed between opening and
        this call. The last one is SessionEndedEvent; where the session was ended by `end` while its stream was
        away, and that did not come back in time, only what `end` returns says how it ended.

        Args:
            after_sequence: Events up to this one are left out. What this library tells itself has no number of its
                own (GoAwayEvent, GoAwayCancelledEvent, ResumedEvent) and comes again when it was behind this one.

        Raises:
            EventsCompacted: while iterating, when the reader has fallen behind what is kept.
            GatewayError: while iterating, when the session was lost to this process.
        """
        return self._view.events.read(after_sequence)

    async def end(self) -> SessionRecord:
        """End the session and wait until LiveAvatar has stopped it. Idempotent.

        While no gateway can be reached it is tried again, at each target, for `resume_timeout` from the first
        attempt on.

        Returns:
            The final record: reason and usage.

        Raises:
            GatewayError: the gateway could not be asked; it ends the session itself after `detach_grace`.
        """
        record = self._require_opened()
        if self._final is None and self.connected:
            with contextlib.suppress(GatewayError, TimeoutError):
                async with timeout(self._call_timeout_s):
                    await self._attach.command(pb.SessionCommand(end=pb.End()))
                    await self._changes.until(lambda: self._final is not None)
        if self.record.state is not SessionState.ENDED:
            response = await self._ask_to_end(record.id)
            # The stream that is being resumed still brings the last events.
            await self._over_within(_SETTLE_S)
            self._view.record = SessionRecord.from_proto(response.session)
            self._view.advance(SessionState.ENDED)
        await self._close()
        return self.record

    def _patience_s(self) -> float:
        """Seconds for which a lost gateway is tried, to resume the session and to end it."""
        return self._attach.patience.total_seconds()

    async def _ask_to_end(self, session_id: str) -> pb.EndSessionResponse:
        now_mono_s = asyncio.get_running_loop().time()
        if self._ending_mono_s is None:
            self._ending_mono_s = now_mono_s
        request = pb.EndSessionRequest(session_id=session_id)
        # Whoever resumed it and was told that it is unknown everywhere has waited for that long already.
        adoption_s = 0.0 if isinstance(self._final, SessionNotFound | SessionEnded) else ADOPTION_S
        return await self._scope.insist(
            lambda stub, left_s: stub.EndSession(request, timeout=left_s),
            self._call_timeout_s,
            route=self._route,
            until_mono_s=self._ending_mono_s + self._patience_s(),
            unknown_until_mono_s=self._ending_mono_s + adoption_s,
        )

    async def detach(self) -> str:
        """Let go of the session without ending it: it lives on for `detach_grace`, for `resume_session`.

        Utterances that were sent in full are spoken; to this object all that live fail with SessionClosed.

        Returns:
            The handle to resume with.
        """
        self._require_opened()
        self._detached = True
        self._attach.detach()
        await self._over_within(_SETTLE_S)
        await self._close()
        return self._attach.handle

    async def leave(self) -> None:
        """What the end of an `async with` block does: end the session, unless somebody else has it now.

        Raises:
            GatewayError: the gateway could not be asked to end it.
        """
        try:
            if self._view.record is None:
                await self._abandon()
            elif not self._detached and not isinstance(self._final, AttachSuperseded):
                with contextlib.suppress(SessionEnded, SessionNotFound):
                    await self.end()
        finally:
            await self._close()

    async def _run(self) -> None:
        """The session's root task: both streams live in it."""
        lost: GatewayError | None = SessionClosed(
            "the session object was closed", code=grpc.StatusCode.FAILED_PRECONDITION
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                speaking = tasks.create_task(self._speech.run(), name="session/speech")
                lost = await self._attach.run()
                speaking.cancel()
        except Exception as bug:  # noqa: BLE001  the root: the session is over for a reason
            _log.exception("session.fault")
            lost = InternalError(f"a fault in this library: {bug!r}", code=grpc.StatusCode.INTERNAL)
        finally:
            self._finish(lost)

    def _finish(self, lost: GatewayError | None) -> None:
        """Settle whatever still waits: nothing more will come."""
        if lost is None and self._detached:
            lost = SessionClosed("this object let go of the session", code=grpc.StatusCode.FAILED_PRECONDITION)
        if isinstance(lost, SessionEnded | SessionNotFound):
            self._view.advance(SessionState.ENDED)
        self._final = lost or self._view.ended()
        self._speech.fail_all(self._final)
        self._attach.reject_commands(self._final)
        self._view.events.close(None if isinstance(lost, SessionClosed) else lost)

    async def _ask_interrupt(self, utterance_id: str) -> Interruption:
        result = await self._command(pb.SessionCommand(interrupt=pb.Interrupt(utterance_id=utterance_id)))
        return Interruption.from_proto(result.interrupt)

    async def _command(self, command: pb.SessionCommand) -> pb.CommandResult:
        self._require_alive()
        return await self._attach.command(command)

    async def _abandon(self) -> None:
        """End a session whose opening was given up: the gateway may have started it."""
        if self._attach.creates and self._final is None:
            with contextlib.suppress(GatewayError, TimeoutError):
                async with timeout(self._call_timeout_s):
                    # Taken as soon as the gateway has opened the session, and not before.
                    await self._attach.command(pb.SessionCommand(end=pb.End()))
                    await self._changes.until(lambda: self._final is not None)
        await self._close()

    async def _over_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with timeout(seconds):
                await self._changes.until(lambda: self._final is not None)

    async def _close(self) -> None:
        """Cut both streams, which ends nothing at the gateway."""
        self._scope.release(self)
        if self._root is not None and not self._root.done():
            self._root.cancel()
            _, late = await asyncio.wait({self._root}, timeout=_SETTLE_S)
            if late:
                # Only an iterator given to `say` that swallows its cancellation can do this.
                _log.warning("session.close_late")

    def _require_opened(self) -> SessionRecord:
        if self._view.record is None:
            raise SessionClosed(
                "the session is not open; use `async with`, or await open()",
                code=grpc.StatusCode.FAILED_PRECONDITION,
            )
        return self._view.record

    def _require_alive(self) -> None:
        self._require_opened()
        if self._final is not None:
            raise self._final
