"""Blocking client: the asyncio client in a thread of its own."""

import atexit
import contextlib
import functools
import logging
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from liveavatar.gateway.aio import AsyncClient
from liveavatar.gateway.audio import AudioFormat
from liveavatar.gateway.blocking_listener import Listener
from liveavatar.gateway.blocking_user_turns import UserTurns
from liveavatar.gateway.blocking_utterance import Utterance
from liveavatar.gateway.blocking_watch import Watch
from liveavatar.gateway.credentials import TokenSource
from liveavatar.gateway.errors import ClientClosed, DeadlineExceeded, GatewayError
from liveavatar.gateway.events import Event
from liveavatar.gateway.model import (
    AudioLimits,
    Avatar,
    Continuation,
    CreatedSession,
    Interruption,
    Pause,
    PauseTimeoutAction,
    Pose,
    Reservation,
    RoomAccess,
    ServerInfo,
    SessionRecord,
    SessionState,
    Viewer,
    ViewerAccess,
)
from liveavatar.gateway.options import SessionKeywords, SessionOptions
from liveavatar.gateway.portal import Portal
from liveavatar.gateway.session import AsyncSession
from liveavatar.gateway.source import Audio
from liveavatar.gateway.tls import TLS
from liveavatar.gateway.turn_detector import TurnRules
from liveavatar.gateway.turn_interrupts import DEFAULT_INTERRUPTS, InterruptRules
from liveavatar.gateway.voice import NewVoiceDetector
from liveavatar.gateway.words import Words

_log = logging.getLogger(__name__)

_EXIT_S = 15.0
# Longest wait, at the exit of a program that did not close its client, for the end of its sessions.


class Client:
    """Client of a gateway for programs without an event loop; the blocking counterpart of `AsyncClient`.

    Thread-safe: all threads share one connection. Use it as `with Client("gateway:50051") as client:`, or call
    `close`; both end the open sessions and the client's thread. A program that does neither ends them at exit.

    A client belongs to the process that created it. In a fork every call raises ForkedClient, and leaving a block
    has no effect: the sessions belong to the parent.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        credentials: str | Path | TokenSource | None = None,
        tls: bool | TLS | grpc.ChannelCredentials | None = None,
        allow_plaintext: bool = False,
        options: Sequence[tuple[str, Any]] = (),
        timeout: float | None = 30.0,
        chunk_duration: timedelta | float = 0.2,
        resume_timeout: timedelta | float | None = None,
    ) -> None:
        """Prepare a client and start its thread; nothing is sent. The arguments are those of `AsyncClient`.

        Raises:
            OSError: a file of `tls` cannot be read.
            PlaintextRefused: credentials without TLS for another machine.
            ValueError: no target, an unusable API key, or unusable files.
        """
        self._again = functools.partial(
            AsyncClient,
            target,
            credentials=credentials,
            tls=tls,
            allow_plaintext=allow_plaintext,
            options=options,
            timeout=timeout,
            chunk_duration=chunk_duration,
            resume_timeout=resume_timeout,
        )
        self._client = self._again()
        self._timeout_s = timeout
        self._sessions: weakref.WeakSet[AsyncSession] = weakref.WeakSet()
        self._portal = Portal()
        _clients.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._client!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def open_session(
        self,
        avatar: str | SessionOptions,
        *,
        request_id: str | None = None,
        reservation: Reservation | str | None = None,
        audio_format: AudioFormat | None = None,
        timeout: float | None = 60.0,
        **options: Unpack[SessionKeywords],
    ) -> "Session":
        """Return a new session, to be opened by `with` or `session.open()`; see `AsyncClient.open_session`."""
        session = self._client.open_session(
            avatar,
            request_id=request_id,
            reservation=reservation,
            audio_format=audio_format,
            timeout=timeout,
            **options,
        )
        return self._session(session, timeout)

    def resume_session(
        self,
        handle: str,
        after_sequence: int = 0,
        *,
        audio_format: AudioFormat | None = None,
        timeout: float | None = 60.0,
    ) -> "Session":
        """Return a session that exists, to be taken over when opened; see `AsyncClient.resume_session`."""
        session = self._client.resume_session(handle, after_sequence, audio_format=audio_format, timeout=timeout)
        return self._session(session, timeout)

    def create_session(
        self,
        avatar: str | SessionOptions,
        *,
        request_id: str | None = None,
        reservation: Reservation | str | None = None,
        timeout: float | None = 120.0,
        **options: Unpack[SessionKeywords],
    ) -> CreatedSession:
        """Create a session for another process and wait until it is ready; see `AsyncClient.create_session`.

        Raises:
            GatewayError: the gateway refused, or LiveAvatar failed.
        """
        work = self._client.create_session(
            avatar, request_id=request_id, reservation=reservation, timeout=timeout, **options
        )
        return self._portal.call(work, bound_s=timeout)

    def prepare_session(
        self,
        avatar: str | SessionOptions,
        *,
        hold: timedelta | float | None = None,
        request_id: str | None = None,
        timeout: float | None = 60.0,
        **options: Unpack[SessionKeywords],
    ) -> Reservation:
        """Start an avatar for somebody who is about to come; see `AsyncClient.prepare_session`.

        Raises:
            GatewayError: the gateway refused, or LiveAvatar failed.
        """
        work = self._client.prepare_session(avatar, hold=hold, request_id=request_id, timeout=timeout, **options)
        return self._portal.call(work, bound_s=timeout)

    def get_session(self, session_id: str) -> SessionRecord:
        """Return the current record of a session; ended sessions stay readable for a while.

        Raises:
            SessionNotFound: no such session.
        """
        return self._portal.call(self._client.get_session(session_id), bound_s=self._timeout_s)

    def list_sessions(
        self,
        *,
        states: Iterable[SessionState | str] = (),
        labels: Mapping[str, str] | None = None,
        page_size: int = 100,
    ) -> Iterator[SessionRecord]:
        """Iterate over sessions, newest first; see `AsyncClient.list_sessions`."""
        records = self._client.list_sessions(states=states, labels=labels, page_size=page_size)
        return self._portal.iterate(records, None, bound_s=self._timeout_s)

    def end_session(self, session_id: str) -> SessionRecord:
        """End a session, from any process, and wait until LiveAvatar has stopped the avatar. Idempotent.

        Raises:
            SessionNotFound: no such session.
        """
        return self._portal.call(self._client.end_session(session_id), bound_s=self._timeout_s)

    def pause_session(
        self,
        session_id: str,
        utterance_id: str = "",
        *,
        limit: float | timedelta | None = None,
        at_timeout: PauseTimeoutAction | str = PauseTimeoutAction.CONTINUE,
    ) -> Pause:
        """Pause speech from any process; see `AsyncClient.pause_session`."""
        pausing = self._client.pause_session(session_id, utterance_id, limit=limit, at_timeout=at_timeout)
        return self._portal.call(pausing, bound_s=self._timeout_s)

    def continue_session(self, session_id: str) -> Continuation:
        """Continue paused speech from any process; see `AsyncClient.continue_session`."""
        return self._portal.call(self._client.continue_session(session_id), bound_s=self._timeout_s)

    def interrupt_session(self, session_id: str, utterance_id: str = "") -> Interruption:
        """Interrupt speech from any process; see `AsyncClient.interrupt_session`.

        Raises:
            SessionNotFound: no such session.
            UtteranceNotFound: the session never had that utterance.
        """
        return self._portal.call(self._client.interrupt_session(session_id, utterance_id), bound_s=self._timeout_s)

    def create_viewer_tokens(self, session_id: str, viewers: Iterable[Viewer]) -> tuple[ViewerAccess, ...]:
        """Return tokens for more viewers of a session; see `AsyncClient.create_viewer_tokens`.

        Raises:
            SessionNotFound: no such session.
            RoomNotOwn: the session is not in a `LiveKitRoom`.
        """
        work = self._client.create_viewer_tokens(session_id, viewers)
        return self._portal.call(work, bound_s=self._timeout_s)

    def remove_viewer(self, session_id: str, identity: str) -> None:
        """Put a viewer out of a session's room; see `AsyncClient.remove_viewer`.

        Raises:
            SessionNotFound: no such session.
            RoomNotOwn: the session is not in a `LiveKitRoom`.
            RoomUnreachable: the viewer is not out yet; the gateway keeps trying.
        """
        self._portal.call(self._client.remove_viewer(session_id, identity), bound_s=self._timeout_s)

    def watch(
        self,
        session_ids: str | Iterable[str] | Mapping[str, int] = (),
        *,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = 60.0,
    ) -> Watch:
        """Return a watch of many sessions, to be opened by `with` or `watch.open()`; see `AsyncClient.watch`."""
        watch = self._client.watch(session_ids, labels=labels, timeout=timeout)
        return Watch(watch, self._portal, open_timeout_s=timeout)

    def listen(
        self,
        session_id: str = "",
        *,
        handle: str = "",
        audio_format: AudioFormat | None = None,
        chunk_duration: timedelta | float = 0.02,
        participants: Sequence[str] = (),
    ) -> Listener:
        """Return a listener to the users of a session, from any process; see `AsyncClient.listen`."""
        listener = self._client.listen(
            session_id,
            handle=handle,
            audio_format=audio_format,
            chunk_duration=chunk_duration,
            participants=participants,
        )
        return Listener(listener, self._portal)

    def list_avatars(self, *, page_size: int = 100) -> Iterator[Avatar]:
        """Iterate over the avatars that the caller may use, sorted by name; see `AsyncClient.list_avatars`."""
        return self._portal.iterate(self._client.list_avatars(page_size=page_size), None, bound_s=self._timeout_s)

    def server_info(self) -> ServerInfo:
        """Return version, limits and supported formats of the gateway."""
        return self._portal.call(self._client.server_info(), bound_s=self._timeout_s)

    def close(self) -> None:
        """End the open sessions, then close the connection and end the thread. Idempotent.

        Has no effect in a fork: sessions, connection and thread belong to the parent.
        """
        self._close(None)

    def _close(self, timeout_s: float | None) -> None:
        _clients.discard(self)
        if self._portal.forked:
            return
        try:
            with contextlib.suppress(ClientClosed):
                if self._portal.broken or self._portal.stuck:
                    self._end_without_loop(timeout_s)
                else:
                    self._portal.call(self._client.close(), timeout_s)
        finally:
            self._portal.close()

    def _end_without_loop(self, timeout_s: float | None) -> None:
        """End the sessions of a loop that has ended or is stuck, from a new loop."""
        left = [session.id for session in self._sessions if session.unended]
        if not left:
            return

        async def end_each() -> None:
            async with self._again() as client:
                for session_id in left:
                    try:
                        await client.end_session(session_id)
                    except GatewayError as error:
                        _log.warning("session.end_failed session=%s cause=%s", session_id, error)

        portal = Portal()
        try:
            portal.call(end_each(), timeout_s)
        finally:
            portal.close()

    def _session(self, session: AsyncSession, timeout_s: float | None) -> "Session":
        self._sessions.add(session)
        return Session(session, self._portal, open_timeout_s=timeout_s)


_clients: set[Client] = set()
# Clients that are not closed. Each has a thread, also a client that the program no longer refers to.


@atexit.register
def _close_all() -> None:
    """Close the clients that the program did not close: their sessions are billed until they end."""
    for client in list(_clients):
        try:
            client._close(_EXIT_S)  # noqa: SLF001  of this module
        except Exception as error:  # noqa: BLE001  no caller is left, and the other clients must be closed too
            _log.warning("client.close_failed cause=%r", error)


class Session:
    """Session of one avatar; the blocking counterpart of `AsyncSession`. Thread-safe.

    Use it as `with client.open_session(...) as session:`. Leaving the block ends the session.
    """

    def __init__(self, session: AsyncSession, portal: Portal, *, open_timeout_s: float | None) -> None:
        self._session = session
        self._portal = portal
        self._open_timeout_s = open_timeout_s

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._session!r}>"

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._portal.forked:
            return
        try:
            # The call below has no timeout, so it must not wait for a loop that is stuck.
            self._portal.require_running()
            self._portal.call(self._session.__aexit__(kind, error, traceback))
        except (ClientClosed, DeadlineExceeded) as closed:
            # Closing the client ends the session, even without its loop.
            if error is None:
                raise
            _log.warning("session.end_failed session=%s cause=%s", self.id, closed)

    @property
    def id(self) -> str:
        """Id of the session at the gateway."""
        return self._session.id

    @property
    def room(self) -> RoomAccess:
        """URL and viewer token with which the end user's browser joins the room; the token is a secret."""
        return self._session.room

    @property
    def handle(self) -> str:
        """Secret with which another process resumes the session (`resume_session`)."""
        return self._session.handle

    @property
    def record(self) -> SessionRecord:
        """Record of the session, of the time when the stream was opened or resumed or when the session ended."""
        return self._session.record

    @property
    def limits(self) -> AudioLimits | None:
        """Limits for audio, which `say` keeps to; None until the session is open."""
        return self._session.limits

    @property
    def state(self) -> SessionState:
        """State of the session by the newest event."""
        return self._session.state

    @property
    def pose(self) -> Pose:
        """Pose of the avatar by the newest event."""
        return self._session.pose

    @property
    def detach_grace(self) -> timedelta:
        """Time for which the session outlives a lost stream."""
        return self._session.detach_grace

    @property
    def connected(self) -> bool:
        """True while the stream is attached; otherwise it is being resumed, or is over."""
        return self._session.connected

    def open(self) -> Self:
        """Open or resume the session and wait for its room. `with` does this.

        Raises:
            DeadlineExceeded: no answer within the `timeout` of `open_session` or `resume_session`.
            GatewayError: the gateway refused.
        """
        self._portal.call(self._session.open(), bound_s=self._open_timeout_s)
        return self

    def ready(self, timeout: float | None = None) -> None:
        """Wait until the avatar is ready to speak.

        Raises:
            DeadlineExceeded: the wait took longer than `timeout` seconds; the session goes on.
            GatewayError: the session ended or was lost first.
        """
        self._portal.call(self._session.ready(), timeout)

    def say(
        self,
        audio: Audio,
        *,
        format: AudioFormat | None = None,  # noqa: A002  as in `AsyncSession.say`
        words: Words = None,
        utterance_id: str | None = None,
    ) -> "Utterance":
        """Queue an utterance behind all earlier utterances, and return at once; see `AsyncSession.say`.

        An iterator is read in a thread of its own and may block.

        Raises:
            AudioMisaligned: the bytes end inside a sample.
            GatewayError: the session is over.
            TooManyUtterances: 1000 utterances of the session have not ended.
            TypeError: `audio` holds no audio, or `words` no timings.
            ValueError: a format was given for a file, an array holds items of another format, or an alignment has
                not as many times as texts.
        """
        if isinstance(words, Iterator):
            # An iterator may block, which the loop of the client must not.
            words = list(words)
        say = functools.partial(self._session.say, audio, format=format, words=words, utterance_id=utterance_id)
        utterance = self._portal.run(say)
        return Utterance(utterance, self._portal)

    def wait_for_playout(self, timeout: float | None = None) -> None:
        """Wait until every utterance of this object was played, was interrupted or failed.

        Raises:
            DeadlineExceeded: the wait took longer than `timeout` seconds.
        """
        self._portal.call(self._session.wait_for_playout(), timeout)

    def interrupt(self, utterance_id: str = "", *, timeout: float | None = None) -> Interruption:
        """Silence the avatar; see `AsyncSession.interrupt`.

        Raises:
            GatewayError: the session is over.
            UtteranceNotFound: the session never had this utterance.
        """
        return self._portal.call(self._session.interrupt(utterance_id), timeout)

    def pause(
        self,
        utterance_id: str = "",
        *,
        limit: float | timedelta | None = None,
        at_timeout: PauseTimeoutAction | str = PauseTimeoutAction.CONTINUE,
        timeout: float | None = None,
    ) -> Pause:
        """Silence the avatar and keep the audio that was not heard; see `AsyncSession.pause`."""
        return self._portal.call(self._session.pause(utterance_id, limit=limit, at_timeout=at_timeout), timeout)

    def continue_speech(self, timeout: float | None = None) -> Continuation:
        """Continue after a pause; see `AsyncSession.continue_speech`."""
        return self._portal.call(self._session.continue_speech(), timeout)

    def send_data(
        self,
        payload: bytes | str,
        *,
        topic: str = "",
        identities: Sequence[str] = (),
        timeout: float | None = None,
    ) -> None:
        """Send data to participants of the avatar's room; see `AsyncSession.send_data`."""
        self._portal.call(self._session.send_data(payload, topic=topic, identities=identities), timeout)

    def start_listening(self, timeout: float | None = None) -> None:
        """Change to the listening pose; while the avatar talks, at the end of its speech."""
        self._portal.call(self._session.start_listening(), timeout)

    def stop_listening(self, timeout: float | None = None) -> None:
        """Change back to the idle pose."""
        self._portal.call(self._session.stop_listening(), timeout)

    @contextlib.contextmanager
    def listening(self, timeout: float | None = None) -> Iterator[None]:
        """Keep the listening pose for a block; entering and leaving may take `timeout` seconds each."""
        block = self._session.listening()
        self._portal.call(block.__aenter__(), timeout)
        try:
            yield
        finally:
            if not self._portal.forked:
                self._portal.call(block.__aexit__(None, None, None), timeout)

    def events(self, *, after_sequence: int = 0, timeout: float | None = None) -> Iterator[Event]:
        """Iterate over the events of the session, past and future, until its end; see `AsyncSession.events`.

        Args:
            after_sequence: Leave out events up to this sequence.
            timeout: Seconds to wait for each event. After DeadlineExceeded call this again, with the sequence of
                the newest event.

        Raises:
            DeadlineExceeded: while iterating; no event came within `timeout`.
            GatewayError: while iterating; the session was lost to this process.
        """
        return self._portal.iterate(self._session.events(after_sequence=after_sequence), timeout)

    def listen(
        self,
        *,
        audio_format: AudioFormat | None = None,
        chunk_duration: timedelta | float = 0.02,
        participants: Sequence[str] = (),
    ) -> Listener:
        """Return a listener to the users of the session; see `AsyncClient.listen`.

        Raises:
            GatewayError: the session is not open, or over.
        """
        listener = self._session.listen(
            audio_format=audio_format, chunk_duration=chunk_duration, participants=participants
        )
        return Listener(listener, self._portal)

    def user_turns(
        self,
        *,
        rules: TurnRules | None = None,
        interrupts: InterruptRules | None = DEFAULT_INTERRUPTS,
        participants: Sequence[str] = (),
        new_voice_detector: NewVoiceDetector | None = None,
    ) -> UserTurns:
        """Return the turns of the session's users: `for turn in ...`; see `AsyncSession.user_turns`.

        Raises:
            ExtraMissing: the extra is not installed, and no other detector was given.
            GatewayError: the session is not open, or over.
        """
        turns = self._session.user_turns(
            rules=rules,
            interrupts=interrupts,
            participants=participants,
            new_voice_detector=new_voice_detector,
        )
        return UserTurns(turns, self._portal)

    def end(self, timeout: float | None = None) -> SessionRecord:
        """End the session and wait until LiveAvatar has stopped the avatar. Idempotent.

        Raises:
            GatewayError: no gateway could be reached; the gateway ends the session itself after `detach_grace`.
        """
        return self._portal.call(self._session.end(), timeout)

    def detach(self, timeout: float | None = None) -> str:
        """Detach from the session without ending it, and return the handle for `resume_session`."""
        return self._portal.call(self._session.detach(), timeout)
