"""`SessionService`: unary lifecycle calls; `attach.py` has the stream."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar.gateway.v1.session_service_pb2_grpc import SessionServiceServicer
from liveavatar_gateway import __version__
from liveavatar_gateway.audio.formats import MAX_RATE_HZ, MIN_RATE_HZ
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.rpc import mapping as convert
from liveavatar_gateway.rpc.attach_stream import AttachStream
from liveavatar_gateway.rpc.config import RpcConfig, audio_limits
from liveavatar_gateway.rpc.errors import answered
from liveavatar_gateway.rpc.lists import readable
from liveavatar_gateway.rpc.watch_stream import WatchStream
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.upstream.permits import Permits

_Context = grpc.aio.ServicerContext[Any, Any]


class SessionService(SessionServiceServicer):
    """Answers for the sessions in a directory."""

    def __init__(self, config: RpcConfig, directory: Directory, places: Permits) -> None:
        self._config = config
        self._directory = directory
        self._places = places

    async def Attach(  # type: ignore[override]  # noqa: N802, D102 - named and described in the contract
        self, request_iterator: AsyncIterator[p.AttachRequest], context: _Context
    ) -> None:
        async with answered(context):
            attachment = await AttachStream.open(self._directory, self._config, request_iterator, context)
            await attachment.run()

    async def WatchSessions(  # type: ignore[override]  # noqa: N802, D102
        self, request_iterator: AsyncIterator[p.WatchSessionsRequest], context: _Context
    ) -> None:
        async with answered(context):
            await WatchStream(self._directory, self._config, request_iterator, context).run()

    async def CreateSession(  # noqa: N802, D102
        self, request: p.CreateSessionRequest, context: _Context
    ) -> p.CreateSessionResponse:
        async with answered(context):
            spec = convert.spec_of(
                request.spec,
                field="spec",
                default_detach_grace_s=self._config.detach_grace_s,
                own_rooms=self._config.own_rooms,
            )
            request_id = convert.checked_id(request.request_id, "request_id", required=False)
            wait_s = convert.patience_s(context.time_remaining())
            session = await self._directory.open(spec, request_id, wait_s=wait_s)
            await _ready_or_abandoned(session, retryable=bool(request_id))
            return p.CreateSessionResponse(
                session=convert.session_message(session),
                room=convert.room_message(session),
                # Whoever is attached keeps what it has: this answer may be one of several to the same request.
                handle=session.issue_handle(beside=True),
            )
        raise AssertionError("unreachable: answered raises or the body returns")

    async def GetSession(  # noqa: N802, D102
        self, request: p.GetSessionRequest, context: _Context
    ) -> p.GetSessionResponse:
        async with answered(context):
            session = await self._find(request.session_id)
            return p.GetSessionResponse(session=convert.session_message(session))
        raise AssertionError("unreachable: answered raises or the body returns")

    async def ListSessions(  # noqa: N802, D102
        self, request: p.ListSessionsRequest, context: _Context
    ) -> p.ListSessionsResponse:
        async with answered(context):
            size = convert.page_size(request.page_size)
            wanted = [session for session in self._directory.newest() if _matches(session, request)]
            page, next_token = self._directory.page(wanted, request.page_token, size)
            sessions = readable(page, convert.session_message)
            return p.ListSessionsResponse(sessions=sessions, next_page_token=next_token)
        raise AssertionError("unreachable: answered raises or the body returns")

    async def EndSession(  # noqa: N802, D102
        self, request: p.EndSessionRequest, context: _Context
    ) -> p.EndSessionResponse:
        async with answered(context):
            session = await self._directory.end(
                convert.checked_id(request.session_id, "session_id", required=True),
                EndReason.CALLER_ENDED,
                wait_s=convert.patience_s(context.time_remaining()),
            )
            return p.EndSessionResponse(session=convert.session_message(session))
        raise AssertionError("unreachable: answered raises or the body returns")

    async def InterruptSession(  # noqa: N802, D102
        self, request: p.InterruptSessionRequest, context: _Context
    ) -> p.InterruptSessionResponse:
        async with answered(context):
            session = await self._find(request.session_id)
            ended = await session.interrupt(
                convert.checked_id(request.utterance_id, "utterance_id", required=False)
            )
            return p.InterruptSessionResponse(result=convert.interrupt_message(ended))
        raise AssertionError("unreachable: answered raises or the body returns")

    async def GetServerInfo(  # noqa: N802, D102
        self,
        request: p.GetServerInfoRequest,  # noqa: ARG002 - it has no fields yet
        context: _Context,
    ) -> p.GetServerInfoResponse:
        async with answered(context):
            return p.GetServerInfoResponse(
                version=__version__,
                audio_limits=audio_limits(self._config),
                audio_encodings=[
                    audio_pb2.AUDIO_ENCODING_PCM_S16LE,
                    audio_pb2.AUDIO_ENCODING_PCM_F32LE,
                    audio_pb2.AUDIO_ENCODING_MULAW,
                    audio_pb2.AUDIO_ENCODING_ALAW,
                ],
                min_sample_rate_hz=MIN_RATE_HZ,
                max_sample_rate_hz=MAX_RATE_HZ,
                permit_count=self._places.limit,
                used_permit_count=self._places.used,
                waiting_count=self._places.waiting,
                detach_grace=convert.duration(self._config.detach_grace_s),
                draining=self._directory.draining,
            )
        raise AssertionError("unreachable: answered raises or the body returns")

    async def _find(self, session_id: str) -> SessionActor:
        return await self._directory.get(convert.checked_id(session_id, "session_id", required=True))


async def _ready_or_abandoned(session: SessionActor, *, retryable: bool) -> None:
    """Wait until the avatar is ready. A caller that gives up and cannot come back leaves nothing running."""
    ready = False
    try:
        await session.ready()
        ready = True
    finally:
        if not ready and not retryable:
            session.end(EndReason.CALLER_LOST)


def _matches(session: SessionActor, request: p.ListSessionsRequest) -> bool:
    if not convert.has_labels(session, request.labels):
        return False
    return not request.states or convert.state(session) in request.states
