"""The asyncio client."""

import functools
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from liveavatar.gateway.audio import AudioFormat
from liveavatar.gateway.channel import Connection, channel_credentials
from liveavatar.gateway.model import (
    CreatedSession,
    Interruption,
    RoomAccess,
    ServerInfo,
    SessionRecord,
    SessionState,
    as_timedelta,
    state_to_proto,
)
from liveavatar.gateway.options import SessionKeywords, SessionOptions, session_options
from liveavatar.gateway.runtime import ClientRuntime
from liveavatar.gateway.session import AsyncSession
from liveavatar.gateway.targets import target_list
from liveavatar.gateway.v1 import session_service_pb2 as pb
from liveavatar.gateway.v1 import session_service_pb2_grpc as rpc
from liveavatar.gateway.watch import AsyncWatch


class AsyncClient:
    """A gateway, from one event loop. Keep one per process and share it: its sessions use one connection.

    Use it as `async with AsyncClient("gateway:50051") as client:`; leaving the block ends the sessions that are
    still open. The connection is made with the first call.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        credentials: grpc.ChannelCredentials | None = None,
        call_credentials: grpc.CallCredentials | None = None,
        options: Sequence[tuple[str, Any]] = (),
        timeout: float | None = 30.0,
        chunk_duration: timedelta | float = 0.2,
        resume_timeout: timedelta | float | None = None,
    ) -> None:
        """Prepare a client; nothing is sent.

        Args:
            target: "host:port" or any other gRPC name. Several, with commas between or as a list, are the same
                gateway at several addresses: the next is tried where one fails, and sessions are resumed there.
                Where one of them names the process that has a session, that is asked, with the same credentials.
            credentials: What identifies the gateway, as from `grpc.ssl_channel_credentials()`. Default: plaintext.
            call_credentials: What identifies the caller, as from `grpc.access_token_call_credentials(token)`.
            options: gRPC channel options; they win over this library's `DEFAULT_OPTIONS`.
            timeout: Seconds a call may take that does not wait for an avatar, at however many targets. None waits
                for ever.
            chunk_duration: Longest audio message; a number counts seconds. Shorter chunks cost more messages,
                longer chunks delay the audio behind them.
            resume_timeout: How long a session that lost its gateway is tried to be resumed; seconds if a number.
                Then everything that waits raises ConnectionLost. Default: the session's `detach_grace`, after
                which the gateway has ended it.

        Raises:
            ValueError: call credentials without TLS, or no target.
        """
        combined = channel_credentials(credentials, call_credentials)
        targets = target_list(target)
        self._target = ",".join(targets)
        self._timeout_s = timeout
        self._chunk_s = as_timedelta(chunk_duration).total_seconds()
        # The channel is not made here: it belongs to the event loop it is made in.
        self._scope = ClientRuntime(targets, lambda one: Connection(one, combined, options))
        self._patience = None if resume_timeout is None else as_timedelta(resume_timeout)

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
        audio_format: AudioFormat | None = None,
        timeout: float | None = 60.0,
        **options: Unpack[SessionKeywords],
    ) -> AsyncSession:
        """Return a new session, to be opened by `async with` or `await session.open()`.

        Args:
            avatar: Id of the avatar, or the options of the session.
            request_id: Key of idempotence: the same id returns the same session. Default: a fresh UUID, so that
                this library's own retries never start a second session.
            audio_format: Format of the samples given to `say` without a format. Default: 24 kHz mono 16-bit PCM.
            timeout: Seconds for opening, including the wait for a free permit. None: no limit.
            options: Fields of `SessionOptions`, which replace those of `avatar`.

        Raises:
            ValueError: no such video quality or encoding.
        """
        spec = session_options(avatar, options).to_proto()
        first = pb.AttachRequest(open=pb.OpenSession(request_id=request_id or str(uuid.uuid4()), spec=spec))
        return self._session(first, audio_format, timeout)

    def resume_session(
        self,
        handle: str,
        after_sequence: int = 0,
        *,
        audio_format: AudioFormat | None = None,
        timeout: float | None = 60.0,
    ) -> AsyncSession:
        """A session that exists, taken over from wherever it is attached now.

        Args:
            handle: From `AsyncSession.handle`, `detach` or `create_session`.
            after_sequence: Events up to this one are known; all later ones come (again).
            audio_format: What `say` is given where it does not say otherwise.
            timeout: Seconds that opening may take.
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
        timeout: float | None = 120.0,  # noqa: ASYNC109  the call's deadline, which bounds the gateway's queue too
        **options: Unpack[SessionKeywords],
    ) -> CreatedSession:
        """Create a session for another process to speak in, and wait until its avatar is ready.

        No stream is attached to the session: the gateway ends it after `detach_grace` unless it is resumed.

        Args:
            avatar: As for `open_session`.
            request_id: As for `open_session`.
            timeout: Seconds for the call, including the wait for a free permit. None: no limit.
            options: As for `open_session`.

        Raises:
            GatewayError: the gateway refused, or LiveAvatar failed.
            ValueError: no such video quality or encoding.
        """
        spec = session_options(avatar, options).to_proto()
        request = pb.CreateSessionRequest(spec=spec, request_id=request_id or str(uuid.uuid4()))
        response = await self._scope.ask(lambda stub, left_s: stub.CreateSession(request, timeout=left_s), timeout)
        return CreatedSession(
            session=SessionRecord.from_proto(response.session),
            room=RoomAccess.from_proto(response.room),
            handle=response.handle,
        )

    async def get_session(self, session_id: str) -> SessionRecord:
        """One session as it is now; ended ones stay readable for a while.

        Raises:
            SessionNotFound: no such session.
        """
        request = pb.GetSessionRequest(session_id=session_id)
        response = await self._scope.ask(
            lambda stub, left_s: stub.GetSession(request, timeout=left_s), self._timeout_s
        )
        return SessionRecord.from_proto(response.session)

    async def list_sessions(
        self,
        *,
        states: Iterable[SessionState | str] = (),
        labels: Mapping[str, str] | None = None,
        page_size: int = 100,
    ) -> AsyncIterator[SessionRecord]:
        """Sessions, newest first; pages are fetched as they are needed.

        Args:
            states: Only sessions in one of these. Default: all.
            labels: Only sessions that have all of these.
            page_size: Sessions per call, 1 to 500.
        """
        token = ""
        numbers = [state_to_proto(SessionState(state)) for state in states]
        while True:
            request = pb.ListSessionsRequest(
                page_size=page_size, page_token=token, states=numbers, labels=dict(labels or {})
            )
            response = await self._scope.ask(functools.partial(_page, request), self._timeout_s)
            for session in response.sessions:
                yield SessionRecord.from_proto(session)
            token = response.next_page_token
            if not token:
                return

    async def end_session(self, session_id: str) -> SessionRecord:
        """End a session, from any process, and wait until LiveAvatar has stopped it. Idempotent.

        Raises:
            SessionNotFound: no such session.
        """
        request = pb.EndSessionRequest(session_id=session_id)
        response = await self._scope.ask(
            lambda stub, left_s: stub.EndSession(request, timeout=left_s), self._timeout_s
        )
        return SessionRecord.from_proto(response.session)

    async def interrupt_session(self, session_id: str, utterance_id: str = "") -> Interruption:
        """Barge-in from any process. Whoever speaks there should prefer its own `AsyncSession.interrupt`.

        Args:
            session_id: Whose speech to cut.
            utterance_id: The utterance to cut. Default: the one being spoken and all that wait behind it.

        Raises:
            SessionNotFound: no such session.
            UtteranceNotFound: the session never had that utterance.
        """
        request = pb.InterruptSessionRequest(session_id=session_id, utterance_id=utterance_id)
        response = await self._scope.ask(
            lambda stub, left_s: stub.InterruptSession(request, timeout=left_s), self._timeout_s, once=True
        )
        return Interruption.from_proto(response.result)

    def watch(
        self,
        session_ids: str | Iterable[str] | Mapping[str, int] = (),
        *,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = 60.0,
    ) -> AsyncWatch:
        """What happens in many sessions, on one stream, opened by `async with` or `await watch.open()`.

        Args:
            session_ids: Which ones. As a mapping, with the last event that is known of each, such as
                `AsyncWatch.sequences` gave: later ones are told, or what is missing.
            labels: Also all that have all of these, those of the future too. They find the sessions of the process
                that is asked, as `list_sessions` does; what was found is followed to other processes. Default:
                all sessions, where no `session_ids` are given.
            timeout: Seconds that opening may take.
        """
        if isinstance(session_ids, str):
            session_ids = (session_ids,)
        wanted = dict(session_ids) if isinstance(session_ids, Mapping) else dict.fromkeys(session_ids, 0)
        if labels is None and not wanted:
            labels = {}
        return AsyncWatch(self._scope, wanted, labels, open_timeout_s=timeout, patience=self._patience)

    async def server_info(self) -> ServerInfo:
        """What this gateway is and takes."""
        request = pb.GetServerInfoRequest()
        response = await self._scope.ask(
            lambda stub, left_s: stub.GetServerInfo(request, timeout=left_s), self._timeout_s
        )
        return ServerInfo.from_proto(response)

    async def close(self) -> None:
        """End the sessions that are open, then close the connection. Idempotent."""
        await self._scope.close()

    def _session(
        self, first: pb.AttachRequest, audio_format: AudioFormat | None, timeout_s: float | None
    ) -> AsyncSession:
        return AsyncSession(
            self._scope,
            first,
            audio_format=audio_format or AudioFormat(),
            open_timeout_s=timeout_s,
            call_timeout_s=self._timeout_s,
            chunk_s=self._chunk_s,
            patience=self._patience,
        )


def _page(
    request: pb.ListSessionsRequest, stub: "rpc.SessionServiceAsyncStub", timeout_s: float | None
) -> Awaitable[pb.ListSessionsResponse]:
    return stub.ListSessions(request, timeout=timeout_s)
