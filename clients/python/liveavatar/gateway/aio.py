"""Client for asyncio."""

import functools
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from liveavatar.gateway.audio import AudioFormat
from liveavatar.gateway.channel import CallOptions, Connection
from liveavatar.gateway.credentials import Credentials, TokenSource
from liveavatar.gateway.listener import AsyncListener
from liveavatar.gateway.model import (
    Avatar,
    Continuation,
    CreatedSession,
    Interruption,
    Pause,
    PauseTimeoutAction,
    Reservation,
    RoomAccess,
    ServerInfo,
    SessionRecord,
    SessionState,
    Viewer,
    ViewerAccess,
    as_timedelta,
    duration_to_proto,
    pause_to_proto,
    state_to_proto,
)
from liveavatar.gateway.options import SessionKeywords, SessionOptions, session_options
from liveavatar.gateway.runtime import ClientRuntime
from liveavatar.gateway.session import AsyncSession
from liveavatar.gateway.targets import Retries, Route, target_list
from liveavatar.gateway.tls import TLS, ChannelSecurity, require_encryption
from liveavatar.gateway.v1 import audio_service_pb2 as pb_audio
from liveavatar.gateway.v1 import session_service_pb2 as pb
from liveavatar.gateway.v1 import session_service_pb2_grpc as rpc
from liveavatar.gateway.watch import AsyncWatch


class AsyncClient:
    """Client of a gateway for one event loop. One client per process is enough: its sessions share a connection.

    Use it as `async with AsyncClient("gateway:50051") as client:`. Leaving the block ends the sessions that are
    still open. The connection is established with the first call.
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
        """Prepare a client; nothing is sent.

        Args:
            target: "host:port" or another gRPC name. A list, or names separated by commas, are addresses of the
                same gateway: when one target fails, the next target is tried and sessions are resumed there. If a
                target names another process as the owner of a session, that process is called with the same
                credentials.
            credentials: An API key; the `Path` of a file with a key or token, which is read again; or a function
                that returns a token (`TokenSource`), which is called again before the token's `expires_at`, and
                once for a call whose token the gateway refuses.
            tls: True to trust the authorities that gRPC brings along, or `TLS` with files: an authority, a
                certificate of this client. Default: plaintext.
            allow_plaintext: True to send credentials without TLS to other machines, where the network encrypts.
            options: gRPC channel options, which replace those of `DEFAULT_OPTIONS`.
            timeout: Seconds for a call that does not wait for an avatar, at all targets together. None: no limit.
            chunk_duration: Longest audio message; a number counts seconds. Shorter chunks cost more messages,
                longer chunks delay the audio behind them.
            resume_timeout: Time for which to try to resume a session that lost its gateway; a number counts
                seconds. Then all waiting calls raise ConnectionLost. Default: the session's `detach_grace`, after
                which the gateway ends the session.

        Raises:
            OSError: a file of `tls` cannot be read.
            PlaintextRefused: credentials without TLS for another machine.
            ValueError: no target, an unusable API key, or unusable files.
        """
        targets = target_list(target)
        calls, security = Credentials(credentials), ChannelSecurity(tls)

        def connect(address: str) -> Connection:
            if calls.given and not allow_plaintext:
                require_encryption(address, security)
            return Connection(address, security.credentials(), options)

        if calls.given and not allow_plaintext:
            for address in targets:
                require_encryption(address, security)
        self._target = ",".join(targets)
        self._timeout_s = timeout
        self._chunk_s = as_timedelta(chunk_duration).total_seconds()
        # Channels are created later: a channel belongs to the event loop in which it was created.
        self._runtime = ClientRuntime(
            targets, connect, calls, lambda connection: connection.credentials is not security.credentials()
        )
        self._resume_timeout = None if resume_timeout is None else as_timedelta(resume_timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._target}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def open_session(
        self,
        avatar: str | SessionOptions,
        *,
        request_id: str | None = None,
        reservation: Reservation | str | None = None,
        audio_format: AudioFormat | None = None,
        timeout: float | None = 60.0,
        **options: Unpack[SessionKeywords],
    ) -> AsyncSession:
        """Return a new session, to be opened by `async with` or `await session.open()`.

        Args:
            avatar: Id of the avatar, or the options of the session.
            request_id: Key of idempotence: the same id returns the same session. Default: a fresh UUID, so that
                this library's own retries never start a second session.
            reservation: Avatar to take, from `prepare_session`, or its id.
            audio_format: Format of the samples given to `say` without a format. Default: 24 kHz mono 16-bit PCM.
            timeout: Seconds for opening, including the wait for a free permit. None: no limit.
            options: Fields of `SessionOptions`, which replace those of `avatar`.

        Raises:
            ValueError: no such video quality or encoding.
        """
        first = pb.OpenSession(
            request_id=request_id or str(uuid.uuid4()),
            spec=session_options(avatar, options).to_proto(),
            reservation_id=_reservation_id(reservation),
        )
        return self._session(pb.AttachRequest(open=first), audio_format, timeout)

    def resume_session(
        self,
        handle: str,
        after_sequence: int = 0,
        *,
        audio_format: AudioFormat | None = None,
        timeout: float | None = 60.0,
    ) -> AsyncSession:
        """Return a session that exists, to be taken over by `async with` or `await session.open()`.

        A stream that another process has attached to the session ends with AttachSuperseded.

        Args:
            handle: Handle from `AsyncSession.handle`, `detach` or `create_session`.
            after_sequence: Sequence of the last known event; all later events are delivered, also a second time.
            audio_format: As for `open_session`.
            timeout: Seconds for opening. None: no limit.
        """
        return self._session(
            pb.AttachRequest(resume=pb.ResumeSession(handle=handle, after_sequence=after_sequence)),
            audio_format,
            timeout,
        )

    async def create_session(
        self,
        avatar: str | SessionOptions,
        *,
        request_id: str | None = None,
        reservation: Reservation | str | None = None,
        timeout: float | None = 120.0,  # noqa: ASYNC109  the call's deadline, which bounds the gateway's queue too
        **options: Unpack[SessionKeywords],
    ) -> CreatedSession:
        """Create a session for another process to speak in, and wait until its avatar is ready.

        No stream is attached to the session: the gateway ends it after `detach_grace` unless it is resumed.

        Args:
            avatar: As for `open_session`.
            request_id: As for `open_session`.
            reservation: As for `open_session`.
            timeout: Seconds for the call, including the wait for a free permit. None: no limit.
            options: As for `open_session`.

        Raises:
            GatewayError: the gateway refused, or LiveAvatar failed.
            ValueError: no such video quality or encoding.
        """
        request = pb.CreateSessionRequest(
            spec=session_options(avatar, options).to_proto(),
            request_id=request_id or str(uuid.uuid4()),
            reservation_id=_reservation_id(reservation),
        )
        response = await self._runtime.call(lambda stub, options: stub.CreateSession(request, **options), timeout)
        return CreatedSession(
            session=SessionRecord.from_proto(response.session),
            room=RoomAccess.from_proto(response.room),
            handle=response.handle,
        )

    async def prepare_session(
        self,
        avatar: str | SessionOptions,
        *,
        hold: timedelta | float | None = None,
        request_id: str | None = None,
        timeout: float | None = 60.0,  # noqa: ASYNC109  the call's deadline, which bounds the gateway's queue too
        **options: Unpack[SessionKeywords],
    ) -> Reservation:
        """Start an avatar for somebody who is about to come; it is billed from now on.

        Pass the reservation to `open_session` or `create_session` with the same avatar and video: the session is
        then ready as soon as the avatar is. An avatar that nobody takes is ended when `hold` is over.

        Args:
            avatar: As for `open_session`.
            hold: Time for which the avatar waits, 5 to 240 s; a number counts seconds. Default: 60 s.
            request_id: Key of idempotence: the same id returns the same reservation. Default: a fresh UUID.
            timeout: Seconds for the call, including the wait for a free permit. None: no limit.
            options: As for `open_session`.

        Raises:
            GatewayError: the gateway refused, or LiveAvatar failed.
            ValueError: no such video quality or encoding.
        """
        request = pb.PrepareSessionRequest(
            spec=session_options(avatar, options).to_proto(), request_id=request_id or str(uuid.uuid4())
        )
        if hold is not None:
            request.hold.CopyFrom(duration_to_proto(hold))
        response = await self._runtime.call(lambda stub, options: stub.PrepareSession(request, **options), timeout)
        return Reservation.from_proto(response.reservation)

    async def get_session(self, session_id: str) -> SessionRecord:
        """Return the current record of a session; ended sessions stay readable for a while.

        Raises:
            SessionNotFound: no such session.
        """
        request = pb.GetSessionRequest(session_id=session_id)
        response = await self._runtime.call(
            lambda stub, options: stub.GetSession(request, **options), self._timeout_s
        )
        return SessionRecord.from_proto(response.session)

    async def list_sessions(
        self,
        *,
        states: Iterable[SessionState | str] = (),
        labels: Mapping[str, str] | None = None,
        page_size: int = 100,
    ) -> AsyncIterator[SessionRecord]:
        """Iterate over sessions, newest first; pages are fetched as needed.

        Args:
            states: Only sessions in one of these states. Default: all.
            labels: Only sessions with all of these labels.
            page_size: Sessions per call, 1 to 500.
        """
        token = ""
        numbers = [state_to_proto(SessionState(state)) for state in states]
        while True:
            request = pb.ListSessionsRequest(
                page_size=page_size, page_token=token, states=numbers, labels=dict(labels or {})
            )
            response = await self._runtime.call(functools.partial(_page, request), self._timeout_s)
            for session in response.sessions:
                yield SessionRecord.from_proto(session)
            token = response.next_page_token
            if not token:
                return

    async def end_session(self, session_id: str) -> SessionRecord:
        """End a session, from any process, and wait until LiveAvatar has stopped the avatar. Idempotent.

        Raises:
            SessionNotFound: no such session.
        """
        request = pb.EndSessionRequest(session_id=session_id)
        response = await self._runtime.call(
            lambda stub, options: stub.EndSession(request, **options), self._timeout_s
        )
        return SessionRecord.from_proto(response.session)

    async def interrupt_session(self, session_id: str, utterance_id: str = "") -> Interruption:
        """Interrupt speech from any process. The process that speaks should use `AsyncSession.interrupt`.

        Args:
            session_id: Id of the session.
            utterance_id: The utterance to interrupt. Default: the utterance being spoken and all behind it.

        Raises:
            SessionNotFound: no such session.
            UtteranceNotFound: the session never had that utterance.
        """
        request = pb.InterruptSessionRequest(session_id=session_id, utterance_id=utterance_id)
        response = await self._runtime.call(
            lambda stub, options: stub.InterruptSession(request, **options), self._timeout_s, once=True
        )
        return Interruption.from_proto(response.result)

    async def create_viewer_tokens(self, session_id: str, viewers: Iterable[Viewer]) -> tuple[ViewerAccess, ...]:
        """Return tokens for more viewers of a session in a `LiveKitRoom`, or fresh ones for known viewers.

        A viewer that was removed may join again with its new token.

        Args:
            session_id: Id of the session.
            viewers: The viewers, 1 to 32.

        Raises:
            SessionNotFound: no such session.
            RoomNotOwn: the session is not in a `LiveKitRoom`.
        """
        request = pb.CreateViewerTokensRequest(
            session_id=session_id, viewers=[viewer.to_proto() for viewer in viewers]
        )
        response = await self._runtime.call(
            lambda stub, options: stub.CreateViewerTokens(request, **options), self._timeout_s
        )
        return tuple(ViewerAccess.from_proto(viewer) for viewer in response.viewers)

    async def remove_viewer(self, session_id: str, identity: str) -> None:
        """Put a viewer out of a session's `LiveKitRoom`, and again whenever it rejoins with an earlier token.

        Args:
            session_id: Id of the session.
            identity: Identity of the viewer in the room.

        Raises:
            SessionNotFound: no such session.
            RoomNotOwn: the session is not in a `LiveKitRoom`.
            RoomUnreachable: the room's LiveKit server did not put the viewer out yet; the gateway keeps trying.
        """
        request = pb.RemoveViewerRequest(session_id=session_id, identity=identity)
        await self._runtime.call(lambda stub, options: stub.RemoveViewer(request, **options), self._timeout_s)

    async def pause_session(
        self,
        session_id: str,
        utterance_id: str = "",
        *,
        limit: float | timedelta | None = None,
        at_timeout: PauseTimeoutAction | str = PauseTimeoutAction.CONTINUE,
    ) -> Pause:
        """Pause speech from any process; for the arguments see `AsyncSession.pause`.

        Raises:
            SessionNotFound: no such session.
            UtteranceNotFound: the session never had that utterance.
        """
        pause = pause_to_proto(utterance_id, limit, at_timeout)
        request = pb.PauseSessionRequest(session_id=session_id, pause=pause)
        response = await self._runtime.call(
            lambda stub, options: stub.PauseSession(request, **options), self._timeout_s, once=True
        )
        return Pause.from_proto(response.result)

    async def continue_session(self, session_id: str) -> Continuation:
        """Continue paused speech from any process; see `AsyncSession.continue_speech`.

        Raises:
            SessionNotFound: no such session.
        """
        request = pb.ContinueSessionRequest(session_id=session_id)
        response = await self._runtime.call(
            lambda stub, options: stub.ContinueSession(request, **options), self._timeout_s, once=True
        )
        return Continuation.from_proto(response.result)

    def watch(
        self,
        session_ids: str | Iterable[str] | Mapping[str, int] = (),
        *,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = 60.0,
    ) -> AsyncWatch:
        """Return a watch of many sessions, to be opened by `async with` or `await watch.open()`.

        Args:
            session_ids: Ids of the sessions. A mapping holds the last known event of each session, such as
                `AsyncWatch.sequences`: later events are delivered, or a WatchGap.
            labels: Watch also all present and future sessions with all of these labels. They select among the
                sessions of the process that is called, as in `list_sessions`; selected sessions are followed to
                other processes. Default: all sessions if `session_ids` is empty.
            timeout: Seconds for opening. None: no limit.
        """
        if isinstance(session_ids, str):
            session_ids = (session_ids,)
        wanted = dict(session_ids) if isinstance(session_ids, Mapping) else dict.fromkeys(session_ids, 0)
        if labels is None and not wanted:
            labels = {}
        return AsyncWatch(
            self._runtime, wanted, labels, open_timeout_s=timeout, resume_timeout=self._resume_timeout
        )

    def listen(
        self,
        session_id: str = "",
        *,
        handle: str = "",
        audio_format: AudioFormat | None = None,
        chunk_duration: timedelta | float = 0.02,
        participants: Sequence[str] = (),
    ) -> AsyncListener:
        """Return a listener to the users of a session, from any process; `async for` opens it.

        A listener does not keep the session: without another stream its `detach_grace` runs. It needs the role
        `listen`.

        Args:
            session_id: Id of the session; `handle` in its place names it too.
            handle: Handle of the session.
            audio_format: PCM_S16LE or MULAW, mono, 8000, 16000, 24000 or 48000 Hz. Default: 24 kHz PCM_S16LE.
            chunk_duration: Audio of one message, 10 to 100 ms in steps of 10 ms; a number counts seconds.
            participants: Identities of the users to hear. Default: all users.
        """
        header = pb_audio.ListenHeader(handle=handle) if handle else pb_audio.ListenHeader(session_id=session_id)
        return AsyncListener(
            self._runtime.listen,
            lambda: pb_audio.ListenHeader.FromString(header.SerializeToString()),
            Retries(Route(self._runtime.targets, self._runtime.route.current), renewal=self._runtime.renewal()),
            audio_format=audio_format or AudioFormat(),
            chunk_duration=chunk_duration,
            participants=participants,
            resume_timeout=self._resume_timeout,
        )

    async def list_avatars(self, *, page_size: int = 100) -> AsyncIterator[Avatar]:
        """Iterate over the avatars that the caller may use, sorted by name; pages are fetched as needed.

        Args:
            page_size: Avatars per call, 1 to 500.

        Raises:
            UpstreamError: LiveAvatar failed, and the gateway has no list yet.
        """
        token = ""
        while True:
            request = pb.ListAvatarsRequest(page_size=page_size, page_token=token)
            response = await self._runtime.call(functools.partial(_avatar_page, request), self._timeout_s)
            for avatar in response.avatars:
                yield Avatar.from_proto(avatar)
            token = response.next_page_token
            if not token:
                return

    async def server_info(self) -> ServerInfo:
        """Return version, limits and supported formats of the gateway."""
        request = pb.GetServerInfoRequest()
        response = await self._runtime.call(
            lambda stub, options: stub.GetServerInfo(request, **options), self._timeout_s
        )
        return ServerInfo.from_proto(response)

    async def close(self) -> None:
        """End the sessions that are open, then close the connection. Idempotent."""
        await self._runtime.close()

    def _session(
        self, first: pb.AttachRequest, audio_format: AudioFormat | None, timeout_s: float | None
    ) -> AsyncSession:
        return AsyncSession(
            self._runtime,
            first,
            audio_format=audio_format or AudioFormat(),
            open_timeout_s=timeout_s,
            call_timeout_s=self._timeout_s,
            chunk_s=self._chunk_s,
            resume_timeout=self._resume_timeout,
        )


def _reservation_id(reservation: Reservation | str | None) -> str:
    if reservation is None:
        return ""
    return reservation if isinstance(reservation, str) else reservation.id


def _page(
    request: pb.ListSessionsRequest, stub: "rpc.SessionServiceAsyncStub", options: CallOptions
) -> Awaitable[pb.ListSessionsResponse]:
    return stub.ListSessions(request, **options)


def _avatar_page(
    request: pb.ListAvatarsRequest, stub: "rpc.SessionServiceAsyncStub", options: CallOptions
) -> Awaitable[pb.ListAvatarsResponse]:
    return stub.ListAvatars(request, **options)
