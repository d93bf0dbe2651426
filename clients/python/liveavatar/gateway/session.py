"""Session of one avatar: speech, commands and events over two streams."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

import grpc

from liveavatar.gateway.attach import Attachment, AttachPhase
from liveavatar.gateway.audio import AudioFormat
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.errors import (
    AttachSuperseded,
    GatewayError,
    InternalError,
    SessionClosed,
    SessionEnded,
    SessionNotFound,
)
from liveavatar.gateway.events import Event
from liveavatar.gateway.interrupt import interrupt_speech
from liveavatar.gateway.listener import AsyncListener
from liveavatar.gateway.model import (
    AudioLimits,
    Continuation,
    Interruption,
    Pause,
    PauseTimeoutAction,
    Pose,
    RoomAccess,
    SessionRecord,
    SessionState,
    pause_to_proto,
)
from liveavatar.gateway.root import RootTask
from liveavatar.gateway.runtime import ClientRuntime
from liveavatar.gateway.source import Audio, source_of
from liveavatar.gateway.speech import Speech
from liveavatar.gateway.state import ObservedSession
from liveavatar.gateway.targets import ADOPTION_S, Retries, Route
from liveavatar.gateway.timeouts import timeout
from liveavatar.gateway.turn_detector import TurnRules
from liveavatar.gateway.turn_interrupts import DEFAULT_INTERRUPTS, InterruptRules
from liveavatar.gateway.user_turn import TURN_FORMAT
from liveavatar.gateway.user_turns import AsyncUserTurns
from liveavatar.gateway.utterance import AsyncUtterance, UtteranceState
from liveavatar.gateway.v1 import audio_service_pb2 as pb_audio
from liveavatar.gateway.v1 import room_pb2 as pb_room
from liveavatar.gateway.v1 import session_service_pb2 as pb
from liveavatar.gateway.voice import NewVoiceDetector, silero
from liveavatar.gateway.words import SpokenText, Words

_log = logging.getLogger(__name__)

_SETTLE_S = 5.0
# Longest wait for the gateway to notice a detach, or to send the last events of an ended session.


class AsyncSession:
    """Session of one avatar: speak with `say`, interrupt, change the pose, follow the events.

    Use it as `async with client.open_session(...) as session:`. Leaving the block ends the session, also after an
    exception or a cancellation, so that no unused time is billed. `detach` leaves the session to another process
    instead.

    A broken connection is resumed for as long as the gateway keeps the session (`detach_grace`), at any of the
    client's targets, and speech continues at the byte where it stopped. Waiting calls raise only when resuming
    fails. A session object belongs to the event loop in which it was opened.
    """

    def __init__(
        self,
        runtime: ClientRuntime,
        first: pb.AttachRequest,
        *,
        audio_format: AudioFormat,
        open_timeout_s: float | None,
        call_timeout_s: float | None,
        chunk_s: float,
        resume_timeout: timedelta | None,
    ) -> None:
        """Prepare a session; clients do this in `open_session` and `resume_session`."""
        self._runtime = runtime
        self._audio_format = audio_format
        self._open_timeout_s = open_timeout_s
        self._call_timeout_s = call_timeout_s
        self._condition = Condition()
        self._route = Route(runtime.targets, runtime.route.current)
        self._speech = Speech(
            runtime.stream_audio,
            lambda: self._attach.handle,
            lambda: self._attach.resume_timeout,
            self._condition,
            Retries(self._route, renewal=runtime.renewal()),
            on_resumed=lambda *resumed: self._observed.on_speech_resumed(*resumed),  # noqa: PLW0108  made below
            chunk_s=chunk_s,
        )
        self._observed = ObservedSession(self._speech, self._condition, after_sequence=first.resume.after_sequence)
        self._attach = Attachment(
            runtime.attach,
            first,
            self._observed,
            self._condition,
            Retries(self._route, renewal=runtime.renewal()),
            resume_timeout=resume_timeout,
        )
        self._root = RootTask("session", runtime, self._condition, self._leave, self._resume_timeout_s)
        self._final: GatewayError | None = None
        self._turns: list[AsyncUserTurns] = []
        self._detached = False
        self._ending_mono_s: float | None = None

    def __repr__(self) -> str:
        name = self._observed.record.id if self._observed.record is not None else "not open"
        return f"<{type(self).__name__} {name} {self.state.value}>"

    @property
    def id(self) -> str:
        """Id of the session at the gateway."""
        return self.record.id

    @property
    def room(self) -> RoomAccess:
        """URL and viewer token with which the end user's browser joins the room; the token is a secret."""
        self._require_opened()
        return self._observed.room

    @property
    def handle(self) -> str:
        """Secret with which another process resumes the session (`resume_session`)."""
        self._require_opened()
        return self._attach.handle

    @property
    def record(self) -> SessionRecord:
        """Record of the session, of the time when the stream was opened or resumed or when the session ended."""
        return self._require_opened()

    @property
    def limits(self) -> AudioLimits | None:
        """Limits for audio, which `say` keeps to; None until the session is open."""
        return self._observed.limits

    @property
    def state(self) -> SessionState:
        """State of the session by the newest event."""
        return self._observed.state

    @property
    def pose(self) -> Pose:
        """Pose of the avatar by the newest event."""
        return self._observed.pose

    @property
    def detach_grace(self) -> timedelta:
        """Time for which the session outlives a lost stream."""
        return self._attach.grace

    @property
    def connected(self) -> bool:
        """True while the stream is attached; otherwise it is being resumed, or is over."""
        return self._attach.phase is AttachPhase.ATTACHED

    @property
    def unended(self) -> bool:
        """True while this object is to end the session: open, not detached, and not taken over."""
        is_open = self._observed.record is not None and self._observed.state is not SessionState.ENDED
        return is_open and not self._let_go

    @property
    def _let_go(self) -> bool:
        """True once another process owns the session: this object detached, or was superseded."""
        return self._detached or isinstance(self._final, AttachSuperseded)

    async def open(self) -> Self:
        """Open or resume the session and wait for its room. `async with` does this.

        The avatar becomes ready later (`ready`); the gateway buffers audio until then. After a cancellation or a
        timeout the session that the gateway may have started is ended.

        Raises:
            DeadlineExceeded: no answer within the `timeout` of `open_session` or `resume_session`.
            GatewayError: the gateway refused.
        """
        await self._root.open(
            self._run,
            opened=lambda: self._observed.record is not None,
            failure=lambda: self._final,
            abandon=self._abandon,
            timeout_s=self._open_timeout_s,
        )
        return self

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            # A second cancellation does not take back the end: the client waits for its task when it closes.
            await asyncio.shield(self._runtime.spawn(self._leave(), "session/end"))
        except GatewayError as failure:
            if error is None:
                raise
            _log.warning("session.end_failed session=%s cause=%s", self.id, failure)

    async def ready(self) -> None:
        """Wait until the avatar is ready to speak.

        Raises:
            GatewayError: the session ended or was lost first.
            ReadyTimeout: the avatar did not become ready in time; the session was ended.
        """
        self._require_opened()
        await self._condition.until(lambda: self._final is not None or self.state is SessionState.READY)
        if self.state is not SessionState.READY and self._final is not None:
            raise self._observed.end_cause or self._final

    def say(
        self,
        audio: Audio,
        *,
        format: AudioFormat | None = None,  # noqa: A002  the word callers expect
        words: Words = None,
        utterance_id: str | None = None,
    ) -> AsyncUtterance:
        """Queue an utterance behind all earlier utterances, and return at once.

        Bytes and arrays are copied where they could change. A file or an iterator is read when all earlier
        utterances were sent, a blocking iterator in a thread. Its pieces may be cut anywhere and are sent as they
        arrive, so a real-time source is not delayed. An utterance of another format than the utterance before
        starts when the latter has ended.

        Args:
            audio: Raw samples, the path of a WAV file, or an iterator or async iterator of raw samples. Between
                the samples, an iterator may yield timings as in `words`, or pairs of samples and timings that
                count from these samples.
            format: Format of raw samples. Default: the `audio_format` of `open_session`.
            words: Times of the words in the audio, for `heard_text` of the outcome: `Word` objects, alignments of
                ElevenLabs or Cartesia, or an iterable of these. An async iterable is read beside the audio, and
                for at most a second after its end.
            utterance_id: 1 to 128 characters, not used before in this session. Default: a fresh UUID.

        Returns:
            The utterance. Awaiting it is optional.

        Raises:
            AudioMisaligned: the bytes end inside a sample.
            GatewayError: the session is over (SessionEnded and others).
            TooManyUtterances: 1000 utterances of the session have not ended.
            TypeError: `audio` holds no audio, or `words` no timings.
            ValueError: a format was given for a file, an array holds items of another format, or an alignment has
                not as many times as texts.
        """
        self._require_alive()
        source = source_of(audio, format, self._audio_format)
        text = SpokenText(words)
        state = UtteranceState(utterance_id or str(uuid.uuid4()), source, self._condition, text)
        self._speech.submit(state)
        return AsyncUtterance(state, self._condition, self.interrupt)

    async def wait_for_playout(self) -> None:
        """Wait until every utterance of this object was played, was interrupted or failed."""
        await self._condition.until(lambda: self._speech.idle)

    async def interrupt(self, utterance_id: str = "") -> Interruption:
        """Silence the avatar, and drop the audio that this process has not sent yet.

        Utterances given to `say` from now on are not affected, however late the interrupt arrives.

        Args:
            utterance_id: The utterance to interrupt. Default: the utterance being spoken and all behind it.

        Returns:
            The interrupted utterances, and how much of each was heard.

        Raises:
            GatewayError: the session is over.
            UtteranceNotFound: the session never had this utterance.
        """
        self._require_alive()
        return await interrupt_speech(self._speech, self._send_interrupt, self._condition, utterance_id)

    async def pause(
        self,
        utterance_id: str = "",
        *,
        limit: float | timedelta | None = None,
        at_timeout: PauseTimeoutAction | str = PauseTimeoutAction.CONTINUE,
    ) -> Pause:
        """Silence the avatar and keep the audio that was not heard, until `continue_speech` or an interrupt.

        Utterances may be given to `say` meanwhile; they are spoken after the pause. A second pause only replaces
        the limit of the first.

        Args:
            utterance_id: Pause only while this utterance is spoken; otherwise the pause has no effect. Default:
                whatever is spoken; while nothing is, the session is paused all the same.
            limit: Longest pause, 0.1 s to 10 min. Default: none.
            at_timeout: Action at the limit: "continue" or "interrupt".

        Raises:
            GatewayError: the limit is out of its range, or the session is over.
            UtteranceNotFound: the session never had this utterance.
            ValueError: `at_timeout` is no action.
        """
        command = pb.SessionCommand(pause=pause_to_proto(utterance_id, limit, at_timeout))
        return Pause.from_proto((await self._command(command)).pause)

    async def continue_speech(self) -> Continuation:
        """Continue after a pause, from what was heard or from the last silence within a second before.

        Without a pause this has no effect, and `was_paused` of the result is False.

        Raises:
            GatewayError: the session is over.
        """
        command = pb.SessionCommand(continue_speech=pb.ContinueSpeech())
        return Continuation.from_proto((await self._command(command)).continue_speech)

    async def send_data(self, payload: bytes | str, *, topic: str = "", identities: Sequence[str] = ()) -> None:
        """Send data to participants of the avatar's room, reliably and in order.

        Needs no `SessionOptions.room_events`. A call that is repeated because its stream broke is carried out
        once, unless another gateway process took the session over in between.

        Args:
            payload: Content, at most 15 KiB; a text is sent as UTF-8.
            topic: Topic by which receivers select messages, at most 128 characters.
            identities: Participants that get it, at most 64. Default: everybody in the room.

        Raises:
            AgentSeatTaken, DataNotPermitted, RoomTokenMissing: the gateway may not send data to the room.
            InvalidField: an argument is out of its bounds.
            ParticipantNotFound: one of `identities` is not in the room.
            RoomUnreachable: the room could not be reached in time.
            GatewayError: the session is over.
        """
        if isinstance(identities, str):
            identities = (identities,)
        content = payload.encode() if isinstance(payload, str) else payload
        data = pb_room.SendData(payload=content, topic=topic, identities=identities)
        await self._command(pb.SessionCommand(send_data=data))

    async def start_listening(self) -> None:
        """Change to the listening pose; while the avatar talks, at the end of its speech.

        Raises:
            GatewayError: the gateway refused, or the session is over.
        """
        await self._command(pb.SessionCommand(start_listening=pb.StartListening()))

    async def stop_listening(self) -> None:
        """Change back to the idle pose.

        Raises:
            GatewayError: the gateway refused, or the session is over.
        """
        await self._command(pb.SessionCommand(stop_listening=pb.StopListening()))

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Keep the listening pose for a block. Leaving the block raises nothing after the end of the session."""
        await self.start_listening()
        try:
            yield
        finally:
            if self._final is None:
                await self.stop_listening()

    def events(self, *, after_sequence: int = 0) -> AsyncIterator[Event]:
        """Iterate over the events of the session, past and future, until its end. Calls are independent.

        The newest 1000 events are kept, so no event is missed between opening and this call. The last event is a
        SessionEndedEvent. If `end` was called while the stream was being resumed, the event may be missing; then
        only the record that `end` returns holds the reason.

        Args:
            after_sequence: Leave out events up to this sequence. Events of this library (GoAwayEvent,
                GoAwayCancelledEvent, ResumedEvent) have no sequence of their own and count as behind the event
                before them.

        Raises:
            EventsCompacted: while iterating; the reader is more than 1000 events behind.
            GatewayError: while iterating; the session was lost to this process.
        """
        return self._observed.events.read(after_sequence)

    def listen(
        self,
        *,
        audio_format: AudioFormat | None = None,
        chunk_duration: timedelta | float = 0.02,
        participants: Sequence[str] = (),
    ) -> AsyncListener:
        """Return a listener to the users of the session; `async for` opens it. See `AsyncClient.listen`.

        Raises:
            GatewayError: the session is not open, or over.
        """
        self._require_alive()
        return AsyncListener(
            self._runtime.listen,
            lambda: pb_audio.ListenHeader(handle=self._attach.handle),
            Retries(Route(self._runtime.targets, self._route.current), renewal=self._runtime.renewal()),
            audio_format=audio_format or AudioFormat(),
            chunk_duration=chunk_duration,
            participants=participants,
            resume_timeout=self._attach.resume_timeout,
        )

    def user_turns(
        self,
        *,
        rules: TurnRules | None = None,
        interrupts: InterruptRules | None = DEFAULT_INTERRUPTS,
        participants: Sequence[str] = (),
        new_voice_detector: NewVoiceDetector | None = None,
    ) -> AsyncUserTurns:
        """Return the turns of the session's users, who are heard as by `listen`: `async for turn in ...`.

        A user who speaks while the avatar talks pauses it at once; a longer turn interrupts it, and after a short
        one, such as a cough, it continues. No other code should pause the session meanwhile.

        Args:
            rules: Rules for the start and the end of a turn. Default: `TurnRules()`.
            interrupts: Rules for turns while the avatar talks; None never pauses it.
            participants: Identities of the users to hear. Default: all users.
            new_voice_detector: Makes the detector of voice for each user. Default: Silero VAD, of the extra
                `liveavatar-gateway-client[turns]`.

        Raises:
            ExtraMissing: the extra is not installed, and no other detector was given.
            GatewayError: the session is not open, or over.
        """
        turns = AsyncUserTurns(
            self.listen(audio_format=TURN_FORMAT, participants=participants),
            self,
            new_voice_detector or silero(),
            self._runtime.spawn,
            is_talking=lambda: not self._speech.idle,
            rules=rules or TurnRules(),
            interrupts=interrupts,
        )
        self._turns = [*(other for other in self._turns if not other.closed), turns]
        return turns

    async def end(self) -> SessionRecord:
        """End the session and wait until LiveAvatar has stopped the avatar. Idempotent.

        While no gateway can be reached, each target is tried again for `resume_timeout` after the first attempt.

        Returns:
            The final record, with reason and usage.

        Raises:
            GatewayError: no gateway could be reached; the gateway ends the session itself after `detach_grace`.
        """
        record = self._require_opened()
        if self._final is None and self.connected:
            with contextlib.suppress(GatewayError, TimeoutError):
                async with timeout(self._call_timeout_s):
                    await self._attach.command(pb.SessionCommand(end=pb.End()))
                    await self._condition.until(lambda: self._final is not None)
        if self.record.state is not SessionState.ENDED:
            response = await self._send_end(record.id)
            # A stream that is being resumed still brings the last events.
            await self._wait_for_end(_SETTLE_S)
            self._observed.on_end_confirmed(response.session)
        await self._root.close()
        return self.record

    def _resume_timeout_s(self) -> float:
        """Return the seconds for which to try to reach a lost gateway, to resume or to end the session."""
        return self._attach.resume_timeout.total_seconds()

    async def _send_end(self, session_id: str) -> pb.EndSessionResponse:
        now_mono_s = asyncio.get_running_loop().time()
        if self._ending_mono_s is None:
            self._ending_mono_s = now_mono_s
        request = pb.EndSessionRequest(session_id=session_id)
        # After SessionNotFound while resuming, another process has had the time to take the session over.
        adoption_s = 0.0 if isinstance(self._final, SessionNotFound | SessionEnded) else ADOPTION_S
        return await self._runtime.call_until_answered(
            lambda stub, options: stub.EndSession(request, **options),
            self._call_timeout_s,
            route=self._route,
            until_mono_s=self._ending_mono_s + self._resume_timeout_s(),
            unknown_until_mono_s=self._ending_mono_s + adoption_s,
        )

    async def detach(self) -> str:
        """Detach from the session without ending it: `resume_session` may resume it within `detach_grace`.

        The avatar speaks utterances that were sent in full. In this object, all utterances without an outcome fail
        with SessionClosed.

        Returns:
            The handle for `resume_session`.
        """
        self._require_opened()
        self._detached = True
        self._attach.detach()
        await self._wait_for_end(_SETTLE_S)
        await self._root.close()
        return self._attach.handle

    async def _leave(self) -> None:
        """End the session, unless it is detached or another process has taken it over, and close this object.

        Raises:
            GatewayError: no gateway could be reached.
        """
        try:
            if self._observed.record is None:
                await self._abandon()
            elif not self._let_go:
                with contextlib.suppress(SessionEnded, SessionNotFound):
                    await self.end()
        finally:
            await self._root.close()

    async def _run(self) -> None:
        """Run both streams to their end."""
        lost: GatewayError | None = SessionClosed(
            "the session object was closed", code=grpc.StatusCode.FAILED_PRECONDITION
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                speaking = tasks.create_task(self._speech.run(), name="session/speech")
                lost = await self._attach.run()
                speaking.cancel()
        except Exception as bug:  # noqa: BLE001  a task's root: the session ends with this error
            _log.exception("session.fault")
            lost = InternalError(f"a bug in this library: {bug!r}", code=grpc.StatusCode.INTERNAL)
        finally:
            self._finish(lost)

    def _finish(self, lost: GatewayError | None) -> None:
        """Settle everything that waits: no more messages will come."""
        if lost is None and self._detached:
            lost = SessionClosed(
                "this object was detached from the session", code=grpc.StatusCode.FAILED_PRECONDITION
            )
        if isinstance(lost, SessionEnded | SessionNotFound):
            self._observed.advance(SessionState.ENDED)
        self._final = lost or self._observed.ended()
        self._speech.fail_all(self._final)
        self._attach.reject_commands(self._final)
        for turns in self._turns:
            turns.close()
        self._observed.events.close(None if isinstance(lost, SessionClosed) else lost)

    async def _send_interrupt(self, utterance_id: str) -> Interruption:
        result = await self._command(pb.SessionCommand(interrupt=pb.Interrupt(utterance_id=utterance_id)))
        return Interruption.from_proto(result.interrupt)

    async def _command(self, command: pb.SessionCommand) -> pb.CommandResult:
        self._require_alive()
        return await self._attach.command(command)

    async def _abandon(self) -> None:
        """End a session whose opening was given up, since the gateway may have started it."""
        if self._attach.creates and self._final is None:
            with contextlib.suppress(GatewayError, TimeoutError):
                async with timeout(self._call_timeout_s):
                    # The gateway takes the command once it has opened the session.
                    await self._attach.command(pb.SessionCommand(end=pb.End()))
                    await self._condition.until(lambda: self._final is not None)
        await self._root.close()

    async def _wait_for_end(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with timeout(seconds):
                await self._condition.until(lambda: self._final is not None)

    def _require_opened(self) -> SessionRecord:
        if self._observed.record is None:
            raise SessionClosed(
                "the session is not open; use `async with`, or await open()",
                code=grpc.StatusCode.FAILED_PRECONDITION,
            )
        return self._observed.record

    def _require_alive(self) -> None:
        self._require_opened()
        if self._final is not None:
            raise self._final
